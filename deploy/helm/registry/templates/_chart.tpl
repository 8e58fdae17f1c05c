{{- define "registry.facts" -}}
database: true
tokens: true
scraped: true
apiAccess: false
outside: [database]
{{- end -}}

{{- define "registry.env" -}}
{{- include "modelyard-common.env" . -}}
{{- end -}}

{{- define "registry.envFrom" -}}[]{{- end -}}

{{- define "registry.checks" -}}
{{- include "modelyard-common.checks" . -}}
{{- end -}}

{{- define "registry.migrationCommand" -}}
{{- include "modelyard-common.migrationCommand" . -}}
{{- end -}}

{{- define "registry.migrationEnv" -}}
{{- include "modelyard-common.migrationEnv" . -}}
{{- end -}}
