{{/*
The service graph: who listens where, and who talks to whom. Network policies and peers' addresses come from here and
from nowhere else.
*/}}

{{- define "modelyard-common.ports" -}}
inference: 8080
registry: 8081
training: 8082
drift: 8083
operator: 8084
mlflow: 8085
{{- end -}}

{{/* Who speaks gRPC as well, and where: to clients, since the platform's own calls are HTTP. */}}
{{- define "modelyard-common.grpcPorts" -}}
inference: 8090
{{- end -}}

{{- define "modelyard-common.edges" -}}
inference: [registry, drift]
registry: [mlflow, drift]
training: [registry, drift]
trainer: [training, registry, drift, mlflow]
drift: [registry, training]
operator: [registry, training, drift, inference]
round-trip: [inference]
mlflow: []
{{- end -}}

{{/* Who makes spans. */}}
{{- define "modelyard-common.traced" -}}
[inference, registry, training, trainer, drift, operator]
{{- end -}}

{{/* The address of a peer. Takes root and peer. */}}
{{- define "modelyard-common.peerUrl" -}}
{{- $port := get (include "modelyard-common.ports" .root | fromYaml) .peer | int -}}
{{- get .root.Values.peers .peer | default (printf "http://%s-%s:%d" (include "modelyard-common.platform" .root) .peer $port) -}}
{{- end -}}
