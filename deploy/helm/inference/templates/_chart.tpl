{{- define "inference.facts" -}}
database: false
tokens: true
scraped: true
apiAccess: false
outside: []
{{- end -}}

{{- define "inference.env" -}}
{{- include "modelyard-common.env" . -}}
{{- end -}}

{{- define "inference.envFrom" -}}[]{{- end -}}

{{- define "inference.checks" -}}
{{- include "modelyard-common.checks" . -}}
{{- end -}}
