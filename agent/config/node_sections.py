"""Sections of the policy for controls over the operating system: kernel settings, updates, SELinux, metadata access."""

from __future__ import annotations

from dataclasses import dataclass

from agent.config.choices import AuditMode, DenialsMode, Mode
from agent.config.fields import key
from agent.config.scalar_types import Seconds, Words


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlane:
    """Audit of the control plane on its own nodes. Never changes it."""

    mode: AuditMode = key(AuditMode.AUDIT, "audit or off")
    probe: bool = key(True, "check what its ports answer without credentials, and whether anything is allowed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """Audit of certificates and private keys on the node."""

    mode: AuditMode = key(AuditMode.AUDIT, "audit or off")
    warn_before: Seconds = key(2592000.0, "a certificate that ends sooner fails", least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """Audit of versions: support window and skew."""

    mode: AuditMode = key(AuditMode.AUDIT, "audit or off")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sysctl:
    """Kernel settings: the running values and what the node's files set at boot."""

    mode: Mode = key(Mode.AUDIT, "enforce, audit (also reverts what enforce changed) or off")
    leave: tuple[Words, ...] = key((), "settings that are shown only and never set; wildcards such as kernel.perf_*")
    one_way: bool = key(False, "demand settings too that only a reboot undoes (kernel.kexec_load_disabled)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Updates:
    """Audit of the operating system's updates. Never installs, refreshes or reboots anything."""

    mode: AuditMode = key(AuditMode.AUDIT, "audit or off")
    pending_interval: Seconds = key(86400.0, "how often pending security updates are counted; 0: never")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selinux:
    """Audit of SELinux. Never changes it."""

    mode: AuditMode = key(AuditMode.AUDIT, "audit or off")


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataAccess:
    """What pods of this node reach of the cloud's metadata service."""

    mode: Mode = key(Mode.AUDIT, "enforce (an own nftables table), audit (also removes that table) or off")
    probe: bool = key(True, "try one short connection from pods' network namespaces")


@dataclass(frozen=True, slots=True, kw_only=True)
class Denials:
    """What profiles refuse containers, from the kernel's audit records; and recordings for new profiles."""

    mode: DenialsMode = key(DenialsMode.OFF, "observe or off")
    visible: bool = key(False, "make what the shipped profiles refuse leave a record, where the runtime allows it")
    noquiet: bool = key(False, "let deny rules of every AppArmor profile of the node leave a record (audit=noquiet)")
    events: bool = key(False, "Events on the pods that are refused something; needs docs/denial-events.yaml")
    file_names: bool = key(False, "show the first two components of a refused file's path, on the Node only")
