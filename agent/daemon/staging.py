"""Which policy this node uses while a changed one is rolled out, and what of that outlives the process.

On the node's disk: the last policy that was accepted, and how far the next one is. Without them, or without a copy of
profiles that have changed since, the node has no last policy: it takes what there is, and reports that. The decisions
are agent/rollout's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import structlog

from agent import config as configuration
from agent.config import Config
from agent.config.groups import Rollout
from agent.controls.manifest import STATE_FOLDER
from agent.daemon import profile_copies
from agent.daemon.profile_copies import Digests, ProfileCopies
from agent.errors import ConfigError, HostError, HostFileMissing
from agent.host import Host
from agent.report.node_status import NodeView
from agent.rollout import decision, reports
from agent.rollout.decision import Assessment, Observation, Pending, Phase, Step, Verdict

LAST_GOOD = f"{STATE_FOLDER}/config.last-good.yaml"
STATE = f"{STATE_FOLDER}/rollout.json"


@dataclass(frozen=True, slots=True)
class Document:
    """A valid policy, before any override. profiles: what its folders of profiles hold. revision: of both."""

    text: str
    config: Config
    profiles: Digests
    revision: str

    @classmethod
    def of(cls, text: str, file: str, profiles: Digests | None = None) -> Document:
        """profiles: None for what the folders hold now. Raises ConfigError."""
        config = configuration.loads(text, file)
        found = profile_copies.digests(config) if profiles is None else profiles
        return cls(text, config, found, profile_copies.revision(config, found))


Reader = Callable[[str, str, Digests | None], Document]
"""What a policy's text means; see `Document.of`."""


