{{/*
The objects around the pods: Service, ServiceAccount, PodDisruptionBudget, autoscaler, and what lets others in.
*/}}

{{- define "modelyard-common.service" -}}
{{- $here := dict "root" . "component" .Chart.Name "annotations" .Values.service.annotations -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "modelyard-common.metadata" $here | nindent 2 }}
spec:
  type: {{ .Values.service.type }}
  selector:
    {{- include "modelyard-common.selector" $here | nindent 4 }}
  ports:
    - name: http
      port: {{ get (include "modelyard-common.ports" . | fromYaml) .Chart.Name }}
      targetPort: http
      protocol: TCP
      appProtocol: http
    {{- with get (include "modelyard-common.grpcPorts" . | fromYaml) .Chart.Name }}
    - name: grpc
      port: {{ . }}
      targetPort: grpc
      protocol: TCP
      appProtocol: kubernetes.io/h2c
    {{- end }}
{{- end -}}

{{- define "modelyard-common.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- $name := include "modelyard-common.serviceAccountName" . -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "modelyard-common.metadata" (dict "root" . "component" .Chart.Name "name" $name "annotations" .Values.serviceAccount.annotations) | nindent 2 }}
automountServiceAccountToken: false
{{- end -}}
{{- end -}}

{{/* "true" when an autoscaler owns the number of replicas, else nothing. */}}
{{- define "modelyard-common.isAutoscaled" -}}
{{- if hasKey .Values "autoscaling" -}}{{- if .Values.autoscaling.enabled -}}true{{- end -}}{{- end -}}
{{- end -}}

{{- define "modelyard-common.podDisruptionBudget" -}}
{{- $fewest := int .Values.replicas -}}
{{- if include "modelyard-common.isAutoscaled" . -}}{{- $fewest = int .Values.autoscaling.minReplicas -}}{{- end -}}
{{- if and .Values.podDisruptionBudget.enabled (ge $fewest 2) -}}
{{- $here := dict "root" . "component" .Chart.Name -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "modelyard-common.metadata" $here | nindent 2 }}
spec:
  maxUnavailable: {{ .Values.podDisruptionBudget.maxUnavailable }}
  # A pod that does not work must not keep a node from being drained.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "modelyard-common.selector" $here | nindent 6 }}
{{- end -}}
{{- end -}}

{{- define "modelyard-common.autoscaler" -}}
{{- if include "modelyard-common.isAutoscaled" . -}}
{{- $a := .Values.autoscaling -}}
{{- if gt (int $a.minReplicas) (int $a.maxReplicas) -}}
{{- fail (printf "%s: autoscaling.minReplicas is above autoscaling.maxReplicas" .Chart.Name) -}}
{{- end -}}
{{- $target := dict "apiVersion" "apps/v1" "kind" (.Values.persistence.enabled | ternary "StatefulSet" "Deployment") "name" (include "modelyard-common.fullname" .) -}}
{{- if $a.keda.enabled -}}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  {{- include "modelyard-common.metadata" (dict "root" . "component" .Chart.Name) | nindent 2 }}
spec:
  scaleTargetRef:
    {{- toYaml $target | nindent 4 }}
  minReplicaCount: {{ $a.minReplicas }}
  maxReplicaCount: {{ $a.maxReplicas }}
  cooldownPeriod: {{ $a.keda.cooldownSeconds }}
  {{- with $a.behavior }}
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        {{- toYaml . | nindent 8 }}
  {{- end }}
  triggers:
    - type: cpu
      metricType: Utilization
      metadata:
        value: {{ $a.targetCpuPercent | quote }}
    {{- with $a.keda.triggers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- else -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  {{- include "modelyard-common.metadata" (dict "root" . "component" .Chart.Name) | nindent 2 }}
spec:
  scaleTargetRef:
    {{- toYaml $target | nindent 4 }}
  minReplicas: {{ $a.minReplicas }}
  maxReplicas: {{ $a.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target:
          type: Utilization
          averageUtilization: {{ $a.targetCpuPercent }}
  {{- with $a.behavior }}
  behavior:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Somebody has to be let in, or a route leads to a closed door. */}}
{{- define "modelyard-common.requireClients" -}}
{{- if and .Values.global.networkPolicy.enabled (not .Values.networkPolicy.clients) -}}
{{- fail (printf "%s is routed from outside, but networkPolicy.clients is empty: name who routes, for instance [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ingress-nginx}}}]" .Chart.Name) -}}
{{- end -}}
{{- end -}}

{{- define "modelyard-common.ingress" -}}
{{- if .Values.ingress.enabled -}}
{{- include "modelyard-common.requireClients" . -}}
{{- $host := required (printf "%s: ingress.enabled needs ingress.host" .Chart.Name) .Values.ingress.host -}}
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  {{- include "modelyard-common.metadata" (dict "root" . "component" .Chart.Name "annotations" .Values.ingress.annotations) | nindent 2 }}
spec:
  {{- with .Values.ingress.className }}
  ingressClassName: {{ . }}
  {{- end }}
  rules:
    - host: {{ $host | quote }}
      http:
        paths:
          - path: {{ .Values.ingress.path }}
            pathType: Prefix
            backend:
              service:
                name: {{ include "modelyard-common.fullname" . }}
                port:
                  name: http
  {{- with .Values.ingress.tlsSecret }}
  tls:
    - hosts: [{{ $host | quote }}]
      secretName: {{ . }}
  {{- end }}
{{- end -}}
{{- end -}}

{{- define "modelyard-common.httpRoute" -}}
{{- if .Values.httpRoute.enabled -}}
{{- include "modelyard-common.requireClients" . -}}
{{- if not .Values.httpRoute.parentRefs -}}
{{- fail (printf "%s: httpRoute.enabled needs httpRoute.parentRefs" .Chart.Name) -}}
{{- end -}}
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  {{- include "modelyard-common.metadata" (dict "root" . "component" .Chart.Name "annotations" .Values.httpRoute.annotations) | nindent 2 }}
spec:
  parentRefs:
    {{- range .Values.httpRoute.parentRefs }}
    - {{ merge (dict) . (dict "group" "gateway.networking.k8s.io" "kind" "Gateway") | toYaml | nindent 6 | trim }}
    {{- end }}
  {{- with .Values.httpRoute.hostnames }}
  hostnames:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  rules:
    - matches:
        - path:
            type: PathPrefix
            value: {{ .Values.httpRoute.path }}
      backendRefs:
        - group: ""
          kind: Service
          name: {{ include "modelyard-common.fullname" . }}
          port: {{ get (include "modelyard-common.ports" . | fromYaml) .Chart.Name }}
          weight: 1
{{- end -}}
{{- end -}}

{{- define "modelyard-common.extraObjects" -}}
{{- range .Values.extraObjects }}
---
{{ tpl (toYaml .) $ }}
{{- end }}
{{- end -}}
