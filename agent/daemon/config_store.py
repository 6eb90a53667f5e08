"""The policy in force: the last valid configuration, also across restarts.

A configuration that does not validate is refused whole and the last valid one stays in force. A copy is kept on the
node, so that a pod that starts with a broken ConfigMap hardens its node as before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from agent import config as configuration
from agent.config import Config
from agent.controls import registry
from agent.controls.manifest import STATE_FOLDER
from agent.errors import ConfigError, HostError, HostFileMissing, Problem
from agent.host import Host

LAST_GOOD = f"{STATE_FOLDER}/config.last-good.yaml"
_PROFILE_LIMIT_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Policy:
    """What is in force. config None: no valid one yet. problem: why the newest was refused, or empty."""

    config: Config | None
    problem: str = ""


class PolicyStore:
    """Reads the configuration file and keeps the last valid one, in memory and on the node."""

    def __init__(self, path: Path, host: Host, *, explicit: bool) -> None:
        """explicit: the user named the file, so that it has to exist."""
        self._path = path
        self._explicit = explicit
        self._host = host
        self._good: Config | None = None
        self._refused: tuple[Problem, ...] = ()
        self._log = structlog.get_logger()

    @property
    def path(self) -> Path:
        """The configuration file."""
        return self._path

    def load(self) -> Policy:
        """The current policy. Never raises: errors are in `problem`."""
        try:
            config = configuration.load_or_default(self._path, explicit=self._explicit)
        except ConfigError as error:
            if error.problems != self._refused:
                self._refused = error.problems
                self._log.error("config_rejected", problems=[str(problem) for problem in error.problems])
            return Policy(self._good or self._last_good_on_node(), _summary(error))
        self._refused = ()
        if config != self._good:
            self._good = config
            self._keep()
        return Policy(config)

    def _keep(self) -> None:
        try:
            text = self._path.read_bytes() if self._path.exists() else b""
            self._host.write(LAST_GOOD, text, mode=0o600)
        except (OSError, HostError) as error:
            # Only a restart with a broken file needs the copy.
            self._log.warning("last_good_config_not_kept", error=str(error))

    def _last_good_on_node(self) -> Config | None:
        try:
            self._good = configuration.loads(self._host.read_text(LAST_GOOD), LAST_GOOD)
        except HostFileMissing:
            return None
        except (ConfigError, HostError) as error:
            self._log.warning("last_good_config_unreadable", error=str(error))
            return None
        self._log.warning("last_good_config_restored", path=LAST_GOOD)
        return self._good


def fingerprint(config: Config) -> str:
    """A short hash of the configuration and of every profile that it uses: what the `policy` annotation shows."""
    seen = hashlib.sha256(configuration.fingerprint(config).encode())
    for folder in registry.profile_folders(config):
        for name, content in _profiles(Path(folder)):
            seen.update(f"\0{name}\0{len(content)}\0".encode())
            seen.update(content)
    return seen.hexdigest()[:16]


def _profiles(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file; a ConfigMap's own dot entries left out."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from ((f"{entry.name}/{name}", content) for name, content in _profiles(entry))
            continue
        try:
            with entry.open("rb") as stream:
                yield entry.name, stream.read(_PROFILE_LIMIT_BYTES)
        except OSError:
            yield entry.name, b"unreadable"


def _summary(error: ConfigError) -> str:
    first = str(error.problems[0])
    more = len(error.problems) - 1
    return f"{first} (and {more} more)" if more else first
