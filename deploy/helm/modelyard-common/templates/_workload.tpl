{{/*
The pods of a chart: a Deployment with an emptyDir, or a StatefulSet with a claim per pod when /data must outlive them.

A chart says in "<chart>.facts": `database` and `tokens` (whether it has them), `apiAccess` (whether its pods talk to
the Kubernetes API), `command` (instead of the image's), `sidecars`, `mounts` and `volumes` of its own, and in "<chart>.checks" what its probes ask.
*/}}

{{- define "modelyard-common.workload" -}}
{{- $persistent := .Values.persistence.enabled -}}
{{- $selector := dict "root" . "component" .Chart.Name -}}
apiVersion: apps/v1
kind: {{ $persistent | ternary "StatefulSet" "Deployment" }}
metadata:
  {{- include "modelyard-common.metadata" $selector | nindent 2 }}
spec:
  {{- if not (include "modelyard-common.isAutoscaled" .) }}
  replicas: {{ .Values.replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  minReadySeconds: 2
  selector:
    matchLabels:
      {{- include "modelyard-common.selector" $selector | nindent 6 }}
  {{- if $persistent }}
  serviceName: {{ include "modelyard-common.fullname" . }}
  podManagementPolicy: Parallel
  updateStrategy:
    type: RollingUpdate
  persistentVolumeClaimRetentionPolicy:
    whenDeleted: {{ .Values.persistence.whenDeleted }}
    whenScaled: Retain
  {{- else }}
  strategy:
    type: RollingUpdate
    rollingUpdate:
      maxUnavailable: 0
      maxSurge: 1
  {{- end }}
  template:
    metadata:
      labels:
        {{- include "modelyard-common.podLabels" $selector | nindent 8 }}
        {{- with .Values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with .Values.podAnnotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      {{- include "modelyard-common.workloadPod" . | nindent 6 }}
  {{- if $persistent }}
  volumeClaimTemplates:
    - apiVersion: v1
      kind: PersistentVolumeClaim
      metadata:
        name: data
        labels:
          {{- include "modelyard-common.selector" $selector | nindent 10 }}
          {{- include "modelyard-common.platformLabel" . | nindent 10 }}
      spec:
        accessModes: [{{ .Values.persistence.accessMode }}]
        {{- with .Values.persistence.storageClass | default .Values.global.storageClass }}
        storageClassName: {{ . }}
        {{- end }}
        resources:
          requests:
            storage: {{ .Values.persistence.size }}
  {{- end }}
{{- end -}}

{{- define "modelyard-common.workloadPod" -}}
{{- $facts := include "modelyard-common.facts" . | fromYaml -}}
serviceAccountName: {{ include "modelyard-common.serviceAccountName" . }}
automountServiceAccountToken: {{ $facts.apiAccess | default false }}
enableServiceLinks: false
terminationGracePeriodSeconds: {{ include "modelyard-common.terminationSeconds" . }}
securityContext:
  {{- include "modelyard-common.podSecurity" . | nindent 2 }}
{{- include "modelyard-common.placement" . }}
{{- include "modelyard-common.topologySpread" (dict "root" . "component" .Chart.Name) }}
{{- with concat .Values.initContainers ($facts.sidecars | default list) }}
initContainers:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: {{ .Chart.Name }}
    {{- include "modelyard-common.workloadContainer" . | nindent 4 }}
  {{- with .Values.extraContainers }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
volumes:
  - name: tmp
    emptyDir:
      sizeLimit: {{ .Values.temporarySize }}
  {{- if not .Values.persistence.enabled }}
  - name: data
    emptyDir:
      sizeLimit: {{ .Values.persistence.size }}
  {{- end }}
  {{- if $facts.tokens }}
  - name: auth
    secret:
      secretName: {{ .Values.auth.existingSecret }}
      defaultMode: 288 # 0440, in a notation that every YAML reads alike
      items:
        - key: {{ .Values.auth.tokensKey }}
          path: tokens
        - key: {{ .Values.auth.tokenKey }}
          path: token
  {{- end }}
  {{- with concat ($facts.volumes | default list) .Values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "modelyard-common.workloadContainer" -}}
{{- $facts := include "modelyard-common.facts" . | fromYaml -}}
{{- $checks := include (printf "%s.checks" .Chart.Name) . | fromYaml -}}
image: {{ include "modelyard-common.image" (dict "root" . "image" .Values.image) }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with $facts.command }}
command:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $facts.workingDir }}
workingDir: {{ . }}
{{- end }}
securityContext:
  {{- include "modelyard-common.containerSecurity" . | nindent 2 }}
# What a container that ended said last is what `kubectl describe` says.
terminationMessagePolicy: FallbackToLogsOnError
ports:
  - name: http
    containerPort: {{ get (include "modelyard-common.ports" . | fromYaml) .Chart.Name }}
    protocol: TCP
  {{- with get (include "modelyard-common.grpcPorts" . | fromYaml) .Chart.Name }}
  - name: grpc
    containerPort: {{ . }}
    protocol: TCP
  {{- end }}
env:
  {{- include (printf "%s.env" .Chart.Name) . | nindent 2 }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $sources := include (printf "%s.envFrom" .Chart.Name) . | fromYamlArray }}
{{- with concat $sources .Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
startupProbe:
  {{- include "modelyard-common.probe" (dict "probe" .Values.probes.startup "check" $checks.startup) | nindent 2 }}
readinessProbe:
  {{- include "modelyard-common.probe" (dict "probe" .Values.probes.readiness "check" $checks.readiness) | nindent 2 }}
livenessProbe:
  {{- include "modelyard-common.probe" (dict "probe" .Values.probes.liveness "check" $checks.liveness) | nindent 2 }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ .Values.shutdown.preStopSeconds }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
volumeMounts:
  - name: tmp
    mountPath: /tmp
  - name: data
    mountPath: /data
  {{- if $facts.tokens }}
  - name: auth
    mountPath: /etc/modelyard/auth
    readOnly: true
  {{- end }}
  {{- with concat ($facts.mounts | default list) .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* The three questions that every service of ours answers. */}}
{{- define "modelyard-common.checks" -}}
{{- range $probe, $path := dict "startup" "startup" "readiness" "ready" "liveness" "live" }}
{{ $probe }}:
  httpGet:
    path: /health/{{ $path }}
    port: http
{{- end }}
{{- end -}}
