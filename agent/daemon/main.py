"""One process of `run`: its threads, its signals, and how it ends.

Four threads never wait for each other: the loop hardens the node, the publisher writes to the Node, a watch passes
changes of the Node to the others, and the coordinator reboots. One more polls the canaries while a changed policy is
held back, and with `denials` one reads audit records. It ends within five seconds: every write is atomic, so
interrupting one is safe.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from agent.config.schema import Config
from agent.controls import registry
from agent.daemon.config_store import PolicyStore
from agent.daemon.delivery_log import DeliveryLog
from agent.daemon.denials_thread import DenialsThread
from agent.daemon.loop import Daemon
from agent.daemon.reboot_thread import Reboots
from agent.daemon.rollout_thread import Rollouts
from agent.daemon.signals import Signals
from agent.host import Host
from agent.kube import ClientContext, EventType, Kube, RequestMetric
from agent.kube.credentials import Access
from agent.kube.kubelet import KubeletConfigz
from agent.kube.questions import Questions
from agent.kube.resources import NODES
from agent.reboot.kube.informer import ObjectCache
from agent.report.api import KubeReport
from agent.report.events import Recorder
from agent.report.http import StatusServer
from agent.report.metrics import Metrics
from agent.report.publisher import NodePublisher

if TYPE_CHECKING:
    from agent.denials.observer import Sources

_END_WITHIN_SECONDS = 4.0
_LONGEST_RESTART_SECONDS = 60.0


def serve(
    host: Host, node: str, access: Access, store: PolicyStore, *, address: str, namespace: str, node_address: str = "",
    kernel: Callable[[], Sources] | None = None,
) -> int:  # fmt: skip
    """Runs until SIGTERM or SIGINT; answers the exit code. SIGHUP reads the configuration again.

    address: where /metrics and the probes are served, empty for nowhere. namespace: the agent's own, where the reboot
    locks are. node_address: where the node's own kubelet is asked for its configuration; empty: it is not. kernel: of
    which audit records are read; None: the node's own. Raises UsageError when the address is taken.
    """
    stop = threading.Event()
    log = structlog.get_logger()
    metrics = Metrics()
    metrics.held_back.reason = store.staging.held_back
    around = ClientContext(stop=stop, log=log, on_request=lambda exchange: _count(metrics, exchange))
    kube = Kube(access, node=node, around=around)
    api = KubeReport(kube, node)
    delivered = DeliveryLog(host)
    publisher = NodePublisher(
        api, Recorder(api, node, time.time, metrics.events_dropped.inc, delivered), node, wall=time.time, stop=stop,
        alive=lambda: daemon.healthy()[0], on_heartbeat=metrics.heartbeat.set,
    )  # fmt: skip
    configz = KubeletConfigz(access, node, node_address, clock=time.monotonic, log=log) if node_address else None
    questions = Questions(kube, access, node, clock=time.monotonic)
    reboots = Reboots(host, kube, publisher, metrics, node=node, namespace=namespace, stop=stop, delivered=delivered)
    denials = DenialsThread(host, publisher, metrics, lambda target: supervise(target, stop), kernel)

    def on_config(config: Config) -> None:
        reboots.configure(config)
        denials.configure(config)

    def on_pass(failing: int) -> None:
        reboots.on_pass(failing)
        denials.check()

    daemon = Daemon(
        host, node, store, publisher, metrics,
        live=registry.Live(configz, questions.allows_anything, questions.versions, questions.flags),
        on_config=on_config, on_pass=on_pass, announce=reboots.announce,
        on_pending=lambda: rollouts.wake(),  # noqa: PLW0108 - made after the daemon, which it reloads
    )  # fmt: skip
    rollouts = Rollouts(
        kube, store.staging, publisher, namespace=namespace, reload=daemon.reload, stop=stop,
        spawn=lambda run: _thread("rollouts", run, stop).start(),
    )  # fmt: skip
    server = StatusServer(address, metrics.registry, healthy=daemon.healthy, ready=daemon.ready) if address else None
    signals = Signals((signal.SIGTERM, signal.SIGINT), {signal.SIGHUP: daemon.reload})
    targets: dict[str, Callable[[], None]] = {
        "loop": daemon.run, "publisher": publisher.run, "reboots": reboots.run,
        "node-watch": lambda: _follow(kube, node, publisher, reboots.nodes, daemon),
    }  # fmt: skip
    threads = [_thread(name, target, stop) for name, target in targets.items()]
    with signals:
        if server:
            server.start()
        for thread in threads:
            thread.start()
        log.info("started", config=str(store.path), api_server=access.server, address=address)
        signals.wait()
        log.info("stopping")
        deadline = time.monotonic() + _END_WITHIN_SECONDS
        stop.set()
        daemon.stop()
        publisher.stop()
        reboots.wake()
        rollouts.wake()
        kube.stop()
        denials.stop(deadline)
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
        kube.close()
        if server:
            server.close()
    late = [thread.name for thread in threads if thread.is_alive()]
    log.info("stopped", cut_off=late)
    return 0


def _thread(name: str, target: Callable[[], None], stop: threading.Event) -> threading.Thread:
    return threading.Thread(target=supervise, args=(target, stop), name=name, daemon=True)


def supervise(
    target: Callable[[], None], stop: threading.Event, *, first_seconds: float = 1.0,
    clock: Callable[[], float] = time.monotonic,
) -> None:  # fmt: skip
    """Runs it to its end, and again after a delay when it ends in an exception.

    The delay grows with each crash, and is the first one again after a run longer than the longest delay.

    A thread that dies unseen would leave a daemon that only seems alive, and a forged value must not end
    the other threads. Whatever a thread needs after a restart stands on the node or on API objects.
    """
    delay = first_seconds
    while True:
        began = clock()
        try:
            target()
            return
        except Exception:  # noqa: BLE001 - whatever it is, the thread continues
            if clock() - began > _LONGEST_RESTART_SECONDS:
                delay = first_seconds
            structlog.get_logger().exception("thread_crashed", again_seconds=delay)
        if stop.wait(delay):
            return
        delay = min(delay * 2, _LONGEST_RESTART_SECONDS)


def _follow(kube: Kube, node: str, publisher: NodePublisher, nodes: ObjectCache, daemon: Daemon) -> None:
    """Shows every change of the own Node to all who use it, and whether it exists or is unknown."""
    there = whole = False
    for change in kube.follow(NODES, field_selector=f"metadata.name={node}"):
        nodes.take(change)
        match change.seen:
            case EventType.LISTING:
                there = whole = False
            case EventType.ADDED | EventType.MODIFIED:
                there = True
                daemon.on_node(change.object)
                publisher.on_node_event(change.object, listed=not whole)
            case EventType.DELETED:
                publisher.on_node_deleted()
            case EventType.SYNCED:
                whole = True
                daemon.api_reached("")
                if not there:
                    publisher.on_node_deleted()
            case EventType.AWAY:
                daemon.api_reached(str(change.error))
                publisher.invalidate()


def _count(metrics: Metrics, exchange: RequestMetric) -> None:
    metrics.api_requests.inc()
    if not exchange.outcome.startswith("2"):
        metrics.api_errors.labels(exchange.outcome).inc()
