"""A cluster's nodes, locks and policy read, and several clusters side by side: the contexts that match a pattern.

A few at the same time, and each is reduced to its row in the thread that read it, so that memory does not grow with
their number. A cluster that cannot be read never hides the others.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fnmatch import fnmatchcase

from agent.config.schema import Pool
from agent.errors import AgentError, ConfigError, UsageError
from agent.plugin.cluster import locks, nodes, policy, values
from agent.plugin.cluster.nodes import Keep, NodeRow
from agent.plugin.session import COULD_NOT, NOT_WELL, OK, Session
from agent.plugin.views import fleet
from agent.plugin.views.clusters import ClusterRow, row, worst_first
from agent.plugin.views.fleet import Fleet
from agent.plugin.views.progress import Progress
from agent.text import join_limited

_PARALLEL = 6
_ERROR_CHARACTERS = 300
_KEEP_LITTLE = Keep()


def read_all(
    options: argparse.Namespace, session: Session, read: Callable[[str, Session], Fleet]
) -> tuple[list[ClusterRow], int]:
    """The clusters of `--contexts`, worst first, and the exit code. read: one of them, in a thread of its own.

    Raises UsageError where nothing matches, ConfigError for a kubeconfig that does not hold.
    """
    names = _matching(options, session)
    sessions = {name: _of(name, session) for name in names}

    def one(name: str) -> ClusterRow:
        given = sessions[name]
        try:
            return row(name, read(name, given))
        except ConfigError as error:
            return ClusterRow(name, values.text("; ".join(map(str, error.problems)), _ERROR_CHARACTERS))
        except AgentError as error:
            return ClusterRow(name, values.text(str(error), _ERROR_CHARACTERS))
        finally:
            given.close()

    rows = []
    with (
        Progress(session.err, live=session.live, noun="clusters") as progress,
        ThreadPoolExecutor(_PARALLEL, "cluster") as threads,
    ):
        try:
            for found in threads.map(one, names):
                rows.append(found)
                progress(len(rows), len(names))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            for given in sessions.values():
                given.close()
            raise
    code = COULD_NOT if any(found.error for found in rows) else NOT_WELL
    return worst_first(rows), OK if all(found.is_well for found in rows) else code


def node_rows(session: Session, pool: Pool, selector: str, keep: Keep = _KEEP_LITTLE) -> Iterator[NodeRow]:
    """Every node that the selector matches, with the progress on a terminal. Raises KubeError."""
    with Progress(session.err, live=session.live) as progress:
        yield from nodes.rows(session.kube, pool, selector=selector, keep=keep, progress=progress)


def read_fleet(
    session: Session, selector: str, *, keep: Keep = _KEEP_LITTLE, add: Callable[[NodeRow], NodeRow] = lambda row: row
) -> Fleet:
    """One cluster now, page by page. Raises KubeError when the nodes cannot be listed.

    keep: what rows have besides. add: takes each and returns what is kept of it in the fleet.
    """
    kube, namespace = session.kube, session.namespace
    rules = policy.read(kube, namespace)
    rows = [add(one) for one in node_rows(session, rules.pool, selector, keep)]
    held, problem = locks.read_or_problem(kube, namespace)
    now = session.now()
    pause = locks.pause(kube, namespace, now)
    return fleet.fleet(rows, held, pause=pause, rules=rules, namespace=namespace, now=now, locks_problem=problem)


def _of(name: str, session: Session) -> Session:
    return replace(session, connect=lambda: session.connect_to(name), live=False)


def _matching(options: argparse.Namespace, session: Session) -> list[str]:
    if options.context or options.kube_cluster:
        raise UsageError("--contexts names the clusters: leave --context and --cluster out")
    known = session.contexts()
    found = [name for name in known if any(fnmatchcase(name, pattern) for pattern in options.contexts)]
    if not found:
        there = values.text(join_limited(known, 10) or "none", _ERROR_CHARACTERS)
        raise UsageError(f"no context matches {', '.join(options.contexts)}; there are: {there}")
    return found
