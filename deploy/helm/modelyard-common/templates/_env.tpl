{{/*
The environment of a service: MODELYARD_<SERVICE>_<SETTING>. What other values decide is decided here once; `settings`
adds what the service itself knows.
*/}}

{{- define "modelyard-common.env" -}}
{{- $facts := include "modelyard-common.facts" . | fromYaml -}}
{{- $prefix := printf "MODELYARD_%s_" (upper .Chart.Name) -}}
{{- $told := dict
      "HOST" .Values.global.bindAddress
      "PORT" (get (include "modelyard-common.ports" . | fromYaml) .Chart.Name | int | toString)
      "AUTH" "token"
      "TOKENS_FILE" "/etc/modelyard/auth/tokens"
      "TOKEN_FILE" "/etc/modelyard/auth/token"
      "DATA_DIR" "/data"
      "LOG_LEVEL" .Values.logLevel
      "DRAIN_S" (toString .Values.shutdown.drainSeconds)
      "GRACE_S" (toString .Values.shutdown.graceSeconds) -}}
{{- if hasKey .Values.shutdown "flushSeconds" -}}
{{- $_ := set $told "FLUSH_S" (toString .Values.shutdown.flushSeconds) -}}
{{- end -}}
{{- with get (include "modelyard-common.grpcPorts" . | fromYaml) .Chart.Name -}}
{{- $_ := set $told "GRPC_PORT" (int . | toString) -}}
{{- end -}}
{{- if $facts.database -}}
{{- $_ := set $told "MIGRATIONS" "require" -}}
{{- end -}}
{{- with .Values.global.environment -}}
{{- $_ := set $told "ENVIRONMENT" . -}}
{{- end -}}
{{- with .Values.global.tracing -}}
{{- if .endpoint -}}
{{- $_ := set $told "OTLP_ENDPOINT" .endpoint -}}
{{- $_ := set $told "TRACE_RATIO" (toString .ratio) -}}
{{- end -}}
{{- end -}}
{{- range $peer, $_ := .Values.peers -}}
{{- $_ := set $told (printf "%s_URL" (upper $peer)) (include "modelyard-common.peerUrl" (dict "root" $ "peer" $peer)) -}}
{{- end -}}
{{- range $name, $value := .Values.settings -}}
{{- $_ := set $told (snakecase $name | upper) (kindIs "string" $value | ternary $value (toJson $value)) -}}
{{- end -}}
{{- range $name, $value := $told }}
- name: {{ $prefix }}{{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- if $facts.database }}
{{ include "modelyard-common.databaseEnv" (dict "database" .Values.database "name" (printf "%sDATABASE_URL" $prefix)) }}
{{- end }}
{{- end -}}

{{/* Takes database (the values) and name (of the variable). */}}
{{- define "modelyard-common.databaseEnv" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .database.existingSecret }}
      key: {{ .database.urlKey }}
{{- end -}}
