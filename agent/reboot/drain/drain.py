"""Emptying this node, a step at a time: list and watch its pods, evict what has to go, say who stands in the way.

Nothing here needs to be remembered: a new process sees which pods are left and goes on. It refuses to touch anything
while a pod would have to go that the policy does not allow (as kubectl does), to touch a pod by its name alone, to
follow a workload that comes back for ever, and to hammer: a refusal is tried again by the ledger's pace.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import assert_never

from agent.config.schema import Drain as DrainPolicy
from agent.kube import DAEMONSETS, PODS, Eviction, Kube, Outcome
from agent.kube.errors import Conflict, Forbidden, Invalid, NotFound, ServerError
from agent.reboot.drain.eviction_queue import Entry, EvictionQueue
from agent.reboot.drain.filters import Controller, Fate, Judgement, Pod, asks_daemon, grace_seconds, judge
from agent.reboot.drain.pdb import Budget, Budgets, misconfigured
from agent.reboot.drain.pod_informer import PodWatch
from agent.reboot.ports import Clock, DrainMode, Progress
from agent.text import sanitize

_CALL_SECONDS = 8.0
_STEP_SECONDS = 4.0
_SYNC_SECONDS = 5.0
_NAMES_SHOWN = 10
_IDLE_SECONDS = 2.0  # while pods terminate: nothing to do, and the watch tells when the last one is gone
_LONGEST_SECONDS = 5.0
_COMEBACKS = 5  # late pods of one owner that are evicted; more is a workload that ignores the cordon
_RACE_SECONDS = 1.0
_TROUBLE_SECONDS = 5.0
_NAMESPACE_SECONDS = 30.0


class NodeDrain:
    """Drains one node; satisfies ports.Drain. For one thread; `wake` is called from the watch's."""

    def __init__(
        self,
        policy: DrainPolicy,
        kube: Kube,
        *,
        node: str,
        clock: Clock,
        chance: random.Random,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """wake: called when the last pod that is waited for has gone, so that nobody has to look for it."""
        self._policy = policy
        self._kube = kube.within(_CALL_SECONDS)
        self._watching_kube = kube
        self._node = node
        self._clock = clock
        self._chance = chance
        self._wake = wake
        self._budgets = Budgets(self._kube)
        self._watch: PodWatch | None = None
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._ledger = EvictionQueue(self._chance)
        self._first: frozenset[str] | None = None
        self._awaited: set[str] = set()
        self._daemons: dict[str, bool] = {}
        self._came_late: Counter[tuple[str, str]] = Counter()
        self._late: set[str] = set()
        self._is_deleting = False
        self._has_emptied = False

    def reset(self) -> None:
        """Ends the watch and forgets everything."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        self._budgets.forget()
        self._begin_anew()

    def emptied(self) -> bool:
        """See ports.Drain."""
        return self._has_emptied

    def step(self, mode: DrainMode, may_go_on: Callable[[], bool]) -> Progress:
        """See ports.Drain. Raises KubeError, also while the API server is away."""
        self._has_emptied = False
        if self._watch is None or self._watch.is_over:
            selector = str(self._policy.pod_selector)
            self._watch = PodWatch(self._watching_kube, self._node, selector, self._gone)
        pods = self._watch.pods(_SYNC_SECONDS)
        if pods is None:
            return self._progress((), wait_seconds=0.5, is_known=False)
        if self._first is None:
            self._first = frozenset(pods)
        going, refused = self._judge(pods)
        self._ledger.update(going, self._clock.monotonic())
        self._awaited = set(going)
        if mode is DrainMode.DELETE and not self._is_deleting:
            self._is_deleting = True
            self._ledger.begin_deleting()
        if refused:
            return self._progress(refused, wait_seconds=_LONGEST_SECONDS)
        started = self._clock.monotonic()
        while (entry := self._next(mode)) is not None:
            if not may_go_on():
                return self._progress((), wait_seconds=0.0)
            self._remove(entry, mode)
            if self._clock.monotonic() - started > _STEP_SECONDS:
                return self._progress((), wait_seconds=0.0)
        due = self._ledger.next_due(self._clock.monotonic()) if mode is DrainMode.EVICT else _IDLE_SECONDS
        longest = _IDLE_SECONDS if self._ledger.is_emptying else _LONGEST_SECONDS
        return self._progress((), wait_seconds=min(due, longest))

    # -- which pods ------------------------------------------------------------------------------------------------

    def _judge(self, pods: Mapping[str, Pod]) -> tuple[dict[str, Pod], tuple[str, ...]]:
        """The pods that have to go, and a line for each that has to and must not."""
        going: dict[str, Pod] = {}
        refused: list[str] = []
        now = self._clock.wall()
        for uid, pod in pods.items():
            judgement = self._fate(pod, now)
            if judgement.fate is Fate.GO:
                going[uid] = pod
            elif judgement.fate is Fate.REFUSED:
                refused.append(f"{pod.full_name}: {judgement.why}")
        return going, tuple(sorted(refused))

    def _fate(self, pod: Pod, now: float) -> Judgement:
        is_late = self._first is not None and pod.uid not in self._first
        judgement = judge(pod, self._policy, now, daemon_is_there=self._daemon_is_there(pod), is_late=is_late)
        if judgement.fate is Fate.GO and is_late and pod.uid not in self._late:
            self._late.add(pod.uid)
            self._came_late[_owner(pod)] += 1
        if judgement.fate is Fate.GO and pod.uid in self._late and self._came_late[_owner(pod)] > _COMEBACKS:
            return Judgement(Fate.REFUSED, "its owner makes pods on this node in spite of the cordon")
        return judgement

    def _daemon_is_there(self, pod: Pod) -> bool:
        """Asked once a DaemonSet and drain. Raises KubeError."""
        if not asks_daemon(pod) or pod.controller is None:
            return False
        known = self._daemons.get(pod.controller.uid)
        if known is None:
            known = self._daemons[pod.controller.uid] = daemon_is_there(self._kube, pod.namespace, pod.controller)
        return known

    # -- acting ----------------------------------------------------------------------------------------------------

    def _next(self, mode: DrainMode) -> Entry | None:
        now = self._clock.monotonic()
        if mode is DrainMode.DELETE:
            return self._ledger.next_to_delete(now, shortens_grace=self._policy.grace_period is not None)
        return self._ledger.next_to_evict(now)

    def _remove(self, entry: Entry, mode: DrainMode) -> None:
        """One request about one pod; what it means is noted. Raises KubeError where it says nothing about the pod."""
        ledger, pod = self._ledger, entry.pod
        entry.asked(self._clock.monotonic())
        grace = grace_seconds(self._policy)
        try:
            if mode is DrainMode.DELETE:
                self._kube.delete(PODS, pod.name, pod.namespace, uid=pod.uid, grace_seconds=grace)
                entry.is_deleted = True
                ledger.accepted(entry, self._clock.monotonic())
            else:
                self._note(entry, self._kube.evict(pod.name, pod.namespace, uid=pod.uid, grace_seconds=grace))
        except NotFound:
            ledger.vanished(entry, self._clock.monotonic())
        except Conflict as error:
            if "UID" in error.message:
                ledger.vanished(entry, self._clock.monotonic())
            else:
                ledger.postponed(entry, _RACE_SECONDS, self._clock.monotonic())
        except (Forbidden, Invalid) as error:
            # RBAC, admission: the same answer to the same question, until somebody changes the rules.
            ledger.mark_permanent(
                entry, f"{pod.full_name} may not be removed: {sanitize(error.message)}", self._clock.monotonic()
            )
        except ServerError as error:
            trouble = f"{pod.full_name}: the API server fails: {sanitize(error.message)}"
            ledger.postponed(entry, _TROUBLE_SECONDS, self._clock.monotonic(), trouble)

    def _note(self, entry: Entry, eviction: Eviction) -> None:
        ledger, pod, now = self._ledger, entry.pod, self._clock.monotonic()
        match eviction.outcome:
            case Outcome.EVICTED:
                ledger.accepted(entry, now)
            case Outcome.GONE | Outcome.REPLACED:
                ledger.vanished(entry, now)
            case Outcome.BLOCKED:
                ledger.refused(entry, self._budget(pod, eviction.budget), now, eviction.retry_after_seconds)
            case Outcome.MISCONFIGURED:
                ledger.mark_permanent(entry, misconfigured(pod, self._budgets.over(pod)), now)
            case Outcome.THROTTLED:
                entry.next_at = now
                ledger.pause_until = now + (eviction.retry_after_seconds or 1.0) * self._chance.uniform(1.0, 1.5)
            case Outcome.TERMINATING_NAMESPACE:
                ledger.postponed(entry, _NAMESPACE_SECONDS, now)
            case _ as never:
                assert_never(never)

    def _budget(self, pod: Pod, name: str) -> Budget:
        """The budget that refused; where the API server does not name it, the one that covers the pod."""
        if name:
            return self._budgets.named(pod.namespace, name)
        covering = self._budgets.over(pod)
        return covering[0] if len(covering) == 1 else Budget(pod.namespace, "a budget that is not named")

    def _gone(self, uid: str) -> None:
        """In the watch's thread: the last one that was waited for wakes the coordinator."""
        awaited = self._awaited
        if uid in awaited:
            awaited.discard(uid)
            if not awaited:
                self._has_emptied = True
                self._wake()

    # -- telling ---------------------------------------------------------------------------------------------------

    def _progress(self, refused: tuple[str, ...], *, wait_seconds: float, is_known: bool = True) -> Progress:
        ledger = self._ledger
        entries = sorted(ledger.entries.values(), key=lambda entry: entry.pod.full_name)
        held = [str(one.budget) for one in ledger.held.values()]
        seconds, slowest = ledger.slowest
        left = len(entries) + len(refused)
        return Progress(
            total=len(ledger.seen) + len(refused),
            left=left,
            evicted=len(ledger.evicted),
            waiting_for=tuple(entry.pod.full_name for entry in entries[:_NAMES_SHOWN]),
            blocked_by=(*held, *(entry.trouble for entry in entries if entry.trouble))[:_NAMES_SHOWN],
            misconfigured=(*refused, *(entry.final for entry in entries if entry.final))[:_NAMES_SHOWN],
            done=is_known and left == 0,
            slowest=f"{slowest} {seconds:.0f} s" if slowest else "",
            wait_seconds=wait_seconds,
            mode=DrainMode.DELETE if self._is_deleting else DrainMode.EVICT,
        )


def daemon_is_there(kube: Kube, namespace: str, controller: Controller) -> bool:
    """Whether a DaemonSet exists. Raises KubeError."""
    try:
        kube.get(DAEMONSETS, controller.name, namespace)
    except NotFound as error:
        if error.names_object:
            return False
        raise
    return True


def _owner(pod: Pod) -> tuple[str, str]:
    return pod.namespace, pod.controller.uid if pod.controller else pod.name
