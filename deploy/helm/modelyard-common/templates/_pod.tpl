{{/*
What all pods have in common: the restricted Pod Security level, written out in full. There is no value that weakens
it; the numbers alone can be chosen.
*/}}

{{- define "modelyard-common.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ int64 .Values.global.podSecurity.runAsUser }}
runAsGroup: {{ int64 .Values.global.podSecurity.runAsGroup }}
fsGroup: {{ int64 .Values.global.podSecurity.fsGroup }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "modelyard-common.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* How a pod ends up on a node, and with which credentials it is pulled. */}}
{{- define "modelyard-common.placement" -}}
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* A probe. Takes probe (the values) and check (httpGet and so on). */}}
{{- define "modelyard-common.probe" -}}
{{- toYaml .check }}
periodSeconds: {{ .probe.periodSeconds }}
timeoutSeconds: {{ .probe.timeoutSeconds }}
failureThreshold: {{ .probe.failureThreshold }}
{{- end -}}

{{/* Seconds from the pod's deletion until it is killed: every stage of its end, and a margin for closing files. */}}
{{- define "modelyard-common.terminationSeconds" -}}
{{- $s := .Values.shutdown -}}
{{- addf $s.preStopSeconds $s.drainSeconds $s.graceSeconds ($s.flushSeconds | default 0) 15 | ceil | int -}}
{{- end -}}

{{- define "modelyard-common.topologySpread" -}}
{{- if dig "topologySpread" "enabled" false (.root.Values | merge (dict)) }}
topologySpreadConstraints:
  {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - topologyKey: {{ $key }}
    maxSkew: 1
    whenUnsatisfiable: {{ $.root.Values.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- include "modelyard-common.selector" $ | nindent 8 }}
    {{- if not $.root.Values.persistence.enabled }}
    # The pods of the release before do not count.
    matchLabelKeys: [pod-template-hash]
    {{- end }}
  {{- end }}
{{- end }}
{{- end -}}
