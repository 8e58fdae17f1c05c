{{- define "mlflow.facts" -}}
database: true
tokens: false
scraped: false
apiAccess: false
outside: [database, objectStore]
command: [mlflow, server]
# What MLflow writes beside its artifacts, it writes where it stands.
workingDir: /tmp
{{- end -}}

{{- define "mlflow.env" -}}
{{- if not (or .Values.artifacts .Values.persistence.enabled) -}}
{{- fail "mlflow: set artifacts to an object store (s3://bucket/prefix), or persistence.enabled to keep them on a volume" -}}
{{- end -}}
{{- if and (gt (int .Values.replicas) 1) (hasPrefix "/" (.Values.artifacts | default "/")) -}}
{{- fail "mlflow: several replicas need an object store that they share; set artifacts (s3://bucket/prefix)" -}}
{{- end -}}
{{- $port := get (include "modelyard-common.ports" . | fromYaml) .Chart.Name | int -}}
{{- $name := include "modelyard-common.fullname" . -}}
{{- $hosts := list -}}
{{- range list $name (printf "%s.%s" $name .Release.Namespace) (printf "%s.%s.svc" $name .Release.Namespace) (printf "%s.%s.svc.cluster.local" $name .Release.Namespace) -}}
{{- $hosts = concat $hosts (list . (printf "%s:%d" . $port)) -}}
{{- end -}}
{{- with .Values.ingress -}}{{- if .enabled -}}{{- $hosts = append $hosts .host -}}{{- end -}}{{- end -}}
{{- with .Values.httpRoute -}}{{- if .enabled -}}{{- $hosts = concat $hosts .hostnames -}}{{- end -}}{{- end -}}
{{ include "modelyard-common.databaseEnv" (dict "database" .Values.database "name" "MLFLOW_BACKEND_STORE_URI") }}
- name: MLFLOW_ARTIFACTS_DESTINATION
  value: {{ .Values.artifacts | default "/data/artifacts" | quote }}
- name: MLFLOW_HOST
  value: {{ .Values.global.bindAddress | quote }}
- name: MLFLOW_PORT
  value: {{ $port | quote }}
- name: MLFLOW_WORKERS
  value: {{ .Values.workers | quote }}
# Without its own names in this list MLflow answers 403 to all that comes through its Service.
- name: MLFLOW_SERVER_ALLOWED_HOSTS
  value: {{ concat $hosts .Values.allowedHosts | uniq | join "," | quote }}
- name: MLFLOW_SERVER_ENABLE_JOB_EXECUTION
  value: "false"
- name: MLFLOW_DISABLE_TELEMETRY
  value: "true"
- name: HOME
  value: /tmp
{{- with .Values.objectStore.endpointUrl }}
- name: MLFLOW_S3_ENDPOINT_URL
  value: {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "mlflow.envFrom" -}}
{{- with .Values.objectStore.existingSecret -}}
- secretRef:
    name: {{ . }}
{{- else -}}
[]
{{- end -}}
{{- end -}}

{{/* Ready: an answer that comes from the database. Live: the process alone. */}}
{{- define "mlflow.checks" -}}
startup:
  httpGet:
    path: /health
    port: http
readiness:
  httpGet:
    path: /api/2.0/mlflow/experiments/search?max_results=1
    port: http
    httpHeaders:
      - name: Host
        value: {{ include "modelyard-common.fullname" . }}
liveness:
  httpGet:
    path: /health
    port: http
{{- end -}}

{{/* Makes the tables of an empty database, and brings those of a release before to this one. */}}
{{- define "mlflow.migrationCommand" -}}
- mlflow
- db
- upgrade
- $(MLFLOW_BACKEND_STORE_URI)
{{- end -}}

{{- define "mlflow.migrationEnv" -}}
{{ include "modelyard-common.databaseEnv" (dict "database" .Values.migrations.database "name" "MLFLOW_BACKEND_STORE_URI") }}
- name: MLFLOW_DISABLE_TELEMETRY
  value: "true"
- name: HOME
  value: /tmp
{{- end -}}
