{{- define "operator.facts" -}}
database: false
tokens: true
scraped: true
apiAccess: true
outside: [kubernetesApi]
{{- end -}}

{{- define "operator.env" -}}
{{- include "modelyard-common.env" . }}
- name: MODELYARD_OPERATOR_NAMESPACE
  value: {{ .Release.Namespace }}
- name: MODELYARD_OPERATOR_LEASE_NAME
  value: {{ include "modelyard-common.fullname" . }}
{{- end -}}

{{- define "operator.envFrom" -}}[]{{- end -}}

{{- define "operator.checks" -}}
{{- include "modelyard-common.checks" . -}}
{{- end -}}
