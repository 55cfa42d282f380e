{{- define "outgate.name" -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "outgate.agentName" -}}
{{ .Values.agent.name | default (printf "%s-agent" (include "outgate.name" .)) }}
{{- end }}

{{- define "outgate.selector" -}}
app.kubernetes.io/name: outgate
app.kubernetes.io/instance: {{ include "outgate.name" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "outgate.labels" -}}
{{ include "outgate.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{- end }}

{{- define "outgate.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ $tag }}{{ end }}
{{- end }}

{{/* The namespaces whose pods may use the gateway, as a JSON list. */}}
{{- define "outgate.agentNamespaces" -}}
{{- if eq .Values.topology "gateway-shared" -}}
{{ .Values.agents.namespaces | toJson }}
{{- else -}}
{{ list .Release.Namespace | toJson }}
{{- end -}}
{{- end }}

{{/* Where agents reach the proxy, without DNS. */}}
{{- define "outgate.address" -}}
{{- if eq .Values.topology "sidecar" -}}
127.0.0.1:{{ .Values.gateway.port }}
{{- else if .Values.gateway.clusterIP -}}
{{- $ip := .Values.gateway.clusterIP -}}
{{ contains ":" $ip | ternary (printf "[%s]" $ip) $ip }}:{{ .Values.gateway.port }}
{{- else -}}
$({{ include "outgate.name" . | upper | replace "-" "_" }}_SERVICE_HOST):{{ .Values.gateway.port }}
{{- end -}}
{{- end }}

{{/* Whole, so that no search domain is tried. */}}
{{- define "outgate.controlHost" -}}
{{ include "outgate.name" . }}-control.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}
{{- end }}

{{- define "outgate.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: { drop: [ALL] }
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{/* The configuration keys that make an operator's door. */}}
{{- define "outgate.operatorListener" -}}
address: {{ printf "%s:%v" .Values.gateway.bind .Values.operator.port | quote }}
certificate: /etc/outgate/operator-tls/tls.crt
key: /etc/outgate/operator-tls/tls.key
{{- end }}

{{- define "outgate.operatorConfig" -}}
{{- with .Values.operator.tokens }}
tokens:
{{- range . }}
  - name: {{ .name }}
    file: /etc/outgate/operator-tokens/{{ .name }}
    scopes: {{ .scopes | toJson }}
{{- with .tenant }}
    tenant: {{ . }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.operator.oidc }}
oidc: {{ . | toJson }}
{{- end }}
{{- end }}

{{- define "outgate.issuer" -}}
issuer: {{ .Values.identity.issuer | quote }}
audience: {{ .Values.identity.audience | quote }}
jwks_file: /etc/outgate/jwks/jwks.json
session_claim: {{ .Values.identity.sessionClaim | quote }}
max_age: {{ .Values.identity.maxAge }}
{{- with .Values.identity.policy }}
policy: {{ . }}
{{- end }}
{{- with .Values.identity.policies }}
policies:
  claim: [kubernetes.io.namespace, kubernetes.io.serviceaccount.name]
  map: {{ . | toJson }}
{{- end }}
{{- end }}

{{/* What is let out, with the issuer of the agents' tokens. */}}
{{- define "outgate.policy" -}}
{{- $policy := deepCopy .Values.policy -}}
{{- if .Values.identity.enabled -}}
{{- $sessions := get $policy "sessions" | default dict -}}
{{- $issuers := prepend (get $sessions "issuers" | default list) (include "outgate.issuer" . | fromYaml) -}}
{{- $_ := set $policy "sessions" (set $sessions "issuers" $issuers) -}}
{{- end -}}
{{ $policy | toYaml }}
{{- end }}

{{- define "outgate.own" -}}
version: 1
state_dir: /var/lib/outgate/state
timeouts: { drain: {{ .Values.gateway.drain }}s }
{{- if .Values.credentials }}
credentials:
{{- range $name, $from := .Values.credentials }}
  {{ $name }}: { from: { file: /etc/outgate/credentials/{{ $name }} } }
{{- end }}
{{- end }}
{{- end }}

{{/* What every gateway has of its own, whatever it follows. */}}
{{- define "outgate.local" -}}
{{- mustMergeOverwrite (include "outgate.own" . | fromYaml) (deepCopy .Values.settings) | toYaml -}}
{{- end }}

{{- define "outgate.follow" -}}
url: https://{{ include "outgate.controlHost" . }}:{{ .Values.control.port }}
ca: /etc/outgate/tls/ca.crt
certificate: /etc/outgate/tls/tls.crt
key: /etc/outgate/tls/tls.key
max_staleness: {{ .Values.control.maxStaleness }}
{{- end }}

{{- define "outgate.controlListener" -}}
address: {{ printf "%s:%v" .Values.gateway.bind .Values.control.port | quote }}
certificate: /etc/outgate/tls/tls.crt
key: /etc/outgate/tls/tls.key
client_ca: /etc/outgate/tls/ca.crt
gateways: [{{ include "outgate.name" . }}-gateway]
{{- end }}

{{/* Policy and operators, into a configuration that has `listen`. */}}
{{- define "outgate.decides" -}}
{{- $config := mustMergeOverwrite .config (include "outgate.policy" .root | fromYaml) -}}
{{- if .root.Values.operator.enabled -}}
{{- $_ := set $config.listen "operator" (include "outgate.operatorListener" .root | fromYaml) -}}
{{- with include "outgate.operatorConfig" .root | fromYaml }}{{ $_ := set $config "operator" . }}{{ end -}}
{{- end -}}
{{ $config | toYaml }}
{{- end }}

{{/* The listener in front of the agent. */}}
{{- define "outgate.inbound" -}}
{{- $inbound := .Values.inbound -}}
listen: {{ printf "%s:%v" .Values.gateway.bind $inbound.port | quote }}
tls: { certificate: /etc/outgate/inbound-tls/tls.crt, key: /etc/outgate/inbound-tls/tls.key }
to: {{ required "inbound.to: where the agent is, as http://SERVICE.NAMESPACE.svc.cluster.local:9000" $inbound.to | quote }}
issuers: {{ $inbound.issuers | toJson }}
{{- with $inbound.hosts }}
hosts: {{ . | toJson }}
{{- end }}
{{- with $inbound.exempt }}
exempt: {{ . | toJson }}
{{- end }}
{{- if $inbound.forwardToken }}
forward_token: true
{{- end }}
{{- end }}

{{/* Where `outgate capture --redirect` sends connections. A node without IPv6 has no ::1 to listen on. */}}
{{- define "outgate.transparent" -}}
{{- $sockets := list "127.0.0.1:15001" -}}
{{- if eq .Values.gateway.bind "[::]" }}{{ $sockets = append $sockets "[::1]:15001" }}{{ end -}}
{{ $sockets | toJson }}
{{- end }}

{{/* The file of a gateway. */}}
{{- define "outgate.gatewayConfig" -}}
{{- $config := include "outgate.local" . | fromYaml -}}
{{- $_ := set $config "version" 1 -}}
{{- $bind := ternary "127.0.0.1" .Values.gateway.bind (eq .Values.topology "sidecar") -}}
{{- $_ := set $config "listen" (dict "proxy" (printf "%s:%v" $bind .Values.gateway.port)) -}}
{{- if .Values.capture.transparent -}}
{{- $_ := set $config.listen "transparent" (include "outgate.transparent" . | fromJsonArray) -}}
{{- end -}}
{{- if and .Values.metrics.enabled (ne .Values.topology "sidecar") -}}
{{- $_ := set $config.listen "metrics" (printf "%s:%v" $bind .Values.metrics.port) -}}
{{- end -}}
{{- if .Values.inbound.enabled -}}
{{- $_ := set $config "inbound" (list (include "outgate.inbound" . | fromYaml)) -}}
{{- end -}}
{{- if .Values.ca.enabled -}}
{{- $_ := set $config "ca" (dict "certificate" "/etc/outgate/ca/tls.crt" "key" "/etc/outgate/ca/tls.key") -}}
{{- end -}}
{{- if eq .Values.topology "gateway-shared" -}}
{{- set $config "control" (include "outgate.follow" . | fromYaml) | toYaml -}}
{{- else -}}
{{- include "outgate.decides" (dict "root" . "config" $config) -}}
{{- end -}}
{{- end }}

{{/* The file of the control plane. It carries no traffic: its proxy is on loopback, because it has to have one. */}}
{{- define "outgate.controlConfig" -}}
{{- $config := include "outgate.local" . | fromYaml -}}
{{- $_ := set $config "version" 1 -}}
{{- $control := include "outgate.controlListener" . | fromYaml -}}
{{- $_ := set $config "listen" (dict "proxy" (printf "127.0.0.1:%v" .Values.gateway.port) "control" $control) -}}
{{- include "outgate.decides" (dict "root" . "config" $config) -}}
{{- end }}
