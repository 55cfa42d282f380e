{{/* The container that runs `outgate serve`, without name: .role is gateway, control or sidecar. */}}
{{- define "outgate.container" -}}
{{- $ := .root -}}
{{- $isControl := eq .role "control" -}}
{{- $operator := and $.Values.operator.enabled (or $isControl (ne $.Values.topology "gateway-shared")) -}}
image: {{ include "outgate.image" $ }}
imagePullPolicy: {{ $.Values.image.pullPolicy }}
args: [serve]
env:
  - { name: OUTGATE_CONFIG, value: /etc/outgate/config/outgate.yaml }
  - { name: OUTGATE_STATE_DIR, value: /var/lib/outgate/state }
  - { name: OUTGATE_LOG_FORMAT, value: json }
{{- if ne .role "sidecar" }}
ports:
{{- if $isControl }}
  - { name: control, containerPort: {{ $.Values.control.port }}, protocol: TCP }
{{- else }}
  - { name: proxy, containerPort: {{ $.Values.gateway.port }}, protocol: TCP }
{{- end }}
{{- if $operator }}
  - { name: operator, containerPort: {{ $.Values.operator.port }}, protocol: TCP }
{{- end }}
{{- if and $.Values.inbound.enabled (not $isControl) }}
  - { name: inbound, containerPort: {{ $.Values.inbound.port }}, protocol: TCP }
{{- end }}
{{- if and $.Values.metrics.enabled (not $isControl) }}
  - { name: metrics, containerPort: {{ $.Values.metrics.port }}, protocol: TCP }
{{- end }}
{{- end }}
startupProbe:
  exec: { command: [/usr/local/bin/outgate, health] }
  periodSeconds: 1
  timeoutSeconds: 3
  failureThreshold: 60
readinessProbe:
  exec: { command: [/usr/local/bin/outgate, health, --ready] }
  periodSeconds: 5
  timeoutSeconds: 3
livenessProbe:
  exec: { command: [/usr/local/bin/outgate, health] }
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 3
{{- if ne .role "sidecar" }}
lifecycle:
  preStop: { sleep: { seconds: {{ $.Values.gateway.leave }} } }
{{- end }}
resources: {{ (ternary $.Values.control.resources $.Values.gateway.resources $isControl) | toJson }}
securityContext:
  {{- include "outgate.restricted" $ | nindent 2 }}
  runAsUser: 65532
  runAsGroup: 65532
volumeMounts:
  - { name: config, mountPath: /etc/outgate/config, readOnly: true }
  - { name: state, mountPath: /var/lib/outgate }
{{- if $.Values.identity.enabled }}
  - { name: jwks, mountPath: /etc/outgate/jwks, readOnly: true }
{{- end }}
{{- if not $isControl }}
{{- if $.Values.ca.enabled }}
  - { name: ca, mountPath: /etc/outgate/ca, readOnly: true }
{{- end }}
{{- if $.Values.inbound.enabled }}
  - { name: inbound-tls, mountPath: /etc/outgate/inbound-tls, readOnly: true }
{{- end }}
{{- if $.Values.credentials }}
  - { name: credentials, mountPath: /etc/outgate/credentials, readOnly: true }
{{- end }}
{{- end }}
{{- if eq $.Values.topology "gateway-shared" }}
  - { name: tls, mountPath: /etc/outgate/tls, readOnly: true }
{{- end }}
{{- if $operator }}
  - { name: operator-tls, mountPath: /etc/outgate/operator-tls, readOnly: true }
{{- if $.Values.operator.tokens }}
  - { name: operator-tokens, mountPath: /etc/outgate/operator-tokens, readOnly: true }
{{- end }}
{{- end }}
{{- end }}

