"""Looks at the cluster while nodes reboot and remembers what must never be (never two nodes down at once …).

It asks the API server a few times a second, and at every boot of a machine; what it finds is raised by `check`, so that
a test fails with all of it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any, Self

from tests.support.apiservers import Client

_LEASES = "/apis/coordination.k8s.io/v1/namespaces/node-hardening/leases"
STATE = "node-hardening.io/reboot-state"
_LOOK_SECONDS = 0.1
UNDER_WAY = ("cordoned", "draining", "rebooting", "verifying")


class Watcher:
    """One thread for one cluster. `with` it."""

    def __init__(self, client: Client) -> None:
        """client: its own from here on."""
        self._client = client
        self._asking = threading.Lock()
        self._people: dict[str, bool] = {}  # whether the cordon was seen
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._cut: set[str] = set()
        self.broken: list[str] = []
        self.seen: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()

    def check(self) -> None:
        """Fails with everything that must not have been."""
        assert self.broken == [], "\n".join([*self.broken, "", "what was seen:", *self.seen[-60:]])

    def let_be(self, node: str) -> None:
        """This node was cordoned by a user: once seen so it has to stay so, and does not count as ours."""
        self._people[node] = False

    def power_was_cut(self, node: str) -> None:
        """The next boot of that node is the test's doing, not the agent's."""
        self._cut.add(node)

    def booted(self, node: str, boot: str) -> None:
        """A machine talks in another boot than before: without the lock only a power cut may do that."""
        if node in self._cut:
            self._cut.discard(node)
            self._note(f"{node} is in boot {boot[:8]} after a power cut")
            return
        self._note(f"{node} is in boot {boot[:8]}")
        if node not in self._holders():
            self.broken.append(f"{node} was rebooted without the lock, which {self._holders() or 'nobody'} holds")

    def phase(self, node: str) -> str:
        """What the note on the Node says, idle when there is none."""
        return str(self._state(self._ask(f"/api/v1/nodes/{node}")).get("phase", "idle"))

    def holders(self) -> list[str]:
        """Nodes that hold a lock now."""
        return self._holders()

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        nodes = self._ask("/api/v1/nodes")["items"]
        ours, lines = [], []
        for node in nodes:
            name, state = node["metadata"]["name"], self._state(node)
            cordoned = bool(node["spec"].get("unschedulable"))
            if cordoned and name not in self._people:
                ours.append(name)
            if self._people.get(name) and not cordoned:
                self._break(f"{name} was cordoned by people, and is not any more")
            if name in self._people and cordoned:
                self._people[name] = True  # what was read before the cordon may come after it was set
            lines.append(f"{name} {state.get('phase', 'idle')}{' cordoned' if cordoned else ''}")
        if len(ours) > 1:
            self._break(f"two nodes of one pool are cordoned at once: {', '.join(ours)}")
        under_way = [one for one in nodes if self._state(one).get("phase") in UNDER_WAY]
        if len(under_way) > 1:
            self._break(f"two nodes are on their way down at once: {[one['metadata']['name'] for one in under_way]}")
        self._note("; ".join([*lines, f"lock: {','.join(self._holders()) or 'free'}"]))

    def _holders(self) -> list[str]:
        leases = self._ask(_LEASES)["items"]
        return [holder.partition("/")[0] for one in leases if (holder := (one.get("spec") or {}).get("holderIdentity"))]

    def _ask(self, path: str) -> dict[str, Any]:
        with self._asking:
            answer = self._client.get(path)
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def _state(self, node: Mapping[str, Any]) -> dict[str, Any]:
        text = (node.get("metadata") or {}).get("annotations", {}).get(STATE)
        document: dict[str, Any] = json.loads(text) if text else {}
        return document

    def _break(self, text: str) -> None:
        if text not in self.broken:
            self.broken.append(text)

    def _note(self, text: str) -> None:
        if not self.seen or self.seen[-1] != text:
            self.seen.append(text)