class Staging:
    """Safe for several threads: the loop reads policies, another thread polls the canaries."""

    def __init__(self, host: Host, wall: Callable[[], float] = time.time, read: Reader = Document.of) -> None:
        self._host, self._wall, self._read, self._copies = host, wall, read, ProfileCopies(host)
        self._log = structlog.get_logger()
        self._lock = threading.RLock()
        self._accepted: Document | None = None
        self._is_loaded = False
        self._rollout = Rollout()
        self._pending: Pending | None = None
        self._promoted = ""  # the revision that may be accepted when it is read the next time
        self._own = Assessment()
        self._running = ""
        self._is_canary = False
        self._ended = False
        self._kept = ""  # what the state's file holds
        self._is_accepted_kept = True

    @property
    def pending(self) -> tuple[Pending, Rollout] | None:
        """What is held back, and how it is rolled out."""
        with self._lock:
            return None if self._pending is None else (self._pending, self._rollout)

    def held_back(self) -> str:
        """Why this node keeps its last policy although there is another one; empty when it does not."""
        with self._lock:
            pending = self._pending
            return pending.phase.value if pending is not None and self._running != pending.target else ""

    @property
    def runs_aborted(self) -> bool:
        """Whether this node still runs a policy that a user aborted."""
        with self._lock:
            pending = self._pending
            return pending is not None and pending.phase is Phase.ABORTED and self._running == pending.target

    @property
    def places(self) -> Mapping[str, str]:
        """Copies that the controls read in place of folders of profiles: those that were accepted with the policy.

        Without canaries, and while this node tries a policy, they read the folders themselves.
        """
        with self._lock:
            accepted = self._accepted
            if not self._rollout.canary or accepted is None or self._running != accepted.revision:
                return {}
            return self._copies.places(accepted.profiles)

    def accepted(self) -> Document | None:
        """The last policy that was accepted on this node, which is in force while no other can be read."""
        with self._lock:
            self._load()
            if self._accepted is not None:
                if not self._is_at_hand(self._accepted):
                    self._accepted = self._read(self._accepted.text, LAST_GOOD, None)
                self._rollout, self._running = self._accepted.config.rollout, self._accepted.revision
            return self._accepted

    def choose(self, newest: Document, labels: Mapping[str, str]) -> Document:
        """The policy to use, of the one that was just read and the last accepted one."""
        with self._lock:
            self._load()
            was_pending = self._pending is not None
            before, self._rollout = self._accepted, newest.config.rollout
            accepted = before.revision if before else None
            self._promoted = self._promoted if newest.revision == self._promoted else ""
            accepted = self._promoted or accepted
            self._pending = decision.stage(
                self._pending, newest=newest.revision, accepted=accepted, rollout=self._rollout, now=self._wall()
            )
            self._is_canary = bool(self._rollout.canary) and self._rollout.canary.matches(labels)
            chosen = newest
            holds = self._pending is not None and not decision.runs_pending(self._pending, is_canary=self._is_canary)
            if holds and before is not None and not self._is_at_hand(before):
                self._log.warning("policy_not_held_back", revision=newest.revision, last=before.revision)
                self._pending = None
            if self._pending is None:
                self._ended = self._ended or (was_pending and self._is_canary)
                self._accepted, self._promoted, self._is_accepted_kept = newest, "", False
            elif holds and before is not None:
                chosen = before
            self._running = chosen.revision
            self._keep()
            return chosen

    def ended(self) -> bool:
        """Whether a rollout ended on this canary since this was last called."""
        with self._lock:
            ended, self._ended = self._ended, False
            return ended

    def judge(self, *, failed: Collection[str], unknown: Collection[str]) -> bool:
        """Takes the result of a pass; whether the policy that is being tried has just been found to fail here."""
        with self._lock:
            tried = self._pending is not None and self._running == self._pending.target
            if not self._running:
                return False
            before, self._own = (
                self._own,
                decision.judge(self._own, self._running, failed=failed, unknown=unknown, tried=tried, now=self._wall()),
            )
            self._keep()
            was_failed = before.verdict is Verdict.FAILED and before.revision == self._running
            return tried and self._is_canary and self._own.verdict is Verdict.FAILED and not was_failed

    def observe(self, target: str, seen: Observation | None) -> Step | None:
        """Takes a poll of the canaries of a policy; None: it is held back no more, and the poll has no effect."""
        with self._lock:
            if self._pending is None or self._pending.target != target:
                return None
            step = decision.decide(self._pending, self._rollout.soak, seen, self._wall())
            self._pending = step.pending
            if step.take:
                self._promoted = target
            self._keep()
            return step

    def show(self, offer: Callable[[str, NodeView], None]) -> None:
        """Offers what the Node should show of it; offers of two threads come in the order of what they are about."""
        with self._lock:
            uses = bool(self._rollout.canary)
            offer("rollout", reports.view(
                self._running, self._pending, self._own, is_canary=self._is_canary, uses_canaries=uses,
                is_kept=self._is_accepted_kept,
            ))  # fmt: skip

    def _is_at_hand(self, document: Document) -> bool:
        return self._copies.is_at_hand(document.config, document.profiles)

    def _keep(self) -> None:
        """Writes what a restart needs; what the disk does not take is tried again after each pass."""
        accepted = self._accepted
        if accepted is not None and not self._is_accepted_kept:
            copied = self._wrote(profile_copies.COPIES, lambda: self._copies.keep(accepted.profiles))
            self._is_accepted_kept = self._replace(LAST_GOOD, accepted.text) and copied
        text = reports.written(self._pending, self._own)
        is_news = self._pending is not None or self._own != Assessment() or self._kept
        if text != self._kept and is_news and self._replace(STATE, text):
            self._kept = text

    def _replace(self, path: str, text: str) -> bool:
        return self._wrote(path, lambda: self._host.write(path, text.encode(), mode=0o600))

    def _wrote(self, path: str, write: Callable[[], object]) -> bool:
        """Whether it succeeded; a failure is logged."""
        try:
            write()
        except (OSError, HostError) as error:
            self._log.warning("policy_state_not_kept", path=path, error=str(error))
            return False
        return True

    def _load(self) -> None:
        if self._is_loaded:
            return
        self._is_loaded = True
        try:
            self._accepted = self._read(self._host.read_text(LAST_GOOD), LAST_GOOD, self._profiles())
            self._kept = self._host.read_text(STATE, limit_bytes=reports.STATE_LIMIT_BYTES)
            self._pending, self._own = reports.remembered(self._kept)
        except HostFileMissing:
            return
        except (ConfigError, HostError, ValueError) as error:
            self._log.warning("policy_state_unreadable", error=str(error))

    def _profiles(self) -> Digests | None:
        """What was accepted with the last policy; what is there now, where an agent without copies accepted it."""
        try:
            return self._copies.accepted()
        except (HostError, ValueError) as error:
            self._log.warning("policy_state_unreadable", error=str(error))
            return {}
