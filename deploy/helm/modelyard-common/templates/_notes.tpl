{{/* What to try first. Takes root, and request: a path with a curl's options. */}}
{{- define "modelyard-common.notes" -}}
{{- $root := .root -}}
{{- $port := get (include "modelyard-common.ports" $root | fromYaml) $root.Chart.Name | int -}}
{{ include "modelyard-common.fullname" $root }} {{ $root.Chart.AppVersion }} is installed in {{ $root.Release.Namespace }}.

Try it:

  kubectl --namespace {{ $root.Release.Namespace }} port-forward service/{{ include "modelyard-common.fullname" $root }} {{ $port }} &
  {{- if hasKey $root.Values "auth" }}
  TOKEN=$(kubectl --namespace {{ $root.Release.Namespace }} get secret {{ $root.Values.auth.existingSecret }} --output jsonpath='{.data.client}' | base64 --decode)
  curl --fail --retry 5 --retry-connrefused --header "Authorization: Bearer $TOKEN" {{ .options }}http://127.0.0.1:{{ $port }}{{ .path }}
  {{- else }}
  curl --fail --retry 5 --retry-connrefused {{ .options }}http://127.0.0.1:{{ $port }}{{ .path }}
  {{- end }}
{{- if not $root.Values.global.networkPolicy.enabled }}

NetworkPolicies are off: everybody in the cluster reaches the pods.
{{- else if not $root.Values.networkPolicy.clients }}

Nobody but the platform itself may call the pods; open the door to others with networkPolicy.clients.
{{- end }}
{{- if not $root.Values.persistence.enabled }}

/data is an emptyDir: what is in it dies with the pod (persistence.enabled keeps it).
{{- end }}
{{ end -}}
