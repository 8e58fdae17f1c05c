{{- define "inference.facts" -}}
database: false
tokens: true
scraped: true
apiAccess: false
outside: []
{{- if .Values.runtime.enabled }}
mounts:
  - name: runtime
    mountPath: /run/modelyard
volumes:
  - name: runtime
    emptyDir:
      sizeLimit: {{ .Values.runtime.size }}
  - name: runtime-tmp
    emptyDir:
      sizeLimit: {{ .Values.temporarySize }}
sidecars:
  - name: runtime
    {{- include "inference.runtime" . | nindent 4 }}
{{- end }}
{{- end -}}

{{/*
A native side container: it is there before inference begins and after it has drained. No startup probe: inference does
not wait for it, and no readiness probe: what it does not run is served without it.
*/}}
{{- define "inference.runtime" -}}
image: {{ include "modelyard-common.image" (dict "root" . "image" .Values.runtime.image) }}
imagePullPolicy: {{ .Values.runtime.image.pullPolicy }}
restartPolicy: Always
securityContext:
  {{- include "modelyard-common.containerSecurity" . | nindent 2 }}
terminationMessagePolicy: FallbackToLogsOnError
env:
  - name: MODELYARD_INFERENCE_RUNTIME_SOCKET
    value: {{ include "inference.runtimeSocket" . }}
  - name: MODELYARD_INFERENCE_RUNTIME_PYFUNC
    value: {{ .Values.runtime.pyfunc | quote }}
  - name: MODELYARD_INFERENCE_RUNTIME_MEMORY_BYTES
    value: {{ int64 .Values.runtime.memoryPerVersion | quote }}
  - name: MODELYARD_INFERENCE_RUNTIME_LOG_LEVEL
    value: {{ .Values.logLevel }}
  {{- with .Values.global.environment }}
  - name: MODELYARD_INFERENCE_RUNTIME_ENVIRONMENT
    value: {{ . | quote }}
  {{- end }}
livenessProbe:
  {{- $check := dict "exec" (dict "command" (list "/app/bin/python" "-I" "/opt/modelyard/healthcheck.py" "INFERENCE_RUNTIME" "socket")) }}
  {{- include "modelyard-common.probe" (dict "probe" .Values.runtime.liveness "check" $check) | nindent 2 }}
resources:
  {{- toYaml .Values.runtime.resources | nindent 2 }}
volumeMounts:
  - name: runtime-tmp
    mountPath: /tmp
  - name: runtime
    mountPath: /run/modelyard
{{- end -}}

{{- define "inference.runtimeSocket" -}}/run/modelyard/runtime.sock{{- end -}}

{{- define "inference.env" -}}
{{- include "modelyard-common.env" . -}}
{{- if .Values.runtime.enabled }}
- name: MODELYARD_INFERENCE_RUNTIME_SOCKET
  value: {{ include "inference.runtimeSocket" . }}
{{- end }}
{{- end -}}

{{- define "inference.envFrom" -}}[]{{- end -}}

{{- define "inference.checks" -}}
{{- include "modelyard-common.checks" . -}}
{{- end -}}
