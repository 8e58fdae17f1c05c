{{- define "inference.roundTripName" -}}
{{- include "modelyard-common.fullname" . }}-round-trip
{{- end -}}

{{/* The pod of one inference round trip. */}}
{{- define "inference.roundTripPod" -}}
restartPolicy: Never
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- include "modelyard-common.podSecurity" . | nindent 2 }}
{{- include "modelyard-common.placement" . }}
containers:
  - name: round-trip
    image: {{ include "modelyard-common.image" (dict "root" . "image" .Values.image) }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    command: [python, -I, /test/round_trip.py]
    args:
      - http://{{ include "modelyard-common.fullname" . }}:{{ get (include "modelyard-common.ports" . | fromYaml) .Chart.Name }}
      - {{ .Values.test.model | quote }}
    env:
      - name: TOKEN_FILE
        value: /etc/modelyard/auth/token
      - name: TIMEOUT_S
        value: {{ .Values.test.timeoutSeconds | quote }}
    securityContext:
      {{- include "modelyard-common.containerSecurity" . | nindent 6 }}
    terminationMessagePolicy: FallbackToLogsOnError
    resources:
      requests:
        cpu: 10m
        memory: 32Mi
      limits:
        memory: 128Mi
    volumeMounts:
      - name: script
        mountPath: /test
        readOnly: true
      - name: auth
        mountPath: /etc/modelyard/auth
        readOnly: true
volumes:
  - name: script
    configMap:
      name: {{ include "inference.roundTripName" . }}
  - name: auth
    secret:
      secretName: {{ .Values.auth.existingSecret }}
      defaultMode: 288 # 0440, in a notation that every YAML reads alike
      items:
        - key: {{ .Values.test.tokenKey }}
          path: token
{{- end -}}
