{{- define "taut.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* 52 characters: with a hash of ten, a StatefulSet's name is a label of its pods, and a label has 63 at most. "-dashboard", the longest suffix, fits too. */}}
{{- define "taut.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains (include "taut.name" .) .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "taut.name" .) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "taut.selector" -}}
app.kubernetes.io/name: {{ include "taut.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "taut.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "taut.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "taut.metadata" -}}
name: {{ include "taut.fullname" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "taut.labels" . | nindent 2 }}
{{- end }}

{{- define "taut.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- define "taut.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "taut.fullname" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- define "taut.isCluster" -}}
{{- if or .Values.cluster.url .Values.cluster.existingSecret }}yes{{ end }}
{{- end }}

{{/* taut.toml: a line for each setting, and a table for each app. */}}
{{- define "taut.toml" -}}
{{- range $key, $value := .Values.config }}
{{ $key }} = {{ include "taut.tomlValue" $value }}
{{- end }}
{{- range .Values.apps }}

[[apps]]
{{- range $key, $value := . }}
{{ $key }} = {{ include "taut.tomlValue" $value }}
{{- end }}
{{- end }}
{{- end }}

{{/* A value on one line. Not toToml: Helm takes all numbers for floats, and that writes a million as 1e+06. */}}
{{- define "taut.tomlValue" -}}
{{- if kindIs "map" . -}}
{ {{- range $index, $key := keys . | sortAlpha }}{{ if $index }},{{ end }} {{ $key }} = {{ include "taut.tomlValue" (get $ $key) }}{{ end }} }
{{- else if kindIs "slice" . -}}
[{{ range $index, $value := . }}{{ if $index }}, {{ end }}{{ include "taut.tomlValue" $value }}{{ end }}]
{{- else if kindIs "string" . -}}
{{ toJson . }}
{{- else if and (kindIs "float64" .) (eq . (floor .)) -}}
{{ int64 . }}
{{- else -}}
{{ . }}
{{- end }}
{{- end }}

{{/* Mistakes that a cluster would not find. */}}
{{- define "taut.check" -}}
{{- $v := .Values }}
{{- if and (not (include "taut.isCluster" .)) (or $v.autoscaling.enabled (gt (int $v.replicaCount) 1)) }}
{{- fail "Several pods are one server only with cluster.url or cluster.existingSecret: without them an event reaches the clients of one pod. Set one, or replicaCount to 1 and autoscaling.enabled to false." }}
{{- end }}
{{- if and $v.existingSecret (or $v.apps $v.config) }}
{{- fail "existingSecret holds all of taut.toml: config and apps would not be used. Set the one or the others." }}
{{- end }}
{{- if and $v.cluster.url $v.cluster.existingSecret }}
{{- fail "Set cluster.url or cluster.existingSecret, not both." }}
{{- end }}
{{- if and $v.ingress.enabled (not $v.ingress.hosts) }}
{{- fail "ingress.hosts is empty: name the host that clients connect to." }}
{{- end }}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) }}
{{- fail "httpRoute.parentRefs is empty: name the gateway." }}
{{- end }}
{{- if and $v.autoscaling.enabled (not $v.autoscaling.targetCPU) (not $v.autoscaling.targetConnections) }}
{{- fail "The autoscaler has nothing to look at: set autoscaling.targetCPU or autoscaling.targetConnections." }}
{{- end }}
{{- $hasToken := or (hasKey $v.config "metrics-token") (hasKey $v.config "metrics_token") }}
{{- if and $hasToken $v.metrics.serviceMonitor.enabled (not $v.metrics.serviceMonitor.authorization) }}
{{- fail "config.metrics-token: Prometheus needs it, too. Put it into a Secret and name that in metrics.serviceMonitor.authorization." }}
{{- end }}
{{- range $name := list "listen" "metrics-listen" "drain-notice" "drain-timeout" "trusted-proxies" "tls-certificate" "tls-key" "data-directory" "cluster" "apps" }}
{{- if or (hasKey $v.config $name) (hasKey $v.config (replace "-" "_" $name)) }}
{{- fail (printf "config.%s: set the chart's own value instead, see its README." $name) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "taut.probe" -}}
path: {{ .path }}
port: clients
{{- if .tls }}
scheme: HTTPS
{{- end }}
{{- end }}
