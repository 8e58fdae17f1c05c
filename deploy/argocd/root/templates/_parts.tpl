{{/* The address of an environment's cluster. Takes root and environment (its values) and name. */}}
{{- define "root.server" -}}
{{- get .root.Values.clusters .environment.cluster | required (printf "environments.%s.cluster: %q is not one of `clusters`" .name .environment.cluster) -}}
{{- end -}}

{{/* Tries again for about twenty minutes: a database or a peer that is not up yet is no reason to give up. */}}
{{- define "root.retry" -}}
limit: 10
# A correction that was pushed in the meantime is tried, not what failed.
refresh: true
backoff: {duration: 10s, factor: 2, maxDuration: 5m}
{{- end -}}

{{/* Environments as elements of a list generator. */}}
{{- define "root.elements" -}}
{{- range $name, $environment := .Values.environments }}
- environment: {{ $name }}
  server: {{ include "root.server" (dict "root" $ "environment" $environment "name" $name) }}
  namespace: {{ $environment.namespace }}
  automated: {{ $environment.automated }}
{{- end }}
{{- end -}}
