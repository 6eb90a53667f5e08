"""The policy in force: the last valid configuration, also across restarts, merged for the labels of this node.

A configuration that does not validate is refused whole and the last valid one stays in force. A copy is kept on the
node, so that a pod that starts with a broken ConfigMap hardens its node as before.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import structlog

from agent import config as configuration
from agent.config import Config, selector
from agent.config.overrides import matching, merged
from agent.config.selector import Selector
from agent.config.validation import refused
from agent.controls import registry
from agent.daemon import profile_copies
from agent.daemon.node_labels import NodeLabels
from agent.daemon.staging import LAST_GOOD, Document, Reader, Staging
from agent.errors import ConfigError, Problem
from agent.host import Host


@dataclass(frozen=True, slots=True)
class Policy:
    """What is in force on this node. config None: no valid one yet. problem: why the newest was refused, or empty.

    clashes: overrides that match this node contradict each other, and what was valid before is in force. places: copies
    that are read in place of the configuration's folders of profiles.
    """

    config: Config | None
    problem: str = ""
    clashes: bool = False
    places: Mapping[str, str] = field(default_factory=dict)


class PolicyStore:
    """Reads the configuration file, and answers what this node makes of it: by its labels, and when its turn is."""

    def __init__(
        self, path: Path, host: Host, *, explicit: bool, wall: Callable[[], float] = time.time,
        read: Reader | None = None,
    ) -> None:  # fmt: skip
        """explicit: the user named the file, so that it has to exist. read: what a policy's text means."""
        self.path = path
        self.folders: tuple[str, ...] = ()  # of profiles that the newest configuration names, to be watched
        self._explicit = explicit
        self._labels = NodeLabels(host)
        self._read = read or Document.of
        self.staging = Staging(host, wall, self._read)
        self._chosen: Document | None = None
        self._good: Config | None = None
        self._selectors: tuple[Selector, ...] = ()
        self._in_use: tuple[Selector, ...] = ()
        self._reported: tuple[str, ...] = ()
        self._log = structlog.get_logger()

    @property
    def labels(self) -> Mapping[str, str]:
        """Of this node, as they were last seen."""
        return self._labels.known

    def load(self) -> Policy:
        """The current policy. Never raises: errors are in `problem`."""
        problems: tuple[Problem, ...] = ()
        try:
            newest = self._read(configuration.text_of(self.path, explicit=self._explicit), str(self.path), None)
        except ConfigError as error:
            problems = error.problems
            self._chosen = self._chosen or self._last_good()
            self.folders = self.folders or tuple(self._chosen.profiles if self._chosen else ())
        else:
            self._chosen = self.staging.choose(newest, self._labels.known)
            self._selectors = (newest.config.rollout.canary, *_selectors(newest.config))
            self.folders = tuple(newest.profiles)
        clash = self._merge(self._chosen.config) if self._chosen is not None else ()
        problems = problems or clash
        self._report(problems)
        return Policy(self._good, _summary(problems), clashes=bool(clash), places=self.staging.places)

    def _merge(self, config: Config) -> tuple[Problem, ...]:
        """Merges for the labels of this node; answers why that cannot be, with what was valid before in force."""
        chosen = matching(config, self._labels.known)
        names = ", ".join(one.name for one in chosen)
        wrong = tuple(
            Problem(str(self.path), 0, key, f"{message} (overrides {names} together, on this node)")
            for key, message in refused(config, chosen)
        )
        self._good = (self._good or merged(config, ())) if wrong else merged(config, chosen)
        labels = (one.selector.get("labels", "") for one in self._good.exceptions)
        self._in_use = (*_selectors(config), *map(selector.parse, filter(None, labels)))
        return wrong

    def take_labels(self, node: Mapping[str, Any]) -> bool:
        """Takes the labels of the own Node; whether they select something else, so that it has to be loaded again."""
        before = self._matches()
        return self._labels.take(node) and self._matches() != before

    def _matches(self) -> list[bool]:
        return [selector.matches(self._labels.known) for selector in (*self._selectors, *self._in_use)]

    def _last_good(self) -> Document | None:
        found = self.staging.accepted()
        if found is not None:
            self._log.warning("last_good_config_restored", path=LAST_GOOD)
        return found

    def _report(self, problems: tuple[Problem, ...]) -> None:
        shown = tuple(str(problem) for problem in problems)
        if shown and shown != self._reported:
            self._log.error("config_rejected", problems=list(shown))
        self._reported = shown


def _selectors(config: Config) -> Iterator[Selector]:
    return (one.node_selector for one in config.overrides)


def fingerprint(config: Config, places: Mapping[str, str] = MappingProxyType({})) -> str:
    """A short hash of the configuration and of every profile that it uses: what the `policy` annotation shows.

    places: where copies of its folders are read instead.
    """
    seen = hashlib.sha256(configuration.fingerprint(config).encode())
    for folder in registry.profile_folders(config):
        for name, content in profile_copies.contents(places.get(folder, folder)):
            seen.update(profile_copies.record(name, content))
    return seen.hexdigest()[:16]


def _summary(problems: tuple[Problem, ...]) -> str:
    if not problems:
        return ""
    first, more = str(problems[0]), len(problems) - 1
    return f"{first} (and {more} more)" if more else first
