"""Which installed kernel the running one is compared with: the newest of its own flavour.

`6.8.0-45-generic` is not older than `6.8.0-1015-aws`: they are different packages. Versions are ranked as RPM does,
number by number and a number before letters: `362.8.1.el9_3` is newer than `362.el9`. Pure but for the listing.
"""

from __future__ import annotations

import re

from agent.errors import HostFileMissing
from agent.host import Host

_PART = re.compile(r"[0-9]+|[A-Za-z]+")
_MODULES = "/lib/modules"


def installed(host: Host) -> tuple[str, ...]:
    """Releases whose kernel and modules are both there. Raises HostFileError."""
    try:
        names = host.names(_MODULES)
    except HostFileMissing:
        return ()
    images = (f"{_MODULES}/{{0}}/vmlinuz", "/boot/vmlinuz-{0}", "/boot/vmlinux-{0}", "/boot/Image-{0}")
    return tuple(name for name in names if any(host.is_file(image.format(name)) for image in images))


def newest_like(running: str, releases: tuple[str, ...]) -> str | None:
    """The newest release of the running kernel's flavour; None when there is none."""
    return max((one for one in releases if flavour(one) == flavour(running)), key=rank, default=None)


def flavour(release: str) -> tuple[str, ...]:
    """The words of a release without its numbers: `6.1.0-18-cloud-amd64` is cloud, amd."""
    return tuple(part for part in _PART.findall(release) if not part.isdigit())


def rank(release: str) -> tuple[tuple[int, int, str], ...]:
    """What orders releases of one flavour."""
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in _PART.findall(release[:200]))
