{{/*
Network policies: every pod is selected by one that names both directions, so that what is not opened is closed. The
edges are those of the service graph.
*/}}

{{/* Takes root, component, and optionally name, annotations, and the extra rules ingress and egress. */}}
{{- define "modelyard-common.networkPolicy" -}}
{{- $root := .root -}}
{{- $component := .component -}}
{{- $network := $root.Values.global.networkPolicy -}}
{{- $ports := include "modelyard-common.ports" $root | fromYaml -}}
{{- $edges := include "modelyard-common.edges" $root | fromYaml -}}
{{- $callers := list -}}
{{- range $from, $to := $edges -}}
{{- if has $component $to -}}{{- $callers = append $callers $from -}}{{- end -}}
{{- end -}}
{{- $port := get $ports $component -}}
{{- $outside := .outside | default list -}}
{{- if and $root.Values.global.tracing.endpoint (has $component (include "modelyard-common.traced" $root | fromYamlArray)) -}}
{{- $outside = append $outside "tracing" -}}
{{- end -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "modelyard-common.metadata" . | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "modelyard-common.peerLabels" (dict "root" $root "component" $component) | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    {{- with $callers }}
    # The service graph.
    - from:
        {{- range . }}
        - podSelector:
            matchLabels:
              {{- include "modelyard-common.peerLabels" (dict "root" $root "component" .) | nindent 14 }}
        {{- end }}
      ports:
        - port: {{ $port }}
          protocol: TCP
    {{- end }}
    {{- with .clients }}
    - from:
        {{- toYaml . | nindent 8 }}
      ports:
        - port: {{ $port }}
          protocol: TCP
        {{- with get (include "modelyard-common.grpcPorts" $root | fromYaml) $component }}
        - port: {{ . }}
          protocol: TCP
        {{- end }}
    {{- end }}
    {{- if and .scraped $network.prometheus }}
    - from:
        {{- toYaml $network.prometheus | nindent 8 }}
      ports:
        - port: {{ $port }}
          protocol: TCP
    {{- end }}
    {{- with .ingress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- if not (or $callers .clients (and .scraped $network.prometheus) .ingress) }} []{{ end }}
  egress:
    - to:
        {{- toYaml $network.dns | nindent 8 }}
      ports:
        - port: 53
          protocol: UDP
        - port: 53
          protocol: TCP
    {{- range get $edges $component | default list }}
    - to:
        - podSelector:
            matchLabels:
              {{- include "modelyard-common.peerLabels" (dict "root" $root "component" .) | nindent 14 }}
      ports:
        - port: {{ get $ports . }}
          protocol: TCP
    {{- end }}
    {{- range $outside }}
    {{- $destination := get $network . }}
    - ports:
        {{- range $destination.ports }}
        - port: {{ . }}
          protocol: TCP
        {{- end }}
      {{- with $destination.to }}
      to:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    {{- end }}
    {{- with .egress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* What tells the pods of a component apart, in whatever release of the platform they are. Takes root and component. */}}
{{- define "modelyard-common.peerLabels" -}}
app.kubernetes.io/part-of: modelyard
app.kubernetes.io/component: {{ .component }}
{{ include "modelyard-common.platformLabel" .root }}
{{- end -}}

{{/* The policy of a chart's own pods. */}}
{{- define "modelyard-common.workloadNetworkPolicy" -}}
{{- if .Values.global.networkPolicy.enabled -}}
{{- $facts := include "modelyard-common.facts" . | fromYaml -}}
{{- include "modelyard-common.networkPolicy" (dict
      "root" . "component" .Chart.Name "scraped" $facts.scraped
      "clients" .Values.networkPolicy.clients "outside" $facts.outside
      "ingress" .Values.networkPolicy.extraIngress "egress" .Values.networkPolicy.extraEgress) -}}
{{- end -}}
{{- end -}}
