{{- define "tracefwd.name" -}}
{{- if contains "tracefwd" .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-tracefwd" .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What selectors hold on to: it must never change between versions of the chart. */}}
{{- define "tracefwd.selector" -}}
app.kubernetes.io/name: tracefwd
app.kubernetes.io/component: spans
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "tracefwd.labels" -}}
{{ include "tracefwd.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "tracefwd.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "tracefwd.secret" -}}
{{ .Values.target.direct.existingSecret | default (include "tracefwd.name" .) }}
{{- end -}}

{{/* Where direct ingestion listens, and where VMware Cloud Services gives access tokens; with a blank between them. */}}
{{- define "tracefwd.direct.ports" -}}
{{- $ports := list ((urlParse .Values.target.direct.url).host | regexFind ":[0-9]+$" | trimPrefix ":" | default "443") -}}
{{- if .Values.target.direct.csp }}{{ $ports = append $ports "443" }}{{ end -}}
{{- uniq $ports | join " " -}}
{{- end -}}

{{/* tracefwd.yaml, before values.config is laid over it. */}}
{{- define "tracefwd.config" -}}
exporter:
  targets:
    {{- if eq .Values.target.kind "proxy" }}
    - name: proxy
      kind: proxy
      traces: {{ .Values.target.proxy.traces }}
      metrics: {{ .Values.target.proxy.metrics }}
    {{- else }}
    - name: direct
      kind: direct
      url: {{ required "target.direct.url: your Wavefront instance" .Values.target.direct.url }}
      {{ if .Values.target.direct.csp }}csp_{{ end }}token_file: /var/run/tracefwd/token
    {{- end }}
spool:
  folder: /var/spool/tracefwd
  bytes_max: {{ .Values.spool.bytesMax }}
admin:
  listen: 0.0.0.0:9412
service:
  pre_stop_delay: 5s
  drain_timeout: 20s
{{- end -}}

{{/* A configuration with an operator's laid over it: (list CONFIG OVER).  A section that is left empty takes nothing away. */}}
{{- define "tracefwd.over" -}}
{{- $over := dict -}}
{{- range $section, $given := last . -}}
{{- if not (kindIs "invalid" $given) -}}
{{- $_ := set $over $section $given -}}
{{- end -}}
{{- end -}}
{{- mustMergeOverwrite (first .) $over | toYaml -}}
{{- end -}}

{{/* tracefwd.yaml. */}}
{{- define "tracefwd.whole" -}}
{{- include "tracefwd.over" (list (fromYaml (include "tracefwd.config" .)) .Values.config) -}}
{{- end -}}

{{/* What holds in the pods that take spans: the variables of extraEnv win over tracefwd.yaml.  What comes from elsewhere (valueFrom) is not known. */}}
{{- define "tracefwd.holds" -}}
{{- $config := fromYaml (include "tracefwd.whole" .) -}}
{{- range .Values.extraEnv -}}
{{- if and (hasKey . "value") (regexMatch "^TRACEFWD_[A-Z].*__[A-Z]" .name) -}}
{{- $over := .value -}}
{{- range trimPrefix "TRACEFWD_" .name | lower | splitList "__" | reverse -}}
{{- $over = dict . $over -}}
{{- end -}}
{{- $config = mustMergeOverwrite $config $over -}}
{{- end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* Where an option of these pods was said, for who has to change it: (list . KEY). */}}
{{- define "tracefwd.said" -}}
{{- $name := printf "TRACEFWD_%s" (last . | replace "." "__" | upper) -}}
{{- $said := printf "config.%s" (last .) -}}
{{- range (first .).Values.extraEnv -}}
{{- if eq .name $name -}}{{- $said = printf "extraEnv %s" $name -}}{{- end -}}
{{- end -}}
{{- $said -}}
{{- end -}}

