{{/* Ingress from all pods of some namespaces to one port. */}}
{{- define "outgate.fromNamespaces" -}}
- from:
    - namespaceSelector:
        matchExpressions:
          - { key: kubernetes.io/metadata.name, operator: In, values: {{ .namespaces | toJson }} }
  ports:
    - { protocol: TCP, port: {{ .port }} }
{{- end }}

{{/* Who may call the agent: nobody, unless somebody is named. */}}
{{- define "outgate.callers" -}}
{{- $inbound := .Values.inbound -}}
{{- if and $inbound.enabled $inbound.namespaces }}
{{ include "outgate.fromNamespaces" (dict "namespaces" $inbound.namespaces "port" $inbound.port) }}
{{- end }}
{{- if and $inbound.enabled $inbound.from }}
- from: {{ $inbound.from | toJson }}
  ports:
    - { protocol: TCP, port: {{ $inbound.port }} }
{{- end }}
{{- end }}

{{- define "outgate.dns" -}}
{{- with .Values.networkPolicy.dns -}}
- to:
    - namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: {{ .namespace }} } }
      podSelector: { matchLabels: {{ .podLabels | toJson }} }
{{- range .addresses }}
    - ipBlock: { cidr: {{ . | quote }} }
{{- end }}
  ports:
{{- range .ports }}
    - { protocol: UDP, port: {{ . }} }
    - { protocol: TCP, port: {{ . }} }
{{- end }}
{{- end }}
{{- end }}

{{/* What a gateway reaches: DNS, the world less what is never dialled, and named targets. */}}
{{- define "outgate.wayOut" -}}
{{- $egress := .Values.networkPolicy.egress -}}
{{- if not .Values.networkPolicy.cilium.enabled }}
{{- include "outgate.dns" . }}
- to:
    - ipBlock:
        cidr: 0.0.0.0/0
        except: {{ $egress.except.ipv4 | toJson }}
    - ipBlock:
        cidr: ::/0
        except: {{ $egress.except.ipv6 | toJson }}
  ports:
{{- range $egress.ports }}
    - { protocol: TCP, port: {{ . }} }
{{- end }}
{{- end }}
{{- with $egress.targets }}
{{ . | toYaml }}
{{- end }}
{{- end }}