{{/* Its volumes, but for a persistent state. */}}
{{- define "outgate.volumes" -}}
{{- $ := .root -}}
{{- $isControl := eq .role "control" -}}
{{- $operator := and $.Values.operator.enabled (or $isControl (ne $.Values.topology "gateway-shared")) -}}
- name: config
  configMap: { name: {{ include "outgate.name" $ }}{{ if $isControl }}-control{{ end }} }
{{- if not .persistent }}
- name: state
  emptyDir: {}
{{- end }}
{{- if $.Values.identity.enabled }}
- name: jwks
  configMap: { name: {{ $.Values.identity.jwksConfigMap }} }
{{- end }}
{{- if not $isControl }}
{{- if $.Values.ca.enabled }}
- name: ca
  secret:
    secretName: {{ $.Values.ca.secret }}
    defaultMode: 0440
    items: [{ key: tls.crt, path: tls.crt }, { key: tls.key, path: tls.key }]
{{- end }}
{{- if $.Values.inbound.enabled }}
- name: inbound-tls
  secret: { secretName: {{ $.Values.inbound.tlsSecret }}, defaultMode: 0440 }
{{- end }}
{{- if $.Values.credentials }}
- name: credentials
  projected:
    defaultMode: 0440
    sources:
{{- range $name, $from := $.Values.credentials }}
      - secret: { name: {{ $from.secret.name }}, items: [{ key: {{ $from.secret.key }}, path: {{ $name }} }] }
{{- end }}
{{- end }}
{{- end }}
{{- if eq $.Values.topology "gateway-shared" }}
- name: tls
  secret:
    secretName: {{ ternary $.Values.control.tlsSecret $.Values.control.gatewayTlsSecret $isControl }}
    defaultMode: 0440
{{- end }}
{{- if $operator }}
- name: operator-tls
  secret: { secretName: {{ $.Values.operator.tlsSecret }}, defaultMode: 0440 }
{{- if $.Values.operator.tokens }}
- name: operator-tokens
  projected:
    defaultMode: 0440
    sources:
{{- range $.Values.operator.tokens }}
      - secret: { name: {{ .secret.name }}, items: [{ key: {{ .secret.key }}, path: {{ .name }} }] }
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* A pod of its own around that container. */}}
{{- define "outgate.pod" -}}
{{- $ := .root -}}
metadata:
  labels: {{- include "outgate.labels" (dict "root" $ "component" .role) | nindent 4 }}
{{- with $.Values.gateway.podAnnotations }}
  annotations: {{ . | toJson }}
{{- end }}
spec:
  serviceAccountName: {{ include "outgate.name" $ }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ add $.Values.gateway.leave $.Values.gateway.drain 15 }}
  securityContext: { fsGroup: 65532, fsGroupChangePolicy: OnRootMismatch }
  dnsConfig: { options: [{ name: ndots, value: "1" }] }
{{- with $.Values.imagePullSecrets }}
  imagePullSecrets: {{ . | toJson }}
{{- end }}
{{- with $.Values.gateway.nodeSelector }}
  nodeSelector: {{ . | toJson }}
{{- end }}
{{- with $.Values.gateway.tolerations }}
  tolerations: {{ . | toJson }}
{{- end }}
{{- if and (eq .role "gateway") (eq $.Values.topology "gateway-shared") }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels: {{- include "outgate.selector" (dict "root" $ "component" .role) | nindent 10 }}
{{- end }}
  containers:
    - name: outgate
      {{- include "outgate.container" . | nindent 6 }}
  volumes:
    {{- include "outgate.volumes" . | nindent 4 }}
{{- end }}

{{/* A claim for the state: the keys that sign tokens, what was revoked, the audit trail. */}}
{{- define "outgate.claim" -}}
volumeClaimTemplates:
  - apiVersion: v1
    kind: PersistentVolumeClaim
    metadata: { name: state }
    spec:
      accessModes: [{{ .accessMode }}]
{{- with .storageClass }}
      storageClassName: {{ . }}
{{- end }}
      resources: { requests: { storage: {{ .size }} } }
{{- end }}
