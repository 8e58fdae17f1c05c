{{- define "operator.facts" -}}
database: false
tokens: true
scraped: true
apiAccess: true
outside: [kubernetesApi]
{{- end -}}

{{- define "operator.env" -}}
{{- include "modelyard-common.env" . -}}
{{- end -}}

{{- define "operator.envFrom" -}}[]{{- end -}}

{{- define "operator.checks" -}}
{{- include "modelyard-common.checks" . -}}
{{- end -}}
