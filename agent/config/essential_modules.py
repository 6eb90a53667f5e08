"""Kernel modules that every node's containers run on; denying one takes `modprobe.force`."""

from __future__ import annotations

ESSENTIAL_MODULES = {
    "overlay": "container images live on it",
    "br_netfilter": "Services reach pods of the same bridge through it",
    "bridge": "pods are attached to it",
    "veth": "every pod's network interface is one",
    "nf_conntrack": "kube-proxy tracks Service connections with it",
    "nf_nat": "Service addresses are translated with it",
    "nf_tables": "kube-proxy and network plugins write their rules with it",
    "x_tables": "kube-proxy and network plugins write their rules with it",
    "ip_tables": "kube-proxy and network plugins write their rules with it",
}