{{/* Nothing; fails for what would stand twice in a list whose names the API server wants to differ: (list VALUE KEY THESE THOSE). */}}
{{- define "tracefwd.differ" -}}
{{- $seen := index . 2 -}}
{{- $key := index . 1 -}}
{{- $value := first . -}}
{{- range last . -}}
{{- $one := get . $key | toString -}}
{{- if has $one $seen -}}{{- fail (printf "%s: %s %s is taken; choose another" $value $key $one) -}}{{- end -}}
{{- $seen = append $seen $one -}}
{{- end -}}
{{- end -}}

{{/* Nothing; fails for ports, volumes and mounts that are the chart's own or stand twice. */}}
{{- define "tracefwd.extras" -}}
{{- $names := list "http-zipkin" "admin" -}}
{{- $ports := list "9411" "9412" -}}
{{- if .Values.otlp.enabled -}}
{{- $names = concat $names (list "grpc-otlp" "http-otlp") -}}
{{- $ports = concat $ports (list "4317" "4318") -}}
{{- end -}}
{{- include "tracefwd.differ" (list "extraPorts" "name" $names .Values.extraPorts) -}}
{{- include "tracefwd.differ" (list "extraPorts" "port" $ports .Values.extraPorts) -}}
{{- $volumes := list "config" "spool" -}}
{{- $mounts := list "/etc/tracefwd" "/var/spool/tracefwd" -}}
{{- if eq .Values.target.kind "direct" -}}
{{- $volumes = append $volumes "token" -}}
{{- $mounts = append $mounts "/var/run/tracefwd" -}}
{{- end -}}
{{- if .Values.metrics.enabled -}}
{{- include "tracefwd.differ" (list "metrics.extraVolumes" "name" $volumes .Values.metrics.extraVolumes) -}}
{{- include "tracefwd.differ" (list "metrics.extraVolumeMounts" "mountPath" $mounts .Values.metrics.extraVolumeMounts) -}}
{{- end -}}
{{- if .Values.console.existingSecret -}}
{{- $volumes = append $volumes "console" -}}
{{- $mounts = append $mounts "/var/run/tracefwd-console" -}}
{{- end -}}
{{- include "tracefwd.differ" (list "extraVolumes" "name" $volumes .Values.extraVolumes) -}}
{{- include "tracefwd.differ" (list "extraVolumeMounts" "mountPath" $mounts .Values.extraVolumeMounts) -}}
{{- end -}}

