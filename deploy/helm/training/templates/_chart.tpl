{{- define "training.facts" -}}
database: true
tokens: true
scraped: true
apiAccess: true
outside: [database, kubernetesApi]
{{- end -}}

{{- define "training.env" -}}
{{- include "modelyard-common.env" . -}}
{{- end -}}

{{- define "training.envFrom" -}}[]{{- end -}}

{{- define "training.checks" -}}
{{- include "modelyard-common.checks" . -}}
{{- end -}}

{{- define "training.migrationCommand" -}}
{{- include "modelyard-common.migrationCommand" . -}}
{{- end -}}

{{- define "training.migrationEnv" -}}
{{- include "modelyard-common.migrationEnv" . -}}
{{- end -}}

{{- define "training.jobAccount" -}}
{{- printf "%s-trainer" (include "modelyard-common.platform" .) -}}
{{- end -}}
