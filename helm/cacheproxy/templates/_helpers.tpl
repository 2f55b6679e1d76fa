{{- define "cacheproxy.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "cacheproxy.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- default $full .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "cacheproxy.selectorLabels" -}}
app.kubernetes.io/name: {{ include "cacheproxy.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "cacheproxy.labels" -}}
{{ include "cacheproxy.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "cacheproxy.serviceAccountName" -}}
{{- $own := ternary (include "cacheproxy.fullname" .) "default" .Values.serviceAccount.create }}
{{- default $own .Values.serviceAccount.name }}
{{- end }}

{{- define "cacheproxy.inBucket" -}}
{{- if hasPrefix "s3://" .Values.config.storage.url }}yes{{ end }}
{{- end }}

{{/* "yes" if any number of servers can share the storage; else one may be asked for, not more. */}}
{{- define "cacheproxy.shared" -}}
{{- $several := or .Values.autoscaling.enabled (gt (int .Values.replicaCount) 1) }}
{{- if and (include "cacheproxy.inBucket" .) .Values.conditionalWrites }}yes
{{- $auth := .Values.config.auth }}
{{- $given := $auth.signing_key_file }}
{{- range .Values.extraEnv }}{{ if eq .name "CACHEPROXY_AUTH__SIGNING_KEY_FILE" }}{{ $given = "yes" }}{{ end }}{{ end }}
{{- if and $several (or $auth.htpasswd_file $auth.rules) (not $given) }}
{{- fail "Several servers take each other's tokens only with config.auth.signing_key_file: mount one with extraVolumes." }}
{{- end }}
{{- else if $several }}
{{- fail "Only one server can use a folder, or an S3 without conditional writes: set replicaCount to 1 and autoscaling.enabled to false, or config.storage.url to s3://bucket/prefix." }}
{{- end }}
{{- end }}

{{- define "cacheproxy.port" -}}
{{- regexFind "[0-9]+$" .Values.config.server.listen }}
{{- end }}

{{/* The port of the metrics, if they have one of their own. */}}
{{- define "cacheproxy.metricsPort" -}}
{{- regexFind "[0-9]+$" .Values.config.metrics.listen }}
{{- end }}

{{/* The name of the port where the metrics are, and how it is spoken to. */}}
{{- define "cacheproxy.metricsPortName" -}}
{{- ternary "metrics" "http" (ne "" (include "cacheproxy.metricsPort" .)) }}
{{- end }}
{{- define "cacheproxy.metricsScheme" -}}
{{- $apart := include "cacheproxy.metricsPort" . }}
{{- if and .Values.config.server.tls_cert_file (not $apart) }}https{{ else }}http{{ end }}
{{- end }}

{{/* The service by which the metrics are found; Prometheus takes its name for the job. */}}
{{- define "cacheproxy.metricsService" -}}
{{- $full := include "cacheproxy.fullname" . }}
{{- $apart := printf "%s-metrics" (trunc 55 $full | trimSuffix "-") }}
{{- ternary $apart $full (ne "" (include "cacheproxy.metricsPort" .)) }}
{{- end }}

{{/* A probe: one by HTTP that names no port asks where the metrics are. */}}
{{- define "cacheproxy.probe" -}}
{{- $probe := deepCopy .probe }}
{{- if $probe.httpGet }}
{{- if not $probe.httpGet.port }}
{{- $scheme := include "cacheproxy.metricsScheme" .root | upper }}
{{- $port := include "cacheproxy.metricsPortName" .root }}
{{- $_ := set $probe "httpGet" (merge (dict "port" $port "scheme" $scheme) $probe.httpGet) }}
{{- end }}
{{- end }}
{{- toYaml $probe }}
{{- end }}
