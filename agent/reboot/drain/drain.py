"""Emptying this node, a step at a time: list and watch its pods, evict what has to go, name what stands in the way.

The stages: pods that must finish are waited for; workloads are evicted, then critical and storage pods; then the
volumes' detaching is waited for. Nothing here needs to be remembered: a new process sees which pods are left and
continues. It refuses to start while a pod would have to go that the policy does not allow (as kubectl does), to touch a
pod by its name alone, and to hammer: a refusal is tried again by the queue's pace.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import assert_never

from agent.config.schema import Drain as DrainPolicy
from agent.errors import KubeError
from agent.kube import DAEMONSETS, PODS, Eviction, Kube, Outcome, field_selector
from agent.kube.errors import Conflict, Forbidden, Invalid, NotFound, ServerError
from agent.reboot.drain.eviction_queue import Entry, EvictionQueue
from agent.reboot.drain.filters import (
    DrainAction,
    DrainDecision,
    Pod,
    decide_pod,
    depends_on_daemonset,
    describe_termination,
    pod_of,
    requested_grace,
)
from agent.reboot.drain.informer import ResourceInformer
from agent.reboot.drain.pdb import Budget, Budgets, misconfigured
from agent.reboot.drain.volumes import VolumeAttachments
from agent.reboot.interfaces import Clock, DrainMode, Progress
from agent.reboot.status import BudgetRef
from agent.text import sanitize

_CALL_SECONDS = 8.0
_STEP_SECONDS = 4.0
_SYNC_SECONDS = 5.0
_NAMES_SHOWN = 10
_IDLE_SECONDS = 2.0  # while pods terminate: nothing to do, and the watch reports when the last one is gone
_LONGEST_SECONDS = 15.0
_RACE_SECONDS = 1.0
_TROUBLE_SECONDS = 5.0
_DENIED_SECONDS = 15.0
_NAMESPACE_SECONDS = 30.0
_OVERDUE_SECONDS = 5.0  # past its grace period a pod should be gone; the kubelet needs a moment

_RETURNED = DrainDecision(DrainAction.KEEP, "placed here again by its owner in spite of the cordon (ignored)")


class NodeDrain:
    """Drains one node; satisfies interfaces.Drain. For one thread; `wake` is called from the watches'."""

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
        """wake: called when another step is worthwhile: pods or volumes are gone, or a budget allows a disruption."""
        self._policy = policy
        self._kube = kube.within(_CALL_SECONDS)
        self._watching_kube = kube
        self._node = node
        self._clock = clock
        self._chance = chance
        self._wake = wake
        self._budgets = Budgets(kube, self._ring)
        self._pods: ResourceInformer[Pod] | None = None
        self._volumes: VolumeAttachments | None = None
        self._start_over()

    def _start_over(self) -> None:
        self._queue = EvictionQueue(self._chance)
        self._first: frozenset[str] | None = None
        self._awaited: set[str] = set()
        self._waits_for_finish = False
        self._daemonsets = DaemonSets(self._kube)
        self._late: dict[tuple[str, str], set[str]] = {}
        self._returned: dict[str, str] = {}
        self._terminating: dict[str, float] = {}
        self._waiting_since: float | None = None
        self._volumes_since: float | None = None
        self._volumes_seen: set[str] = set()
        self._is_deleting = False
        self._namespaces: set[str] = set()
        self._has_changed = False

    def reset(self) -> None:
        """Ends the watches and forgets everything."""
        if self._pods is not None:
            self._pods.close()
        if self._volumes is not None:
            self._volumes.close()
        self._pods = self._volumes = None
        self._budgets.close()
        self._start_over()

    def has_changed(self) -> bool:
        """See interfaces.Drain."""
        return self._has_changed

    def step(self, mode: DrainMode, may_continue: Callable[[], bool]) -> Progress:
        """See interfaces.Drain. Raises KubeError, also while the API server is away."""
        self._has_changed = False
        pods = self._informer().items(_SYNC_SECONDS)
        if pods is None:
            return self._progress((), wait_seconds=0.5, is_known=False)
        self._first = frozenset(pods) if self._first is None else self._first
        going, refused = self._decide_all(pods)
        self._queue.update(going, self._clock.monotonic())
        self._namespaces.update(pod.namespace for pod in going.values())
        if mode is DrainMode.DELETE and not self._is_deleting:
            self._is_deleting = True
            self._queue.begin_deleting()
        lines = tuple(sorted(refused.values()))
        if self._first & refused.keys():
            return self._progress(lines, wait_seconds=_LONGEST_SECONDS)
        unfinished = self._unfinished(going) if mode is DrainMode.EVICT else {}
        self._waits_for_finish = bool(unfinished)
        self._awaited = set(unfinished or self._queue.current_wave())
        if unfinished:
            return self._waiting(unfinished)
        self._queue.refresh_budgets(self._budgets.current, self._clock.monotonic())
        if not self._evict_due(mode, may_continue):
            return self._progress(lines, wait_seconds=0.0)
        if not going and not refused:
            return self._detached(pods)
        due = self._queue.next_due(self._clock.monotonic()) if mode is DrainMode.EVICT else _IDLE_SECONDS
        longest = _IDLE_SECONDS if self._queue.is_emptying else _LONGEST_SECONDS
        return self._progress(lines, wait_seconds=min(due, longest))

    def _informer(self) -> ResourceInformer[Pod]:
        if self._pods is None or self._pods.is_over:
            follow = self._watching_kube.follow(
                PODS,
                label_selector=str(self._policy.pod_selector),
                field_selector=field_selector({"spec.nodeName": self._node}),
            )
            self._pods = ResourceInformer(follow, lambda found: pod_of(found, self._policy), self._pod_changed)
        return self._pods

    # -- which pods ------------------------------------------------------------------------------------------------

    def _decide_all(self, pods: Mapping[str, Pod]) -> tuple[dict[str, Pod], dict[str, str]]:
        """The pods that have to go, and by UID a line for each that has to and must not."""
        going: dict[str, Pod] = {}
        refused: dict[str, str] = {}
        now = self._clock.monotonic()
        self._terminating = {
            uid: self._terminating.get(uid, now)
            for uid, pod in pods.items()
            if pod.terminating_since is not None or uid in self._terminating
        }
        for uid, pod in pods.items():
            decision = self._decide(pod, pods, now)
            if decision.action is DrainAction.EVICT:
                going[uid] = pod
            elif decision.action is DrainAction.REFUSE:
                refused[uid] = f"{pod.full_name}: {decision.why}"
            elif decision is _RETURNED:
                self._returned[uid] = pod.full_name
        self._returned = {uid: name for uid, name in self._returned.items() if uid in pods}
        return going, refused

    def _decide(self, pod: Pod, pods: Mapping[str, Pod], now: float) -> DrainDecision:
        is_late = self._first is not None and pod.uid not in self._first
        decision = decide_pod(
            pod,
            self._policy,
            daemonset_exists=self._daemonsets.exists(pod),
            terminating_seconds=now - self._terminating.get(pod.uid, now),
            is_late=is_late,
        )
        if not is_late or pod.finished or decision.action is DrainAction.KEEP:
            return decision
        # Late pods may have been bound while the node was being cordoned; one that replaces a late pod was not.
        late = self._late.setdefault(pod.owner, set())
        if pod.uid not in late and late <= pods.keys():
            late.add(pod.uid)
        return decision if pod.uid in late else _RETURNED

    # -- waiting ---------------------------------------------------------------------------------------------------

    def _unfinished(self, going: Mapping[str, Pod]) -> dict[str, Pod]:
        """Pods that have to finish by themselves, until `drain.waitFor.timeout`."""
        found = {uid: pod for uid, pod in going.items() if pod.must_finish and not pod.finished}
        if not found:
            return {}
        now = self._clock.monotonic()
        self._waiting_since = now if self._waiting_since is None else self._waiting_since
        timeout = self._policy.wait_for.timeout
        return {} if timeout and now - self._waiting_since >= timeout else found

    def _waiting(self, unfinished: Mapping[str, Pod]) -> Progress:
        pods = sorted(unfinished.values(), key=lambda pod: pod.full_name)
        lines = tuple(f"{pod.full_name} must finish first ({pod.must_finish})" for pod in pods[:_NAMES_SHOWN])
        return self._progress(
            (), wait_seconds=self._until(self._waiting_since, self._policy.wait_for.timeout), waiting=lines
        )

    def _until(self, since: float | None, timeout: float) -> float:
        """Seconds to wait for a deadline that began then; a timeout of 0 is none."""
        rest = timeout - (self._clock.monotonic() - since) if since is not None and timeout else _LONGEST_SECONDS
        return min(max(rest, 0.0), _LONGEST_SECONDS)

    def _detached(self, pods: Mapping[str, Pod]) -> Progress:
        """No pod is left to evict: done, or waiting for the volumes until `drain.volumeTimeout`."""
        timeout = self._policy.volume_timeout
        if timeout <= 0:
            return self._progress((), wait_seconds=_LONGEST_SECONDS)
        now = self._clock.monotonic()
        self._volumes_since = now if self._volumes_since is None else self._volumes_since
        is_late = now - self._volumes_since >= timeout
        if self._volumes is None:
            self._volumes = VolumeAttachments(self._watching_kube, self._node, self._ring)
        try:
            left = self._volumes.left({f"{pod.namespace}/{claim}" for pod in pods.values() for claim in pod.claims})
        except KubeError as error:
            left = None
            if is_late or isinstance(error, Forbidden):
                line = f"volume attachments unknown: {sanitize(str(error))}"
                return self._progress((line,), wait_seconds=_LONGEST_SECONDS, is_known=is_late, is_late=is_late)
        if left is None:
            return self._progress((), wait_seconds=_IDLE_SECONDS, is_known=is_late)
        self._volumes_seen.update(left)
        wait = self._until(self._volumes_since, timeout)
        return self._progress((), wait_seconds=wait, volumes=left, is_late=is_late)

    # -- acting ----------------------------------------------------------------------------------------------------

    def _evict_due(self, mode: DrainMode, may_continue: Callable[[], bool]) -> bool:
        """Removes what is due; False when it stopped early, because the lock may be old or the step takes long."""
        started = self._clock.monotonic()
        while (entry := self._next(mode)) is not None:
            if not may_continue():
                return False
            self._remove(entry, mode)
            if self._clock.monotonic() - started > _STEP_SECONDS:
                return False
        return True

    def _next(self, mode: DrainMode) -> Entry | None:
        now = self._clock.monotonic()
        if mode is DrainMode.DELETE:
            return self._queue.next_to_delete(now, shortens_grace=self._policy.grace_period is not None)
        return self._queue.next_to_evict(now)

    def _remove(self, entry: Entry, mode: DrainMode) -> None:
        """One request about one pod; what it means is noted. Raises KubeError where the answer is not about the pod."""
        queue, pod = self._queue, entry.pod
        entry.asked(self._clock.monotonic())
        grace = requested_grace(self._policy)
        try:
            if mode is DrainMode.DELETE:
                self._kube.delete(PODS, pod.name, pod.namespace, uid=pod.uid, grace_seconds=grace)
                entry.is_deleted = True
                self._accepted(entry, self._clock.monotonic())
            else:
                self._note(entry, self._kube.evict(pod.name, pod.namespace, uid=pod.uid, grace_seconds=grace))
        except NotFound:
            queue.vanished(entry, self._clock.monotonic())
        except Conflict as error:
            if "UID" in error.message:
                queue.vanished(entry, self._clock.monotonic())
            else:
                queue.defer(entry, _RACE_SECONDS, self._clock.monotonic())
        except (Forbidden, Invalid) as error:
            # RBAC, admission: the same answer to the same request until the rules change.
            why = f"{pod.full_name} may not be removed: {sanitize(error.message)}"
            queue.mark_permanent(entry, why, self._clock.monotonic())
        except ServerError as error:
            trouble = f"{pod.full_name}: the API server fails: {sanitize(error.message)}"
            queue.defer(entry, _TROUBLE_SECONDS, self._clock.monotonic(), trouble)

    def _note(self, entry: Entry, eviction: Eviction) -> None:
        queue, pod, now = self._queue, entry.pod, self._clock.monotonic()
        asked = eviction.retry_after_seconds
        match eviction.outcome:
            case Outcome.EVICTED:
                self._accepted(entry, now)
            case Outcome.GONE | Outcome.REPLACED:
                queue.vanished(entry, now)
            case Outcome.BLOCKED:
                queue.refused(entry, self._budget(pod, eviction.budget), now, asked)
            case Outcome.MISCONFIGURED:
                queue.mark_permanent(entry, misconfigured(pod, self._budgets.over(pod)), now)
            case Outcome.DENIED:
                queue.defer(entry, asked or _DENIED_SECONDS, now, f"{pod.full_name}: {sanitize(eviction.message)}")
            case Outcome.THROTTLED:
                entry.next_at = now
                queue.pause_until = now + (asked or 1.0) * self._chance.uniform(1.0, 1.5)
            case Outcome.TERMINATING_NAMESPACE:
                queue.defer(entry, _NAMESPACE_SECONDS, now)
            case _ as never:
                assert_never(never)

    def _accepted(self, entry: Entry, now: float) -> None:
        self._queue.accepted(entry, now)
        self._terminating.setdefault(entry.pod.uid, now)

    def _budget(self, pod: Pod, name: str) -> Budget:
        """The budget that refused; where the API server does not name it, the one that covers the pod."""
        if not name:
            covering = self._budgets.over(pod)
            name = covering[0].name if len(covering) == 1 else ""
        return self._budgets.watch(pod.namespace, name) if name else Budget(pod.namespace, "(unnamed budget)")

    # -- in the watches' threads -------------------------------------------------------------------------------------

    def _pod_changed(self, uid: str, pod: Pod | None) -> None:
        """The last pod that was waited for wakes the coordinator."""
        awaited = self._awaited
        if uid in awaited and (pod is None or (self._waits_for_finish and pod.finished)):
            awaited.discard(uid)
            if not awaited:
                self._ring()

    def _ring(self) -> None:
        self._has_changed = True
        self._wake()

    # -- reporting ---------------------------------------------------------------------------------------------------

    def _progress(
        self,
        refused: tuple[str, ...],
        *,
        wait_seconds: float,
        is_known: bool = True,
        waiting: tuple[str, ...] = (),
        volumes: tuple[str, ...] = (),
        is_late: bool = False,
    ) -> Progress:
        """is_late: what is left now is left behind."""
        queue = self._queue
        entries = sorted(queue.entries.values(), key=lambda entry: entry.pod.full_name)
        budgets = [one.budget for one in queue.pdb_queues.values()]
        refusals = [*waiting, *(line for entry in entries if (line := entry.trouble or self._overdue(entry.pod)))]
        seconds, slowest = queue.slowest
        names = [*(entry.pod.full_name for entry in entries), *(line.partition(": ")[0] for line in refused), *volumes]
        return Progress(
            total=len(queue.seen | self._volumes_seen) + len(refused),
            left=len(names),
            evicted=len(queue.evicted),
            waiting_for=tuple(names[:_NAMES_SHOWN]),
            blocked_by=(*map(str, budgets), *refusals)[:_NAMES_SHOWN],
            misconfigured=(*refused, *(entry.permanent for entry in entries if entry.permanent))[:_NAMES_SHOWN],
            done=is_known and (is_late or not names),
            slowest=f"{slowest} {seconds:.0f} s" if slowest else "",
            wait_seconds=wait_seconds,
            mode=DrainMode.DELETE if self._is_deleting else DrainMode.EVICT,
            namespaces=frozenset(self._namespaces),
            budgets=tuple(BudgetRef(one.namespace, one.name, one.owner) for one in budgets[:_NAMES_SHOWN]),
            returned=tuple(sorted(self._returned.values())[:_NAMES_SHOWN]),
        )

    def _overdue(self, pod: Pod) -> str:
        """A pod that should be gone: how long it has been terminating, and which finalizer holds it."""
        since = self._terminating.get(pod.uid)
        if since is None or pod.terminating_since is None:
            return ""
        if self._clock.monotonic() - since <= pod.grace_seconds + _OVERDUE_SECONDS:
            return ""
        return f"{pod.full_name}: {describe_termination(pod)}"


class DaemonSets:
    """Which DaemonSets of pods exist: one GET a DaemonSet and drain."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._known: dict[str, bool] = {}

    def exists(self, pod: Pod) -> bool:
        """Whether the DaemonSet exists that the decision about the pod depends on. Raises KubeError."""
        owner = pod.controller
        if owner is None or not depends_on_daemonset(pod):
            return False
        if owner.uid not in self._known:
            self._known[owner.uid] = self._kube.find(DAEMONSETS, owner.name, pod.namespace) is not None
        return self._known[owner.uid]
