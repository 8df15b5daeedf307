{{- define "external-server.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "external-server.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "external-server.labels" -}}
{{ include "external-server.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "external-server.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "external-server.tokens" -}}
{{ .Values.admin.tokensSecret | default (printf "%s-tokens" (include "external-server.fullname" .)) }}
{{- end }}

{{/* The configuration: what the chart adds, and over it what the values say. */}}
{{- define "external-server.config" -}}
{{- $name := include "external-server.fullname" . }}
{{- $added := dict "state_directory" "/var/lib/external-server/state" }}
{{- if .Values.admin.enabled }}
{{- $_ := set $added "admin" (dict "listen" "0.0.0.0:8090" "tokens" (list
  (dict "name" "operator" "role" "operate" "token_file" "/etc/external-server/tokens/operate")
  (dict "name" "monitoring" "role" "read" "token_file" "/etc/external-server/tokens/read"))) }}
{{- end }}
{{- if .Values.cluster.enabled }}
{{- $c := dict "etcd" .Values.cluster.etcd "peer_listen" "0.0.0.0:8070"
  "peer_address" (printf "@POD@.%s-peers.%s.svc:8070" $name .Release.Namespace) }}
{{- if .Values.cluster.name }}{{ $_ := set $c "name" .Values.cluster.name }}{{ end }}
{{- if .Values.cluster.peerTLSSecret }}
{{- $_ := set $c "peer_tls" (dict "ca_file" "/etc/external-server/peers/ca.crt" "cert_file" "/etc/external-server/peers/tls.crt" "key_file" "/etc/external-server/peers/tls.key") }}
{{- end }}
{{- $_ := set $added "cluster" $c }}
{{- end }}
{{- mergeOverwrite $added (deepCopy .Values.config) | toPrettyJson }}
{{- end }}
