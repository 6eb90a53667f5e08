#!/bin/sh
# Takes the node hardening agent out of the cluster that kubectl points at, with everything that it wrote on Nodes.
#
#   sh uninstall.sh          refuses while a node is being rebooted
#   sh uninstall.sh --now    continues, and uncordons the nodes that the agent had cordoned
#
# Needs kubectl 1.30 or later and an administrator's rights; may be run again after an error. What the agent put on the
# nodes' disks stays as it is; how to revert that first: docs/install.md.
set -eu

KUBECTL=${KUBECTL:-kubectl}
NAMESPACE=${NAMESPACE:-node-hardening} # helm can have another
WAIT=${WAIT:-300s}                     # for the agents to end
PREFIX=node-hardening.io/
LABEL=app.kubernetes.io/name=node-hardening-agent

say() { printf 'uninstall: %s\n' "$*"; }

# One line for each thing of a Node: "NAME" KIND "KEY" ["VALUE"]; the value is shown for the reboot's note alone, and the
# key of a cordon is who set it, by managedFields. A node chooses its annotations and condition types: in quotes, with
# every line break escaped, none becomes a line of its own.
node_lines() {
    "$KUBECTL" get nodes -o go-template='
{{- range .items -}}
  {{- $node := printf "%q" .metadata.name -}}
  {{- range $key, $value := .metadata.annotations -}}
    {{- $node }} annotations {{ printf "%q" $key }}
    {{- if eq $key "node-hardening.io/reboot-state" }} {{ printf "%q" $value }}{{ end }}{{ "\n" -}}
  {{- end -}}
  {{- range $key, $value := .metadata.labels -}}{{- $node }} labels {{ printf "%q" $key }}{{ "\n" -}}{{- end -}}
  {{- range .spec.taints -}}{{- $node }} taint {{ printf "%q" .key }}{{ "\n" -}}{{- end -}}
  {{- if .spec.unschedulable -}}
    {{- range .metadata.managedFields -}}
      {{- $entry := . -}}
      {{- if and .fieldsV1 (not .subresource) -}}{{- with index .fieldsV1 "f:spec" -}}{{- range $key, $value := . -}}
        {{- if eq $key "f:unschedulable" -}}{{- $node }} cordon {{ printf "%q" $entry.manager }}{{ "\n" -}}{{- end -}}
      {{- end -}}{{- end -}}{{- end -}}
    {{- end -}}
  {{- end -}}
  {{- range .status.conditions -}}{{- $node }} condition {{ printf "%q" .type }}{{ "\n" -}}{{- end -}}
{{- end -}}'
}

# Whether FILE has exactly this line.
has() { grep -qxF -e "$2" "$1"; }

# The lines of FILE with the note of a reboot.
notes() { grep -E "^[^ ]+ annotations \"${PREFIX}reboot-state\" " "$1"; }

# Whether FILE, of one node, has a cordon of the agent; as the agent decides it: by who set the cordon, of several the
# first, or by the state, where nothing shows that.
has_our_cordon() {
    owner=$(grep -E '^[^ ]+ cordon ' "$1" | head -n 1)
    if [ -n "$owner" ]; then
        [ "${owner#* cordon }" = "\"${PREFIX}reboot\"" ]
    else
        notes "$1" | grep -F '\"cordoned\":true' | grep -qvF '\"uncordoned\":true'
    fi
}

busy() { notes "$1" | grep -E '\\"phase\\":\\"(cordoned|draining|rebooting|verifying)\\"' | cut -d'"' -f2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

node_lines > "$work/before"
under_way=$(busy "$work/before" || true)
if [ -n "$under_way" ] && [ "${1:-}" != --now ]; then
    say "a reboot is under way on:" $under_way
    say "wait for its end, or run with --now to leave it unfinished and uncordon what the agent had cordoned"
    exit 1
fi

say "stops the agents"
# They would restore what is removed below.
"$KUBECTL" -n "$NAMESPACE" delete daemonset -l "$LABEL" --ignore-not-found --wait=false
: > "$work/stay"
# The pod of a machine that is down does not end. Its node is left for the next time, the others are not.
"$KUBECTL" -n "$NAMESPACE" wait --for=delete pod -l "$LABEL" --timeout="$WAIT" ||
    "$KUBECTL" -n "$NAMESPACE" get pods -l "$LABEL" \
        -o go-template='{{ range .items }}{{ printf "%q\n" .spec.nodeName }}{{ end }}' > "$work/stay"

node_lines > "$work/nodes"
cut -d'"' -f2 "$work/nodes" | sort -u | while read -r node; do
    ! has "$work/stay" "\"$node\"" || continue
    awk -v node="$node" '$1 == "\"" node "\""' "$work/nodes" > "$work/node"
    if has_our_cordon "$work/node"; then
        "$KUBECTL" uncordon "$node"
    fi
    for condition in NodeHardened RebootRequired PolicyCurrent; do
        if has "$work/node" "\"$node\" condition \"$condition\""; then
            "$KUBECTL" patch node "$node" --subresource=status --type=strategic \
                -p "{\"status\":{\"conditions\":[{\"type\":\"$condition\",\"\$patch\":\"delete\"}]}}"
        fi
    done
    if has "$work/node" "\"$node\" taint \"${PREFIX}not-hardened\""; then
        "$KUBECTL" taint node "$node" "${PREFIX}not-hardened-"
    fi
    # Last, because the note of the reboot is among them: after an error above, this script still knows what to do.
    patch=$(awk -v prefix="\"$PREFIX" '
        ($2 == "annotations" || $2 == "labels") && index($3, prefix) == 1 {
            keys[$2] = keys[$2] (keys[$2] == "" ? "" : ",") $3 ":null"
        }
        END { printf "{\"metadata\":{\"annotations\":{%s},\"labels\":{%s}}}", keys["annotations"], keys["labels"] }
    ' "$work/node")
    case $patch in
        *:null*) "$KUBECTL" patch node "$node" --type=merge -p "$patch" ;;
    esac
done

if [ -s "$work/stay" ]; then
    say "the agent's pod does not end on:" $(cut -d'"' -f2 "$work/stay")
    say "the other nodes are done; delete the pod with --force if its machine is gone, and run this again"
    exit 1
fi

say "removes rights, policy and namespace"
for kind in clusterrolebinding clusterrole validatingadmissionpolicybinding validatingadmissionpolicy; do
    "$KUBECTL" delete "$kind" -l "$LABEL" --ignore-not-found
done
for place in default kube-node-lease; do
    "$KUBECTL" -n "$place" delete rolebinding,role -l "$LABEL" --ignore-not-found
done
# With it go the configuration, the profiles' ConfigMaps and the reboot locks. It ends by itself.
"$KUBECTL" delete namespace "$NAMESPACE" --ignore-not-found --wait=false
say "done; Events of the agent are forgotten by the API server within its --event-ttl (1h)"
