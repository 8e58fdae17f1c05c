{{/*
Names and labels. All names of a platform are <platform>-<chart>, whether its charts are installed as one release by
the umbrella ("modelyard") or as one release each ("modelyard-registry"), so that peers find each other by name.
*/}}

{{- define "modelyard-common.name" -}}
{{- .Values.nameOverride | default .Chart.Name -}}
{{- end -}}

{{/* At most 38 characters: with the longest chart, a suffix and what controllers append it stays below 63. */}}
{{- define "modelyard-common.platform" -}}
{{- .Values.global.platform | default (trimSuffix (printf "-%s" .Chart.Name) .Release.Name) | trunc 38 | trimSuffix "-" -}}
{{- end -}}

{{- define "modelyard-common.fullname" -}}
{{- .Values.fullnameOverride | default (printf "%s-%s" (include "modelyard-common.platform" .) (include "modelyard-common.name" .)) -}}
{{- end -}}

{{/* The immutable part. Takes root and component. */}}
{{- define "modelyard-common.selector" -}}
app.kubernetes.io/name: {{ include "modelyard-common.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of an object. Takes root and component. */}}
{{- define "modelyard-common.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 }}
{{ include "modelyard-common.podLabels" . }}
{{- end -}}

{{/* Labels of a pod; without the chart's version, so that a new chart with the same image restarts nothing. */}}
{{- define "modelyard-common.podLabels" -}}
{{ include "modelyard-common.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: modelyard
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{ include "modelyard-common.platformLabel" .root }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What ties the pods of one platform together across releases; network policies select by it. */}}
{{- define "modelyard-common.platformLabel" -}}
modelyard.dev/platform: {{ include "modelyard-common.platform" . }}
{{- end -}}

{{/* Takes root, component, and optionally name, annotations and moreLabels. */}}
{{- define "modelyard-common.metadata" -}}
name: {{ .name | default (include "modelyard-common.fullname" .root) }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "modelyard-common.labels" . | nindent 2 }}
  {{- with .moreLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What a chart says about its service in its own "<chart>.facts". */}}
{{- define "modelyard-common.facts" -}}
{{- include (printf "%s.facts" .Chart.Name) . -}}
{{- end -}}

{{- define "modelyard-common.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "modelyard-common.fullname" .) -}}
{{- else -}}
{{- required "serviceAccount.create is false: name an existing one in serviceAccount.name" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* An image reference. Takes root and image. */}}
{{- define "modelyard-common.image" -}}
{{- $registry := .root.Values.global.imageRegistry | default .image.registry -}}
{{- $name := .image.repository -}}
{{- with $registry }}{{ $name = printf "%s/%s" (trimSuffix "/" .) $name }}{{ end -}}
{{- if .image.digest -}}
{{ $name }}@{{ .image.digest }}
{{- else -}}
{{ $name }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end -}}
