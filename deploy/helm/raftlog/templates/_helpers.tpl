{{/* Name of the servers and of the service for clients: the release's, with raftlog in it. */}}
{{- define "raftlog.name" -}}
{{- if contains "raftlog" .Release.Name }}{{ .Release.Name | trunc 45 | trimSuffix "-" }}
{{- else }}{{ printf "%s-raftlog" (.Release.Name | trunc 37 | trimSuffix "-") }}
{{- end }}
{{- end }}

{{/* The headless service, which gives each server a name of its own: NAME-0.NAME-nodes */}}
{{- define "raftlog.nodes" -}}
{{ include "raftlog.name" . }}-nodes
{{- end }}

{{- define "raftlog.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* What never changes of one release's servers, as selectors must not. */}}
{{- define "raftlog.selector" -}}
app.kubernetes.io/name: raftlog
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end }}

{{- define "raftlog.labels" -}}
app.kubernetes.io/name: raftlog
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/*
The settings that all servers share; what a pod's own name and address say is in its environment. Servers look for the
first ones by their names: the name that stands for all of them may at first stand for some who know nobody else.
*/}}
{{- define "raftlog.settings" -}}
data-dir: /var/lib/raftlog
bind-addr: 0.0.0.0:8401
rpc-port: 8400
health-host: 0.0.0.0
health-port: 8402
admin-host: 0.0.0.0
admin-port: 8403
log-format: json
start-join-addrs:
{{- range until (min 3 (int .Values.replicas) | int) }}
  - {{ include "raftlog.name" $ }}-{{ . }}.{{ include "raftlog.nodes" $ }}:8401
{{- end }}
gossip-profile: {{ .Values.gossip.profile }}
{{- if .Values.gossip.keySecretName }}
gossip-key-file: /etc/raftlog/gossip/gossip.key
{{- end }}
server-tls-cert-file: /etc/raftlog/tls/tls.crt
server-tls-key-file: /etc/raftlog/tls/tls.key
server-tls-ca-file: /etc/raftlog/tls/ca.crt
peer-tls-cert-file: /etc/raftlog/tls/tls.crt
peer-tls-key-file: /etc/raftlog/tls/tls.key
peer-tls-ca-file: /etc/raftlog/tls/ca.crt
acl-policy-file: /etc/raftlog/config/policy.csv
{{- with .Values.config }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Of every container: it needs no right and writes nowhere but into its volumes. */}}
{{- define "raftlog.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "raftlog.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}
