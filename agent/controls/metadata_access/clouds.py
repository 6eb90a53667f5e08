"""Which cloud the node runs in, by its firmware's tables, and what that cloud serves at link-local addresses.

Never guessed: a machine whose firmware names no cloud of the table is on none. Only what pods have no need of is
listed: not the resolvers at port 53 of the same addresses, not ECS' 169.254.170.2, not EKS Pod Identity's .23.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.errors import HostFileMissing
from agent.host import Host
from agent.model import Severity

_DMI = "/sys/class/dmi/id"
_NAMES = ("sys_vendor", "product_name", "bios_version", "chassis_asset_tag")
_VALUE_BYTES = 4096
IMDS = "169.254.169.254"


@dataclass(frozen=True, slots=True)
class Service:
    """One service. ports: the first is tried, enforce refuses all. severity: where a pod reaches it."""

    name: str
    address: str
    ports: tuple[int, ...] = (80,)
    severity: Severity = Severity.HIGH


@dataclass(frozen=True, slots=True)
class Cloud:
    """name: as in findings. evidence: each name of the firmware's tables with what its value has to
    begin with, or end with after a `*` (EC2's Xen machines).
    """

    name: str
    evidence: tuple[Mapping[str, str], ...]
    services: tuple[Service, ...] = (Service("imds", IMDS),)


CLOUDS: tuple[Cloud, ...] = (
    Cloud(
        "AWS", ({"sys_vendor": "Amazon EC2"}, {"sys_vendor": "Xen", "bios_version": "*amazon"}),
        (Service("imds", IMDS), Service("imds-v6", "fd00:ec2::254")),
    ),
    Cloud(
        "Azure", ({"sys_vendor": "Microsoft Corporation", "chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77"},),
        (Service("imds", IMDS), Service("wireserver", "168.63.129.16", (80, 32526), Severity.CRITICAL)),
    ),
    Cloud(
        "Google Cloud", ({"product_name": "Google Compute Engine"},),
        (Service("imds", IMDS), Service("imds-v6", "fd20:ce::254")),
    ),
    Cloud("Oracle Cloud", ({"chassis_asset_tag": "OracleCloud.com"},)),
    Cloud("OpenStack", ({"sys_vendor": "OpenStack Foundation"}, {"product_name": "OpenStack"})),
    Cloud("DigitalOcean", ({"sys_vendor": "DigitalOcean"},)),
    Cloud("Hetzner", ({"sys_vendor": "Hetzner"},)),
    Cloud(
        "Alibaba Cloud", ({"sys_vendor": "Alibaba Cloud"}, {"product_name": "Alibaba Cloud"}),
        (Service("imds", "100.100.100.200"),),
    ),
    Cloud(
        "Tencent Cloud", ({"sys_vendor": "Tencent Cloud"},),
        (Service("imds", IMDS), Service("imds-2", "169.254.0.23")),
    ),
)  # fmt: skip


def recognise(host: Host) -> Cloud | None:
    """The node's cloud. Raises HostFileError where the firmware's tables cannot be read."""
    seen: dict[str, str] = {}
    for name in _NAMES:
        try:
            seen[name] = host.read_text(f"{_DMI}/{name}", limit_bytes=_VALUE_BYTES).strip()
        except HostFileMissing:
            continue
    return next((cloud for cloud in CLOUDS if any(_fits(row, seen) for row in cloud.evidence)), None)


def _fits(row: Mapping[str, str], seen: Mapping[str, str]) -> bool:
    values = ((seen.get(name, ""), required) for name, required in row.items())
    return all(text.endswith(want[1:]) if want[0] == "*" else text.startswith(want) for text, want in values)
