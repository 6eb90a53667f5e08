"""The kubelet's command line, read the way the kubelet reads it (pflag), from any list of arguments.

It refuses to judge: what a flag means is fields.py's matter. A boolean flag never takes the next argument, a flag with
a value always does (`--pod-max-pids -1`), and a flag that is in neither list takes it when it does not look like one.
https://github.com/spf13/pflag, https://kubernetes.io/docs/reference/command-line-tools-reference/kubelet/
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

# Every boolean flag that a kubelet of 1.20 or later knew, cAdvisor's and klog's among them.
_BOOLEAN = """
    add-dir-header allow-privileged alsologtostderr anonymous-auth authentication-token-webhook cgroups-per-qos
    containerized contention-profiling cpu-cfs-quota disable-root-cgroup-stats docker-only docker-tls
    enable-cadvisor-json-endpoints enable-controller-attach-detach enable-debugging-handlers enable-load-reader
    enable-server exit-on-lock-contention experimental-allocatable-ignore-eviction
    experimental-check-node-capabilities-before-mount experimental-dockershim experimental-fail-swap-on
    experimental-kernel-memcg-notification fail-cgroupv1 fail-swap-on help keep-terminated-pod-volumes
    kernel-memcg-notification local-storage-capacity-isolation log-cadvisor-usage log-json-split-stream
    log-text-split-stream logtostderr make-iptables-util-chains one-output protect-kernel-defaults
    really-crash-for-testing redirect-container-streaming register-node register-schedulable rotate-certificates
    rotate-server-certificates runonce seccomp-default serialize-image-pulls skip-headers skip-log-headers version
    windows-service
"""
# Flags whose value may begin with a dash, or that this control reads; any other is recognized by its form.
_VALUED = """
    address allowed-unsafe-sysctls authorization-mode bootstrap-kubeconfig cert-dir client-ca-file cni-conf-dir config
    config-dir container-runtime-endpoint event-burst event-qps eviction-max-pod-grace-period
    experimental-bootstrap-kubeconfig feature-gates healthz-bind-address healthz-port hostname-override
    image-service-endpoint kubeconfig maximum-dead-containers maximum-dead-containers-per-container manifest-url
    max-open-files max-pods node-labels node-status-max-images oom-score-adj pod-manifest-path pod-max-pids port
    read-only-port registry-burst registry-qps root-dir streaming-connection-idle-timeout tls-cert-file
    tls-cipher-suites tls-min-version tls-private-key-file v vmodule
"""
BOOLEAN = frozenset(_BOOLEAN.split())
VALUED = frozenset(_VALUED.split())
_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument. origin: where it stands when that is not the process's own command line (a file and line)."""

    text: str
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Flag:
    """One occurrence of a flag. name: without dashes, underscores as dashes. value: `true` for a bare boolean."""

    name: str
    value: str
    origin: str = ""

    @property
    def source(self) -> str:
        """`flag --x`, with the place where it was found unless that is the command line."""
        return f"flag --{self.name} ({self.origin})" if self.origin else f"flag --{self.name}"


class Flags:
    """What a command line gives. Later occurrences win for scalars; lists and maps add up, as in pflag."""

    def __init__(self, given: Iterable[Flag]) -> None:
        by_name: dict[str, list[Flag]] = {}
        for flag in given:
            by_name.setdefault(flag.name, []).append(flag)
        self._given: Mapping[str, Sequence[Flag]] = by_name

    @property
    def names(self) -> Collection[str]:
        """Every flag that is given."""
        return self._given.keys()

    def all(self, name: str) -> Sequence[Flag]:
        """Every occurrence, in order."""
        return self._given.get(name, ())

    def last(self, name: str) -> Flag | None:
        """The occurrence that counts for a scalar."""
        found = self._given.get(name)
        return found[-1] if found else None

    def text(self, *names: str, default: str = "") -> str:
        """The value of the first of these flags that is given."""
        return next((flag.value for name in names if (flag := self.last(name))), default)


def arguments(texts: Iterable[str]) -> tuple[Argument, ...]:
    """Arguments of a process's own command line."""
    return tuple(Argument(text) for text in texts)


def parse(args: Sequence[Argument], *, boolean: frozenset[str] = BOOLEAN, valued: frozenset[str] = VALUED) -> Flags:
    """The flags of a command line, its program left out. Never raises: what is no flag is passed over."""
    return Flags(_flags(args, boolean, valued))


def _flags(args: Sequence[Argument], boolean: frozenset[str], valued: frozenset[str]) -> Iterator[Flag]:
    at = 0
    while at < len(args):
        text, origin = args[at].text, args[at].origin
        following = args[at + 1].text if at + 1 < len(args) else None
        at += 1
        if text == "--":
            return
        if not text.startswith("-") or text == "-":
            continue
        body = text[2:] if text.startswith("--") else text[1:]
        name, equals, value = body.partition("=")
        name = normal(name)
        if not name or name.startswith("-"):
            continue
        if not text.startswith("--") and not equals and len(name) > 1:
            continue  # shorthands: -v5, which no check reads
        if equals:
            yield Flag(name, value, origin)
        elif name in boolean or following is None:
            # pflag refuses a flag whose value is missing; such a process would not be running.
            if name not in valued:
                yield Flag(name, "true", origin)
        elif name in valued or not following.startswith("-"):
            yield Flag(name, following, origin)
            at += 1
        else:
            yield Flag(name, "true", origin)


def normal(name: str) -> str:
    """A flag's name as the kubelet compares it: WordSepNormalizeFunc takes underscores for dashes."""
    return name.replace("_", "-")


def boolean(text: str) -> bool | None:
    """Go's strconv.ParseBool; None when it would refuse the text."""
    return True if text in _TRUE else False if text in _FALSE else None
