{{- define "drift.facts" -}}
database: true
tokens: true
scraped: true
apiAccess: false
outside: [database]
{{- end -}}

{{- define "drift.env" -}}
{{- include "modelyard-common.env" . -}}
{{- end -}}

{{- define "drift.envFrom" -}}[]{{- end -}}

{{- define "drift.checks" -}}
{{- include "modelyard-common.checks" . -}}
{{- end -}}

{{- define "drift.migrationCommand" -}}
{{- include "modelyard-common.migrationCommand" . -}}
{{- end -}}

{{- define "drift.migrationEnv" -}}
{{- include "modelyard-common.migrationEnv" . -}}
{{- end -}}
