{{- define "frameswap.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 30 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 30 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "frameswap.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{- with .Values.image.digest }}{{ $.Values.image.repository }}@{{ . }}{{ else }}{{ .Values.image.repository }}:{{ $tag }}{{ end }}
{{- end }}

{{- define "frameswap.edgeImage" -}}
{{- with .Values.edge.image }}{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end }}{{ end }}
{{- end }}

{{- define "frameswap.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* Labels that select a pool's pods. Takes root and name. */}}
{{- define "frameswap.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: server
frameswap/pool: {{ .name }}
{{- end }}

{{- define "frameswap.edgeSelector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: edge
{{- end }}

{{/* A pool's settings over the defaults, as YAML. Takes root and name. */}}
{{- define "frameswap.pool" -}}
{{- $pool := mergeOverwrite (deepCopy .root.Values.poolDefaults) (index .root.Values.pools .name | default dict) -}}
{{- if and (ne $pool.target "cpu") (lt (int $pool.gpu.count) 1) -}}
{{- fail (printf "pool %s: the %s target needs gpu.count 1 or more" .name $pool.target) -}}
{{- end -}}
{{- if and (gt (int $pool.maxQueueSize) 0) (lt (int $pool.instances) 2) -}}
{{- fail (printf "pool %s: maxQueueSize needs instances 2 or more (with one, requests can wait half a second for a wake-up that Triton loses)" .name) -}}
{{- end -}}
{{- if and (ne $pool.autoscaling.kind "none") (gt (int $pool.autoscaling.min) (int $pool.autoscaling.max)) -}}
{{- fail (printf "pool %s: autoscaling.min is above autoscaling.max" .name) -}}
{{- end -}}
{{- if and (eq $pool.autoscaling.kind "hpa") (lt (int $pool.autoscaling.min) 1) -}}
{{- fail (printf "pool %s: only keda scales to zero; hpa needs autoscaling.min 1 or more" .name) -}}
{{- end -}}
{{- $pool | toYaml -}}
{{- end }}

{{/* What decides a pool's plans: pools that agree in it share one build. Takes root and pool. */}}
{{- define "frameswap.planKey" -}}
{{- $decides := dict "image" (include "frameswap.image" .root) "target" .pool.target "build" .pool.build "product" .pool.gpu.product "resource" .pool.gpu.resource -}}
{{- $decides | toJson | sha256sum | trunc 10 -}}
{{- end }}

{{- define "frameswap.claim" -}}
{{- .Values.plans.existingClaim | default (printf "%s-plans" (include "frameswap.name" .)) -}}
{{- end }}

{{- define "frameswap.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.securityContext.user }}
runAsGroup: {{ .Values.securityContext.group }}
fsGroup: {{ .Values.securityContext.group }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "frameswap.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Where a pool's pods may run. Takes pool. */}}
{{- define "frameswap.placement" -}}
{{- $selector := .pool.nodeSelector -}}
{{- if .pool.gpu.product }}{{ $selector = merge (dict "nvidia.com/gpu.product" .pool.gpu.product) $selector }}{{ end -}}
{{- with $selector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pool.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if gt (int .pool.gpu.count) 0 }}
{{- with .pool.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with .pool.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "frameswap.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* A container that builds a pool's plans. Takes root, pool, key. */}}
{{- define "frameswap.builder" -}}
name: build
image: {{ include "frameswap.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
command: [python, -m, deploy.build_plans]
args:
  - --target={{ .pool.target }}
  - --repository=/models/{{ .key }}
  - --cache=/models/cache/plans
  {{- range .pool.build }}
  - {{ . | quote }}
  {{- end }}
env:
  - name: FRAMESWAP_CACHE
    value: /models/cache
securityContext:
  {{- include "frameswap.containerSecurity" .root | nindent 2 }}
resources:
  requests:
    cpu: {{ .pool.cpu | quote }}
    memory: {{ .root.Values.plans.memoryMiB }}Mi
  limits:
    {{- with .pool.cpuLimit }}
    cpu: {{ . | quote }}
    {{- end }}
    memory: {{ .root.Values.plans.memoryMiB }}Mi
    {{- if gt (int .pool.gpu.count) 0 }}
    {{ .pool.gpu.resource }}: {{ .pool.gpu.count }}
    {{- end }}
volumeMounts:
  - name: models
    mountPath: /models
  - name: tmp
    mountPath: /tmp
{{- end }}

{{/* Refuses settings that cannot work together, with a sentence each. */}}
{{- define "frameswap.check" -}}
{{- with .Values.plans -}}
{{- if and (eq .builder "job") (ne .volume "shared") -}}
{{- fail "plans.builder job writes for other pods: it needs plans.volume shared (or use builder pod)" -}}
{{- end -}}
{{- if and (eq .builder "none") (not .existingClaim) -}}
{{- fail "plans.builder none needs plans.existingClaim, which holds the plans" -}}
{{- end -}}
{{- if and (eq .volume "shared") (ne .builder "none") (not .existingClaim) (not (has "ReadWriteMany" .accessModes)) -}}
{{- fail "plans that several pods share need accessModes ReadWriteMany; without it set plans.builder pod and plans.volume own" -}}
{{- end -}}
{{- end -}}
{{- range $name := list .Values.test.pool .Values.loadTest.pool -}}
{{- if not (hasKey $.Values.pools $name) -}}
{{- fail (printf "no pool is called %s" $name) -}}
{{- end -}}
{{- end -}}
{{- if .Values.loadTest.enabled -}}
{{- $pool := include "frameswap.pool" (dict "root" $ "name" .Values.loadTest.pool) | fromYaml -}}
{{- if not (has "statistics" $pool.open) -}}
{{- fail (printf "loadTest: perf_analyzer reads statistics; set open: [statistics] of the pool %s" .Values.loadTest.pool) -}}
{{- end -}}
{{- end -}}
{{- range $name, $_ := .Values.pools -}}
{{- if gt (len $name) 20 -}}
{{- fail (printf "the pool name %s is longer than 20 characters" $name) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.tls.mutual (not .Values.tls.secretName) -}}{{- fail "tls.mutual needs tls.secretName" -}}{{- end -}}
{{- if and .Values.edge.tls.mutual (not .Values.edge.tls.secretName) -}}{{- fail "edge.tls.mutual needs edge.tls.secretName" -}}{{- end -}}
{{- if and .Values.edge.tokensSecret (not .Values.edge.tls.secretName) -}}{{- fail "edge.tokensSecret needs edge.tls.secretName: a token must not cross a network in clear" -}}{{- end -}}
{{- if and (gt (int .Values.rollout.maxSurge) 0) (eq (int .Values.rollout.maxUnavailable) 0) -}}
{{- fail "rollout.maxSurge above 0 with maxUnavailable 0 waits for ever when all GPUs are taken" -}}
{{- end -}}
{{- end }}
