"""The sandbox's own endpoints below /_sandbox: what a test or a stand-in reboot command does to the world over HTTP.

They ask for no token: the server listens on loopback and guards nothing but made-up nodes.

    GET|DELETE /_sandbox/requests                 the journal (?since=NUMBER)
    GET|POST|DELETE /_sandbox/faults[/NUMBER]     armed faults with their hits; a Fault's fields as JSON
    POST /_sandbox/watches/cut                    ends every running watch
    POST /_sandbox/compact                        forgets the history: older revisions are 410
    POST /_sandbox/away                           {"seconds": 5}: refuses connections for so long
    POST /_sandbox/nodes/NAME/kubelet             {"running": false}
    POST /_sandbox/nodes/NAME/boot                {"bootID": "", "kernelVersion": ""}: another boot id
    POST /_sandbox/nodes/NAME/reboot              {"seconds": 1, "bootID": "", "kernelVersion": ""}
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

from agent.sandbox.faults import Fault, FaultBox
from agent.sandbox.gateway import Gateway
from agent.sandbox.journal import Journal
from agent.sandbox.kubelet import Kubelets
from agent.sandbox.status_errors import ApiError
from agent.sandbox.store import Store


class ControlPanel:
    """Answers them."""

    def __init__(self, gateway: Gateway, store: Store, journal: Journal, faults: FaultBox, kubelets: Kubelets) -> None:
        """``away`` is set by the server, which owns the listener."""
        self._gateway = gateway
        self._store = store
        self._journal = journal
        self._faults = faults
        self._kubelets = kubelets
        self.away: Callable[[float], None] | None = None

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """One request: 200 with JSON, 400 for what cannot be read, 404 for what is not there."""
        raw = await request.read()
        parts = [part for part in request.path.split("/") if part][1:]
        try:
            values = json.loads(raw) if raw.strip() else {}
            result = self._act(request.method, parts, values, dict(request.query))
        except ApiError as error:
            return web.json_response({"error": error.message}, status=error.code)
        except (ValueError, TypeError) as error:
            return web.json_response({"error": str(error)}, status=400)
        if result is None:
            return web.json_response({"error": f"{request.method} {request.path} is not served"}, status=404)
        return web.json_response(result)

    def _act(self, method: str, parts: list[str], values: dict[str, Any], query: dict[str, str]) -> Any:
        match (method, parts):
            case ("GET", ["requests"]):
                since = int(query.get("since", "0"))
                return [record.as_dict() for record in self._journal.records() if record.number > since]
            case ("DELETE", ["requests"]):
                self._journal.clear()
                return {}
            case ("GET", ["faults"]):
                return {str(number): hits for number, hits in self._faults.hits().items()}
            case ("POST", ["faults"]):
                return {"number": self._faults.add(Fault.from_dict(values))}
            case ("DELETE", ["faults", *numbers]):
                self._faults.clear() if not numbers else self._faults.remove(int(numbers[0]))
                return {}
            case ("POST", ["watches", "cut"]):
                return {"cut": self._gateway.cut_watches()}
            case ("POST", ["compact"]):
                self._store.compact()
                return {"resourceVersion": str(self._store.revision)}
            case ("POST", ["away"]) if self.away is not None:
                self.away(float(values.get("seconds", 1)))
                return {}
            case ("POST", ["nodes", name, action]):
                return self._node(name, action, values)
        return None

    def _node(self, name: str, action: str, values: dict[str, Any]) -> Any:
        boot_id, kernel = str(values.get("bootID", "")), str(values.get("kernelVersion", ""))
        if action == "kubelet":
            (self._kubelets.resume if values.get("running", True) else self._kubelets.silence)(name)
            return {}
        if action == "boot":
            return {"bootID": self._kubelets.set_boot_id(name, boot_id, kernel)}
        if action == "reboot":
            self._kubelets.reboot(name, float(values.get("seconds", 1)), boot_id, kernel)
            return {}
        return None
