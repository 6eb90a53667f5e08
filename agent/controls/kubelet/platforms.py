"""Configuration files that a distribution writes itself, and where its settings are made instead.

Advice to edit such a file would last until the next start or upgrade. docs/controls/kubelet.md has the same table.
"""

from __future__ import annotations

import re

# The path of the file, and where to set what it contains. {flag}: the flag that carries the field, {fix}: its YAML.
_WRITTEN = (
    (r".*/agent/etc/kubelet\.conf\.d/(00-(k3s|rke2)-defaults\.conf|10-cli-config\.conf|20-cli-config-dir.*)",
     "`kubelet-arg: ['{flag}']` in /etc/rancher/{program}/config.yaml"),
    (r"/var/lib/microshift/.*", "`kubelet: {{{fix}}}` in /etc/microshift/config.yaml"),
    (r"(/var/lib|/run)/k0s/.*", "`{fix}` in spec.workerProfiles of k0s's configuration (/etc/k0s/k0s.yaml)"),
    (r"/etc/kubernetes/kubelet/config", "the setting of settings.kubernetes for `{fix}` (Bottlerocket's apiclient)"),
    (r"/etc/kubernetes/kubelet/(kubelet-)?config\.json(\.d/.*)?",
     "`{fix}` in spec.kubelet.config of the node's NodeConfig (user data)"),
    (r"/home/kubernetes/kubelet-config\.yaml", "`{fix}` in the node pool's --system-config-from-file (GKE)"),
    (r"/etc/default/kubeletconfig\.json", "`{fix}` in the node pool's --kubelet-config (AKS)"),
)  # fmt: skip


def instead(path: str, fix: str, flag: str) -> str:
    """Where to set what a file that is written by the distribution contains; empty for any other file.

    fix: `readOnlyPort: 0`. flag: the name of the flag that carries it, empty when none does.
    """
    for pattern, where in _WRITTEN:
        if re.fullmatch(pattern, path):
            if "{flag}" in where and not flag:
                return f"`{fix}` in a drop-in of your own beside {path}, such as 99-site.conf"
            value = fix.partition(": ")[2].strip('[]"').replace(", ", ",")
            program = "rke2" if "/rke2/" in path else "k3s"
            return where.format(fix=fix, flag=f"{flag}={value}", program=program)
    return ""
