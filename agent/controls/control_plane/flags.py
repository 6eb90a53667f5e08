"""The flags that are looked at: their kind and default, by program. What is not here is text and empty by default.

https://kubernetes.io/docs/reference/command-line-tools-reference/kube-apiserver/
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from agent.host import Program


class Kind(Enum):
    """How a flag is read when it is repeated: the last wins, except for lists and maps, which add up."""

    TEXT = "text"
    BOOLEAN = "true or false"
    LIST = "a list"
    MAP = "names with values"


# A default that changed: (minor version, before it, from it on).
Changed = tuple[int, str, str]

_TRUE = "true"
_EVERYWHERE = "0.0.0.0"  # noqa: S104 - the default of the components
DEFAULTS: Mapping[Program, Mapping[str, str | Changed]] = {
    Program.API_SERVER: {
        "anonymous-auth": _TRUE, "authorization-mode": "", "enable-admission-plugins": "",
        "disable-admission-plugins": "", "admission-control": "", "admission-control-config-file": "",
        "authentication-config": "", "authorization-config": "", "token-auth-file": "", "etcd-servers": "",
        "etcd-servers-overrides": "", "encryption-provider-config-automatic-reload": "",
        "kubelet-client-certificate": "", "kubelet-client-key": "", "kubelet-certificate-authority": "",
        "profiling": _TRUE, "audit-log-path": "", "audit-policy-file": "", "audit-webhook-config-file": "",
        "audit-log-maxage": (36, "0", "366"), "audit-log-maxbackup": (36, "0", "100"), "audit-log-maxsize": "100",
        "request-timeout": "1m0s", "service-account-lookup": _TRUE, "service-account-key-file": "",
        "service-account-extend-token-expiration": _TRUE, "etcd-certfile": "", "etcd-keyfile": "", "etcd-cafile": "",
        "tls-cert-file": "", "tls-private-key-file": "", "client-ca-file": "", "encryption-provider-config": "",
        "tls-cipher-suites": "", "tls-min-version": "", "secure-port": "6443", "bind-address": _EVERYWHERE,
        "feature-gates": "", "runtime-config": "", "requestheader-allowed-names": "",
        "requestheader-client-ca-file": "", "debug-socket-path": "", "enable-bootstrap-token-auth": "",
        "allow-privileged": "", "service-account-signing-key-file": "", "service-account-signing-endpoint": "",
        "proxy-client-cert-file": "", "proxy-client-key-file": "", "cert-dir": "/var/run/kubernetes",
    },
    Program.CONTROLLER_MANAGER: {
        "terminated-pod-gc-threshold": "12500", "profiling": _TRUE, "use-service-account-credentials": "",
        "service-account-private-key-file": "", "root-ca-file": "", "feature-gates": "", "bind-address": _EVERYWHERE,
        "secure-port": "10257", "authorization-always-allow-paths": "/healthz,/readyz,/livez",
        "cluster-signing-duration": "8760h0m0s", "controllers": "*", "kubeconfig": "", "client-ca-file": "",
        "cluster-signing-key-file": "", "authorization-kubeconfig": "", "authentication-kubeconfig": "",
    },
    Program.SCHEDULER: {
        "profiling": _TRUE, "config": "", "bind-address": _EVERYWHERE, "secure-port": "10259", "kubeconfig": "",
        "authorization-always-allow-paths": "/healthz,/readyz,/livez", "feature-gates": "",
    },
    Program.ETCD: {
        "listen-client-urls": "http://localhost:2379", "listen-client-http-urls": "",
        "listen-peer-urls": "http://localhost:2380", "listen-metrics-urls": "", "cert-file": "", "key-file": "",
        "client-cert-auth": "", "trusted-ca-file": "", "auto-tls": "", "peer-auto-tls": "", "peer-cert-file": "",
        "peer-key-file": "", "peer-client-cert-auth": "", "peer-trusted-ca-file": "", "enable-pprof": "",
        "cipher-suites": "", "data-dir": "", "name": "default", "config-file": "",
    },
    Program.DQLITE: {  # https://github.com/canonical/k8s-dqlite/blob/master/cmd/root.go
        "storage-dir": "/var/tmp/k8s-dqlite",  # noqa: S108 - its default
        "listen": "tcp://127.0.0.1:12379", "enable-tls": _TRUE, "profiling": "", "profiling-listen": "127.0.0.1:4000",
        "metrics": "", "metrics-listen": "127.0.0.1:9042",
    },
}  # fmt: skip

_BOOLEANS = """
    anonymous-auth profiling service-account-lookup service-account-extend-token-expiration enable-bootstrap-token-auth
    allow-privileged use-service-account-credentials client-cert-auth peer-client-cert-auth auto-tls peer-auto-tls
    enable-pprof enable-tls metrics encryption-provider-config-automatic-reload
"""
BOOLEANS = frozenset(_BOOLEANS.split())
_LISTS = """
    authorization-mode enable-admission-plugins disable-admission-plugins admission-control etcd-servers
    etcd-servers-overrides tls-cipher-suites requestheader-allowed-names authorization-always-allow-paths controllers
"""
_MAPS = frozenset(("feature-gates", "runtime-config"))

# etcd's configuration file: where a flag is in it.
_SECURITY = ("cert-file", "key-file", "client-cert-auth", "trusted-ca-file", "auto-tls")
ETCD_FILE: Mapping[str, str] = {
    **{name: name for name in DEFAULTS[Program.ETCD] if name not in (*_SECURITY, "config-file")},
    **{f"client-transport-security.{name}": name for name in _SECURITY},
    **{f"peer-transport-security.{name}": f"peer-{name}" for name in _SECURITY},
}


def kind_of(program: Program, name: str) -> Kind:
    """The kind of a program's flag."""
    if name in BOOLEANS:
        return Kind.BOOLEAN
    if name in _MAPS:
        return Kind.MAP
    return Kind.LIST if name in _LISTS.split() and program is not Program.ETCD else Kind.TEXT
