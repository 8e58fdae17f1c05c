{{/*
The schema of a chart's database, before its new pods start: an idempotent hook Job with an identity and a network
policy of its own, which are hooks too, since hooks come before everything else of a release. Helm runs it before
install and upgrade, Argo CD as PreSync. Hooks that succeeded are deleted; a failed Job stays and says why.
*/}}

{{/* Takes weight, and optionally more annotations. */}}
{{- define "modelyard-common.hookAnnotations" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: {{ .weight | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- with .more }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "modelyard-common.migration" -}}
{{- if .Values.migrations.enabled -}}
{{- $component := printf "%s-migration" .Chart.Name -}}
{{- $name := printf "%s-migration" (include "modelyard-common.fullname" .) -}}
{{- $account := .Values.migrations.serviceAccount.name | default $name -}}
{{- $early := include "modelyard-common.hookAnnotations" (dict "weight" "-10") | fromYaml -}}
{{- if .Values.migrations.serviceAccount.create -}}
{{- $annotations := include "modelyard-common.hookAnnotations" (dict "weight" "-10" "more" .Values.migrations.serviceAccount.annotations) | fromYaml -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "modelyard-common.metadata" (dict "root" . "component" $component "name" $account "annotations" $annotations) | nindent 2 }}
automountServiceAccountToken: false
---
{{ end -}}
{{- if .Values.global.networkPolicy.enabled -}}
{{ include "modelyard-common.networkPolicy" (dict "root" . "component" $component "name" $name "annotations" $early "outside" (list "database")) }}
---
{{ end -}}
apiVersion: batch/v1
kind: Job
metadata:
  {{- include "modelyard-common.metadata" (dict "root" . "component" $component "name" $name "annotations" (include "modelyard-common.hookAnnotations" (dict "weight" "-5" "more" (dict "helm.sh/hook-output-log-policy" "hook-failed")) | fromYaml)) | nindent 2 }}
spec:
  backoffLimit: {{ .Values.migrations.retries }}
  activeDeadlineSeconds: {{ .Values.migrations.timeoutSeconds }}
  template:
    metadata:
      labels:
        {{- include "modelyard-common.podLabels" (dict "root" . "component" $component) | nindent 8 }}
    spec:
      restartPolicy: Never
      serviceAccountName: {{ $account }}
      automountServiceAccountToken: false
      enableServiceLinks: false
      securityContext:
        {{- include "modelyard-common.podSecurity" . | nindent 8 }}
      {{- include "modelyard-common.placement" . | indent 6 }}
      containers:
        - name: migration
          image: {{ include "modelyard-common.image" (dict "root" . "image" .Values.image) }}
          imagePullPolicy: {{ .Values.image.pullPolicy }}
          command:
            {{- include (printf "%s.migrationCommand" .Chart.Name) . | nindent 12 }}
          env:
            {{- include (printf "%s.migrationEnv" .Chart.Name) . | nindent 12 }}
            {{- with .Values.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          {{- with .Values.extraEnvFrom }}
          envFrom:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          securityContext:
            {{- include "modelyard-common.containerSecurity" . | nindent 12 }}
          terminationMessagePolicy: FallbackToLogsOnError
          resources:
            {{- toYaml .Values.migrations.resources | nindent 12 }}
          volumeMounts:
            - name: tmp
              mountPath: /tmp
            {{- with .Values.extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
      volumes:
        - name: tmp
          emptyDir:
            sizeLimit: 256Mi
        {{- with .Values.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
{{- end -}}
{{- end -}}

{{/* The same for every service of ours. */}}
{{- define "modelyard-common.migrationCommand" -}}
- python
- -P
- -m
- modelyard_{{ .Chart.Name }}.migrate
{{- end -}}

{{- define "modelyard-common.migrationEnv" -}}
{{- $prefix := printf "MODELYARD_%s_" (upper .Chart.Name) -}}
- name: {{ $prefix }}DATA_DIR
  value: /tmp
- name: {{ $prefix }}LOG_LEVEL
  value: {{ .Values.logLevel }}
{{ include "modelyard-common.databaseEnv" (dict "database" .Values.migrations.database "name" (printf "%sDATABASE_URL" $prefix)) }}
{{- end -}}
