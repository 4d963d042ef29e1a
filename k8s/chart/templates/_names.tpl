{{- /* What more than one template says: names, labels, addresses, and the frame of our own pods. */ -}}

{{- define "noetl.labels" -}}
app.kubernetes.io/name: noetl
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "noetl.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "noetl.pgbouncer.namespace" -}}
{{ .Values.pgbouncer.namespace | default .Release.Namespace }}
{{- end }}

{{- define "noetl.postgres.host" -}}
{{- if .Values.postgres.enabled -}}
{{ .Release.Name }}-postgres.{{ .Release.Namespace }}.svc.cluster.local
{{- else -}}
{{ required "postgres.host: name a Postgres, or set postgres.enabled" .Values.postgres.host }}
{{- end -}}
{{- end }}

{{- /* The settings that servers and workers share, as environment. */ -}}
{{- define "noetl.environment" -}}
POSTGRES_USER: {{ .Values.postgres.user }}
POSTGRES_DB: {{ .Values.postgres.database }}
{{- if .Values.pgbouncer.enabled }}
POSTGRES_HOST: {{ .Values.pgbouncer.service_name }}.{{ include "noetl.pgbouncer.namespace" . }}.svc.cluster.local
POSTGRES_PORT: {{ .Values.pgbouncer.port }}
DB_POOLER: transaction
{{- else }}
POSTGRES_HOST: {{ include "noetl.postgres.host" . }}
POSTGRES_PORT: {{ .Values.postgres.port }}
{{- end }}
{{- if .Values.nats.enabled }}
NATS_URL: nats://{{ .Release.Name }}-nats.{{ .Release.Namespace }}.svc.cluster.local:4222
{{- else }}
NATS_URL: {{ required "nats.url: name a NATS, or set nats.enabled" .Values.nats.url }}
{{- end }}
{{- if .Values.nats.user }}
NATS_USER: {{ .Values.nats.user }}
{{- end }}
NOETL_LOG_FORMAT: json
NOETL_WORKER_MAX_INFLIGHT_COMMANDS: {{ .Values.limits.worker_slots }}
NOETL_WORKER_MAX_INFLIGHT_DB_COMMANDS: {{ .Values.limits.worker_db_slots }}
NOETL_WORKER_NATS_MAX_ACK_PENDING: {{ .Values.limits.nats_max_ack_pending }}
{{- with .Values.limits.rates }}
NOETL_RATE_LIMITS: {{ include "noetl.rates" . | quote }}
{{- end }}
{{- end }}

{{- /* target=rate with commas, in the order of their names. */ -}}
{{- define "noetl.rates" -}}
{{- $pairs := list -}}
{{- range $target, $rate := . -}}{{- $pairs = append $pairs (printf "%s=%v" $target $rate) -}}{{- end -}}
{{- join "," $pairs -}}
{{- end }}

{{- /* What only workers are told: whom they ask before a fetch. */ -}}
{{- define "noetl.gate" -}}
{{- $asked := list }}
{{- with .Values.gate }}
NOETL_PREFETCH_CAPACITY_RATIO: {{ .ratio }}
NOETL_PREFETCH_POLL_INTERVAL_SECONDS: {{ .poll_seconds }}
NOETL_PREFETCH_ON_ERROR: {{ .on_error }}
{{- if .reserved.limit }}
{{- $asked = append $asked "quota" }}
NOETL_PREFETCH_RESERVED_NAME: {{ .reserved.name }}
NOETL_PREFETCH_RESERVED_LIMIT: {{ .reserved.limit }}
{{- end }}
{{- if .http_url }}
{{- $asked = append $asked "http" }}
NOETL_PREFETCH_HTTP_URL: {{ .http_url }}
{{- end }}
{{- if .k8s_quota.name }}
{{- $asked = append $asked "k8s" }}
NOETL_PREFETCH_QUOTA_NAME: {{ .k8s_quota.name }}
NOETL_PREFETCH_QUOTA_NAMESPACE: {{ .k8s_quota.namespace | default $.Release.Namespace }}
NOETL_PREFETCH_QUOTA_RESOURCE: {{ .k8s_quota.resource }}
{{- end }}
{{- end }}
{{- if $asked }}
NOETL_PREFETCH_GATE: {{ join "," $asked | quote }}
{{- end }}
{{- end }}

{{- /* Secrets and the pod's name, which no ConfigMap can say. */ -}}
{{- define "noetl.env" -}}
- name: NOETL_NODE_ID
  valueFrom: { fieldRef: { fieldPath: metadata.name } }
- name: POSTGRES_PASSWORD
  valueFrom: { secretKeyRef: { name: {{ .Values.secret.name }}, key: POSTGRES_PASSWORD } }
- name: NOETL_ENCRYPTION_KEY
  valueFrom: { secretKeyRef: { name: {{ .Values.secret.name }}, key: NOETL_ENCRYPTION_KEY } }
{{- if .Values.nats.user }}
- name: NATS_PASSWORD
  valueFrom: { secretKeyRef: { name: {{ .Values.secret.name }}, key: NATS_PASSWORD } }
{{- end }}
{{- end }}

{{- /* Of a pod. Kubernetes' own variables for services, such as NATS_PORT, would be read as ours. */ -}}
{{- define "noetl.pod" -}}
enableServiceLinks: false
automountServiceAccountToken: {{ .token | default false }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .user }}
  runAsGroup: {{ .user }}
  fsGroup: {{ .user }}
  seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- /* Of a container. */ -}}
{{- define "noetl.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- end }}
