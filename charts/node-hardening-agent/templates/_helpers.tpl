{{/* Names are fixed: there is one agent on a node, so there is one release in a cluster, and docs and plugin know them. */}}
{{- define "agent.name" -}}node-hardening-agent{{- end }}

{{- define "agent.labels" -}}
app.kubernetes.io/name: {{ include "agent.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "agent.subjects" -}}
- kind: ServiceAccount
  name: {{ include "agent.name" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}

{{- define "agent.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end -}}
{{- end -}}
{{- end }}

{{/* metrics.address of the policy: what follows its last colon, and what goes before without an IPv6 address's brackets. */}}
{{- define "agent.address" -}}
{{- $metrics := .Values.config.metrics | default dict -}}
{{- if hasKey $metrics "address" }}{{ $metrics.address }}{{ else }}0.0.0.0:9105{{ end -}}
{{- end }}
{{- define "agent.port" -}}{{ include "agent.address" . | regexFind "[0-9]+$" }}{{- end }}
{{- define "agent.host" -}}{{ include "agent.address" . | regexFind "^.*:" | trimSuffix ":" | trimAll "[]" }}{{- end }}

{{/* Not empty where the port answers on the node's own addresses, not on one of them alone. */}}
{{- define "agent.everywhere" -}}
{{- if and (include "agent.port" .) (has (include "agent.host" .) (list "" "0.0.0.0" "::")) }}yes{{ end -}}
{{- end }}

{{/* A probe's action; an address that is not everywhere is asked where it is. */}}
{{- define "agent.probe" -}}
httpGet:
  path: {{ .path }}
  port: metrics
  {{- if not (include "agent.everywhere" .root) }}
  host: {{ include "agent.host" .root | quote }}
  {{- end }}
{{- end }}

{{/* The most that the policy lets a control do on any node, overrides included; `off` without quotes is false. */}}
{{- define "agent.mode" -}}
{{- $policy := include "agent.policy" .root | fromJson -}}
{{- $modes := list (dig .control "mode" "enforce" $policy | toString) -}}
{{- range $override := get $policy "overrides" | default list -}}
  {{- $modes = append $modes (dig $.control "mode" "" $override | toString) -}}
{{- end -}}
{{- if has "enforce" $modes }}enforce{{ else if has "audit" $modes }}audit{{ else }}off{{ end -}}
{{- end }}
{{- define "agent.reads" -}}{{ if ne (include "agent.mode" .) "off" }}yes{{ end }}{{- end }}
{{- define "agent.writes" -}}{{ if eq (include "agent.mode" .) "enforce" }}yes{{ end }}{{- end }}

{{/* The folder in which the agent writes seccomp profiles. */}}
{{- define "agent.seccomp" -}}
{{- $seccomp := .Values.config.seccomp | default dict -}}
{{- $directory := $seccomp.directory | default "auto" -}}
{{- if eq $directory "auto" }}{{ printf "%s/seccomp" (trimSuffix "/" .Values.kubelet.rootDir) }}{{ else }}{{ $directory }}{{ end -}}
{{- end }}

{{- define "agent.modprobe" -}}
{{- $modprobe := .Values.config.modprobe | default dict -}}
{{- $modprobe.file | default "/etc/modprobe.d/kubernetes-blacklist.conf" | dir -}}
{{- end }}

{{/* The Leases of every pool's lock, as agent/reboot/lock/pools.py calls them. JSON. */}}
{{- define "agent.locks" -}}
{{- $reboot := .Values.config.reboot | default dict -}}
{{- $names := list -}}
{{- $pools := list "workers" "control-plane" -}}
{{- range $value := .Values.rbac.pools -}}
  {{- $plain := regexReplaceAll "[^a-z0-9-]+" (lower $value) "-" | trimAll "-" -}}
  {{- if or (ne $plain $value) (eq $value "control-plane") -}}
    {{- $plain = printf "%s-%s" $plain (sha256sum $value | trunc 8) -}}
  {{- end -}}
  {{- $pools = append $pools $plain -}}
{{- end -}}
{{- range $pool := uniq $pools -}}
  {{- range $slot := until (int ($reboot.concurrency | default 1)) -}}
    {{- $names = append $names (printf "node-hardening-reboot-%s-%d" $pool $slot) -}}
  {{- end -}}
{{- end -}}
{{- $names | toJson -}}
{{- end }}

{{/* The profiles of one kind, shipped ones and the values' own. YAML of a ConfigMap's data. */}}
{{- define "agent.profiles" -}}
{{- $data := dict -}}
{{- if .root.Values.profiles.shipped -}}
  {{- range $path, $content := .root.Files.Glob (printf "files/%s/*" .kind) -}}
    {{- if not (has (base $path) $.root.Values.profiles.without) -}}
      {{- $_ := set $data (base $path) (toString $content) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- range $name, $content := index .root.Values.profiles .kind -}}
  {{- $_ := set $data $name $content -}}
{{- end -}}
{{- toYaml $data -}}
{{- end }}

{{- define "agent.secret" -}}
{{- if .Values.secrets.existing }}{{ .Values.secrets.existing }}{{ else if .Values.secrets.create }}node-hardening-secrets{{ end -}}
{{- end }}

{{/* The policy: config, with every section that could act in mode audit where `audit` is set. JSON. */}}
{{- define "agent.policy" -}}
{{- $policy := omit (deepCopy (.Values.config | default dict)) "apiVersion" "kind" -}}
{{- if .Values.audit -}}
  {{- range $section, $audit := omit (.Files.Get "files/audit.yaml" | fromYaml) "apiVersion" "kind" -}}
    {{- $given := get $policy $section | default dict -}}
    {{- if not (has (toString (get $given "mode")) (list "off" "false")) -}}
      {{- $_ := set $policy $section (merge (deepCopy $audit) $given) -}}
    {{- end -}}
    {{- range $override := get $policy "overrides" | default list -}}
      {{- $given := get $override $section | default dict -}}
      {{- if and (hasKey $given "mode") (not (has (toString $given.mode) (list "off" "false"))) -}}
        {{- $_ := set $given "mode" "audit" -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- $policy | toJson -}}
{{- end }}