{{/* Nothing; fails for a variable that would stand twice in the environment, which the API server refuses or mixes up. */}}
{{- define "tracefwd.variables" -}}
{{- $names := list -}}
{{- if .Values.otlp.enabled }}{{ $names = list "TRACEFWD_RECEIVER__OTLP__GRPC__LISTEN" "TRACEFWD_RECEIVER__OTLP__HTTP__LISTEN" }}{{ end -}}
{{- if .Values.console.existingSecret }}{{ $names = append $names "TRACEFWD_ADMIN__TOKEN_FILE" }}{{ end -}}
{{- range .Values.extraEnv -}}
{{- if has .name $names -}}
{{- fail (printf "extraEnv: %s is set twice, or by otlp.enabled or console.existingSecret; where OTLP listens is said in config" .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- end -}}

{{/* A size of tracefwd's or a quantity of Kubernetes', in bytes. */}}
{{- define "tracefwd.bytes" -}}
{{- $text := toString . -}}
{{- $unit := regexFind "[A-Za-z]*$" $text -}}
{{- $prefix := trimSuffix "B" $unit | replace "K" "k" -}}
{{- $scale := dict "" 1.0 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 -}}
{{- if not (hasKey $scale $prefix) -}}
{{- fail (printf "%s is no size: nothing has the unit %s" $text $unit) -}}
{{- end -}}
{{- mulf (float64 (trimSuffix $unit $text)) (get $scale $prefix) -}}
{{- end -}}

{{/* Nothing; fails for a volume that the spool would overflow, which would evict the pod or refuse what it writes: (list CONFIG VALUES). */}}
{{- define "tracefwd.room" -}}
{{- $config := first . -}}
{{- $values := last . -}}
{{- $workers := dig "workers" 1 (get $config "service" | default dict) | int -}}
{{- $spool := get $config "spool" | default dict -}}
{{- $bytes := get $spool "bytes_max" -}}
{{- $name := ternary "durable.storage" "spool.size" $values.durable.enabled -}}
{{- $size := ternary $values.durable.storage $values.spool.size $values.durable.enabled -}}
{{- $needed := mulf 2.0 (float64 $workers) (float64 (include "tracefwd.bytes" $bytes)) -}}
{{- if and (eq (get $spool "folder") "/var/spool/tracefwd") (gt $needed (float64 (include "tracefwd.bytes" $size))) -}}
{{- fail (printf "%s: batches and journal of %d worker(s) take up to 2 x %d x %v, and %s is less" $name $workers $workers $bytes $size) -}}
{{- end -}}
{{- end -}}

{{/* The same of the metrics path's, which has batches and no journal. */}}
{{- define "tracefwd.metrics.room" -}}
{{- $spool := get (first .) "spool" | default dict -}}
{{- $own := (last .).metrics.spool -}}
{{- $bytes := get $spool "bytes_max" | default $own.bytesMax -}}
{{- $size := $own.size -}}
{{- if and (not (hasKey $spool "folder")) (gt (float64 (include "tracefwd.bytes" $bytes)) (float64 (include "tracefwd.bytes" $size))) -}}
{{- fail (printf "metrics.spool.size: batches take up to %v, and %s is less" $bytes $size) -}}
{{- end -}}
{{- end -}}

{{/* A duration of tracefwd's, in seconds. */}}
{{- define "tracefwd.seconds" -}}
{{- $scale := dict "us" 1e-6 "ms" 1e-3 "s" 1.0 "m" 60.0 "h" 3600.0 -}}
{{- $sum := 0.0 -}}
{{- range regexFindAll "[0-9.]+[a-z]+" (toString .) -1 -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- $sum = addf $sum (mulf (float64 (trimSuffix $unit .)) (get $scale $unit | default 0.0)) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}

{{/* Nothing; fails for a pod that is killed before it has drained as long as it may: (list CONFIG SECONDS). */}}
{{- define "tracefwd.grace" -}}
{{- $service := get (first .) "service" | default dict -}}
{{- $before := get $service "pre_stop_delay" | default "0s" -}}
{{- $drain := get $service "drain_timeout" | default "0s" -}}
{{- $needed := addf (float64 (include "tracefwd.seconds" $before)) (float64 (include "tracefwd.seconds" $drain)) -}}
{{- if gt $needed (float64 (last .)) -}}
{{- fail (printf "terminationGracePeriodSeconds: pre_stop_delay (%v) and drain_timeout (%v) together are more than %v s" $before $drain (last .)) -}}
{{- end -}}
{{- end -}}

{{/* Nothing; fails for a port of a configuration that is not where Service, probes and NetworkPolicy look: (list KEY ADDRESS PORT). */}}
{{- define "tracefwd.port" -}}
{{- $address := toString (index . 1 | default "") -}}
{{- if and $address (not (hasSuffix (printf ":%d" (last .)) $address)) -}}
{{- fail (printf "%s: %s: Service, probes and NetworkPolicy lead to port %d; choose the address and leave the port" (first .) $address (last .)) -}}
{{- end -}}
{{- end -}}

{{/* Nothing; the same for an admin port, which kubelets ask from outside of the pod: (list KEY CONFIG). */}}
{{- define "tracefwd.admin" -}}
{{- $address := toString (get (get (last .) "admin" | default dict) "listen" | default "") -}}
{{- include "tracefwd.port" (list (first .) $address 9412) -}}
{{- if regexMatch "^(127\\.|localhost:|\\[::1\\])" $address -}}
{{- fail (printf "%s: %s: a kubelet cannot reach it, and no probe would succeed; write 0.0.0.0:9412 or [::]:9412" (first .) $address) -}}
{{- end -}}
{{- end -}}

{{/* The certificate that the admin port of a configuration shows; empty without TLS. */}}
{{- define "tracefwd.certificate" -}}
{{- $tls := get (get . "admin" | default dict) "tls" | default dict -}}
{{- get $tls "cert_file" -}}
{{- end -}}

{{/* How a kubelet asks the admin port of this configuration for a path: (list PATH CONFIG). */}}
{{- define "tracefwd.probe" -}}
{path: {{ first . }}, port: admin{{ if include "tracefwd.certificate" (last .) }}, scheme: HTTPS{{ end }}}
{{- end -}}

{{/* How a Prometheus asks it for metrics: (list CONFIG ENDPOINT), the latter's fields over all. */}}
{{- define "tracefwd.endpoint" -}}
{{- $asks := dict "port" "admin" "path" "/metrics" "interval" "30s" -}}
{{- if include "tracefwd.certificate" (first .) }}{{ $_ := set $asks "scheme" "https" }}{{ end -}}
{{- mustMergeOverwrite $asks (last .) | toJson -}}
{{- end -}}

{{- define "tracefwd.metrics.selector" -}}
app.kubernetes.io/name: tracefwd
app.kubernetes.io/component: metrics
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "tracefwd.metrics.labels" -}}
{{ include "tracefwd.metrics.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* What the metrics path asks Prometheus for, and where it delivers if not to a proxy. */}}
{{- define "tracefwd.metrics.config" -}}
{{- $list := .Files.Get (printf "files/filters-%s.yaml" (ternary "seed" "current" .Values.metrics.token)) -}}
{{- $config := fromYaml (replace "http://prometheus.istio-system.svc.cluster.local:9090" .Values.metrics.prometheus.url $list) -}}
{{- with .Values.metrics.sources -}}
{{- $_ := set $config "prometheus_sources" . -}}
{{- end -}}
{{- if eq .Values.target.kind "direct" -}}
{{- $_ := set $config "exporter" (get (fromYaml (include "tracefwd.config" .)) "exporter") -}}
{{- end -}}
{{- include "tracefwd.over" (list $config .Values.metrics.config) -}}
{{- end -}}

{{/* Nothing; fails where spans go to a target of `config` that `target` does not describe: the metrics path would go elsewhere, unasked. */}}
{{- define "tracefwd.metrics.target" -}}
{{- $own := get (fromYaml (include "tracefwd.config" .)) "exporter" -}}
{{- $holds := get (fromYaml (include "tracefwd.holds" .)) "exporter" | default dict -}}
{{- $differs := not (kindIs "slice" $holds.targets) -}}
{{- range ternary (list) $holds.targets $differs -}}
{{- if eq (get . "role" | default "primary") "primary" -}}
{{- $there := merge (omit . "name" "role" "traces") (dict "kind" "proxy") -}}
{{- $differs = not (deepEqual $there (omit (first $own.targets) "name" "role" "traces")) -}}
{{- end -}}
{{- end -}}
{{- if and $differs (not (get (get (.Values.metrics.config | default dict) "exporter" | default dict) "targets")) -}}
{{- fail (printf "metrics.config.exporter.targets: spans go to the target of %s, and the metrics path would go to that of target.%s; say where, with metrics.extraVolumes for its files" (include "tracefwd.said" (list . "exporter.targets")) .Values.target.kind) -}}
{{- end -}}
{{- end -}}

{{/* The metrics path's flags, with a blank between them: (list CONFIG VALUES).  They win over the file, so they must say what it says. */}}
{{- define "tracefwd.metrics.flags" -}}
{{- $config := first . -}}
{{- $target := (last .).target -}}
--only=metrics --config=/etc/tracefwd/tracefwd.yaml
{{- if and (eq $target.kind "proxy") (not (get (get $config "exporter" | default dict) "targets")) }} --proxy-metrics={{ $target.proxy.metrics }}{{ end }}
{{- "" }} --admin={{ get (get $config "admin" | default dict) "listen" | default "0.0.0.0:9412" }}
{{- if not (hasKey (get $config "spool" | default dict) "folder") }} --spool=/var/spool/tracefwd{{ end }}
{{- end -}}

{{/* Where pods may go, and what they need to be pulled. */}}
{{- define "tracefwd.placement" -}}
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
