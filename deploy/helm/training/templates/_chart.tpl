{{- define "training.facts" -}}
database: true
tokens: true
scraped: true
apiAccess: true
outside: [database, kubernetesApi]
{{- end -}}

{{/* The environment, and what its Jobs are made of. */}}
{{- define "training.env" -}}
{{- include "modelyard-common.env" . }}
{{- $jobs := .Values.jobs }}
- name: MODELYARD_TRAINING_TRAINING_URL
  value: http://{{ include "modelyard-common.fullname" . }}:{{ get (include "modelyard-common.ports" . | fromYaml) .Chart.Name }}
- name: MODELYARD_TRAINING_LAUNCHER
  value: kubernetes
- name: MODELYARD_TRAINING_JOB_NAMESPACE
  value: {{ .Release.Namespace }}
- name: MODELYARD_TRAINING_JOB_IMAGE
  value: {{ include "modelyard-common.image" (dict "root" . "image" $jobs.image) }}
- name: MODELYARD_TRAINING_JOB_PULL_POLICY
  value: {{ $jobs.image.pullPolicy }}
- name: MODELYARD_TRAINING_JOB_PULL_SECRETS
  value: {{ .Values.global.imagePullSecrets | toJson | quote }}
- name: MODELYARD_TRAINING_JOB_SERVICE_ACCOUNT
  value: {{ include "training.jobAccount" . }}
- name: MODELYARD_TRAINING_JOB_TOKEN_SECRET
  value: {{ .Values.auth.existingSecret }}
- name: MODELYARD_TRAINING_JOB_TOKEN_KEY
  value: {{ $jobs.tokenKey }}
- name: MODELYARD_TRAINING_JOB_SECRETS
  value: {{ $jobs.secrets | toJson | quote }}
# The platform's label lets the network policies know a job for what it is.
- name: MODELYARD_TRAINING_JOB_LABELS
  value: {{ merge (include "modelyard-common.platformLabel" . | fromYaml) $jobs.labels .Values.commonLabels | toJson | quote }}
- name: MODELYARD_TRAINING_JOB_NODE_SELECTOR
  value: {{ $jobs.nodeSelector | toJson | quote }}
- name: MODELYARD_TRAINING_JOB_TOLERATIONS
  value: {{ $jobs.tolerations | toJson | quote }}
- name: MODELYARD_TRAINING_JOB_DISK
  value: {{ $jobs.disk }}
- name: MODELYARD_TRAINING_JOB_TTL_S
  value: {{ $jobs.ttlSeconds | int64 | quote }}
- name: MODELYARD_TRAINING_JOB_START_PATIENCE_S
  value: {{ $jobs.startPatienceSeconds | int64 | quote }}
{{- end -}}

{{- define "training.envFrom" -}}[]{{- end -}}

{{- define "training.checks" -}}
{{- include "modelyard-common.checks" . -}}
{{- end -}}

{{- define "training.migrationCommand" -}}
{{- include "modelyard-common.migrationCommand" . -}}
{{- end -}}

{{- define "training.migrationEnv" -}}
{{- include "modelyard-common.migrationEnv" . -}}
{{- end -}}

{{- define "training.jobAccount" -}}
{{- $account := .Values.jobs.serviceAccount -}}
{{- if $account.create -}}
{{- $account.name | default (printf "%s-trainer" (include "modelyard-common.platform" .)) -}}
{{- else -}}
{{- required "jobs.serviceAccount.create is false: name an existing one in jobs.serviceAccount.name" $account.name -}}
{{- end -}}
{{- end -}}
