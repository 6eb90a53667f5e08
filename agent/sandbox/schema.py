"""The Go types of the objects that the agent writes: wrong types are refused, unknown fields and nulls are dropped.

The real server decodes JSON into structs, so a number where a string belongs is a 400 and a misspelt field vanishes.
A field's name may end in ``*`` (a pointer: zero is kept) or ``!`` (no omitempty: always there, null or zero when
no client set it); the others vanish when empty. Kinds without a table here are kept as they come below spec and
status: that is the emulator's limit.
Source: k8s.io/api and apimachinery pkg/apis/meta/v1 types.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agent.sandbox.status_errors import Object

Shape = str | list[Any] | dict[str, Any]

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)")
_STRINGS = "map[string]string"
_OWNER: Shape = {
    "apiVersion!": "string", "kind!": "string", "name!": "string", "uid!": "string",
    "controller*": "bool", "blockOwnerDeletion*": "bool",
}  # fmt: skip
_META: Shape = {
    "name": "string", "generateName": "string", "namespace": "string", "selfLink": "string", "uid": "string",
    "resourceVersion": "string", "generation": "int64", "creationTimestamp!": "time", "deletionTimestamp*": "time",
    "deletionGracePeriodSeconds*": "int64", "labels": _STRINGS, "annotations": _STRINGS,
    "ownerReferences": [_OWNER], "finalizers": ["string"], "managedFields": "any",
}  # fmt: skip
_REFERENCE: Shape = {
    "kind": "string", "namespace": "string", "name": "string", "uid": "string", "apiVersion": "string",
    "resourceVersion": "string", "fieldPath": "string",
}  # fmt: skip
_CONDITION: Shape = {
    "type!": "string", "status!": "string", "lastHeartbeatTime!": "time", "lastTransitionTime!": "time",
    "reason": "string", "message": "string",
}  # fmt: skip
_META_CONDITION: Shape = {
    "type!": "string", "status!": "string", "observedGeneration": "int64", "lastTransitionTime!": "time",
    "reason!": "string", "message!": "string",
}  # fmt: skip
_TAINT: Shape = {"key!": "string", "value": "string", "effect!": "string", "timeAdded*": "time"}
_SELECTOR: Shape = {
    "matchLabels": _STRINGS,
    "matchExpressions": [{"key!": "string", "operator!": "string", "values": ["string"]}],
}
_NODE_INFO: Shape = {
    "machineID!": "string", "systemUUID!": "string", "bootID!": "string", "kernelVersion!": "string",
    "osImage!": "string", "containerRuntimeVersion!": "string", "kubeletVersion!": "string",
    "kubeProxyVersion!": "string", "operatingSystem!": "string", "architecture!": "string", "swap": "any",
}  # fmt: skip
_NODE: Shape = {
    "metadata!": _META,
    "spec!": {
        "podCIDR": "string", "podCIDRs": ["string"], "providerID": "string", "unschedulable": "bool",
        "taints": [_TAINT], "configSource": "any", "externalID": "string",
    },
    "status!": {
        "capacity": "map[string]quantity", "allocatable": "map[string]quantity", "phase": "string",
        "conditions": [_CONDITION], "addresses": [{"type!": "string", "address!": "string"}],
        "daemonEndpoints!": {"kubeletEndpoint!": {"Port!": "int32"}}, "nodeInfo!": _NODE_INFO,
        "images": "any", "volumesInUse": ["string"],
        "volumesAttached": "any", "config": "any", "runtimeHandlers": "any", "features": "any",
    },
}  # fmt: skip
_LEASE: Shape = {
    "metadata!": _META,
    "spec!": {
        "holderIdentity*": "string", "leaseDurationSeconds*": "int32", "acquireTime*": "microtime",
        "renewTime*": "microtime", "leaseTransitions*": "int32", "strategy*": "string", "preferredHolder*": "string",
    },
}  # fmt: skip
_EVENT: Shape = {
    "metadata!": _META, "involvedObject!": _REFERENCE, "reason": "string", "message": "string",
    "source!": {"component": "string", "host": "string"}, "firstTimestamp!": "time", "lastTimestamp!": "time",
    "count": "int32", "type": "string", "eventTime!": "microtime",
    "series*": {"count": "int32", "lastObservedTime!": "microtime"}, "action": "string", "related*": _REFERENCE,
    "reportingComponent!": "string", "reportingInstance!": "string",
}  # fmt: skip
_BUDGET: Shape = {
    "metadata!": _META,
    "spec": {
        "minAvailable*": "intorstring", "maxUnavailable*": "intorstring", "selector*": _SELECTOR,
        "unhealthyPodEvictionPolicy*": "string",
    },
    "status": {
        "observedGeneration": "int64", "disruptedPods": "any", "disruptionsAllowed!": "int32",
        "currentHealthy!": "int32", "desiredHealthy!": "int32", "expectedPods!": "int32",
        "conditions": [_META_CONDITION],
    },
}  # fmt: skip

_SHAPES: dict[str, Shape] = {
    "Node": _NODE,
    "Lease": _LEASE,
    "Event": _EVENT,
    "PodDisruptionBudget": _BUDGET,
    "Namespace": {
        "metadata!": _META, "spec": {"finalizers": ["string"]}, "status": {"phase": "string", "conditions": "any"},
    },
    "ConfigMap": {
        "metadata!": _META, "data": _STRINGS, "binaryData": _STRINGS, "immutable*": "bool",
    },
    "Secret": {
        "metadata!": _META, "data": _STRINGS, "type": "string", "immutable*": "bool",
    },
    "ServiceAccount": {
        "metadata!": _META, "secrets": "any", "imagePullSecrets": "any", "automountServiceAccountToken*": "bool",
    },
}  # fmt: skip
_TOP = frozenset({
    "spec", "status", "data", "rules", "subjects", "roleRef", "aggregationRule", "value", "globalDefault",
    "description", "preemptionPolicy",
})  # fmt: skip


class DecodeError(Exception):
    """A value has the wrong type; the message is the one of Go's json."""


class _Decoder:
    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.unknown: list[str] = []

    def struct(self, value: Mapping[str, Any], shape: Mapping[str, Any], path: str) -> Object:
        result: Object = {}
        names = {name.rstrip("*!"): name for name in shape}
        self.unknown += [f"{path}.{key}".lstrip(".") for key in value if key not in names]
        for key, name in names.items():
            found = value.get(key)
            if found is None:
                if name.endswith("!"):
                    result[key] = self.zero(shape[name])
                continue
            decoded = self.value(found, shape[name], f"{path}.{key}".lstrip("."))
            if name[-1] in "*!" or decoded not in (None, "", 0, False, [], {}):
                result[key] = decoded
        return result

    def zero(self, shape: Shape) -> Any:
        if isinstance(shape, dict):
            return self.struct({}, shape, "")
        return {"string": "", "int32": 0, "int64": 0}.get(str(shape))

    def value(self, value: Any, shape: Shape, path: str) -> Any:
        if isinstance(shape, dict):
            self._expect(isinstance(value, dict), value, path, "struct")
            return self.struct(value, shape, path)
        if isinstance(shape, list):
            self._expect(isinstance(value, list), value, path, "[]")
            return [self.value(item, shape[0], path) for item in value]
        return self._scalar(value, shape, path)

    def _scalar(self, value: Any, shape: str, path: str) -> Any:
        if shape == "string":
            self._expect(isinstance(value, str), value, path, shape)
        elif shape == "bool":
            self._expect(isinstance(value, bool), value, path, shape)
        elif shape in ("int32", "int64"):
            limit = 2**31 if shape == "int32" else 2**63
            whole = isinstance(value, int) and not isinstance(value, bool)
            self._expect(whole and -limit <= value < limit, value, path, shape)
        elif shape.startswith("map[string]"):
            self._expect(isinstance(value, dict), value, path, shape)
            item = shape.removeprefix("map[string]")
            return {key: self._scalar("" if found is None else found, item, path) for key, found in value.items()}
        elif shape == "intorstring":
            self._expect(isinstance(value, (int, str)) and not isinstance(value, bool), value, path, "string")
        elif shape == "quantity":
            self._expect(isinstance(value, (int, float, str)), value, path, "string")
            return str(value)
        elif shape in ("time", "microtime"):
            return self._time(value, shape, path)
        return value

    def _time(self, value: Any, shape: str, path: str) -> str:
        self._expect(isinstance(value, str), value, path, "string")
        match = _TIME.fullmatch(value)
        fraction = (match.group(2) or "") if match else ""
        if match is None or (shape == "microtime" and len(fraction) != 7):
            layout = "2006-01-02T15:04:05.000000Z07:00" if shape == "microtime" else "2006-01-02T15:04:05Z07:00"
            raise DecodeError(f'parsing time "{value}" as "{layout}": cannot parse "{value}"')
        if match.group(3) != "Z":
            return str(value)
        return f"{match.group(1)}{fraction}Z" if shape == "microtime" else f"{match.group(1)}Z"

    def _expect(self, fits: bool, value: Any, path: str, go_type: str) -> None:
        if fits:
            return
        name = {dict: "object", list: "array", str: "string", bool: "bool"}.get(type(value), "number")
        head = path.partition(".")[0]
        owner = {"metadata": "ObjectMeta", "spec": f"{self.kind}Spec", "status": f"{self.kind}Status"}
        struct = owner.get(head, self.kind) if head != path else self.kind
        message = f"json: cannot unmarshal {name} into Go struct field {struct}.{path} of type {go_type}"
        raise DecodeError(message)


def decode(obj: Object, kind: str) -> tuple[Object, list[str]]:
    """The object as the server's structs hold it, without kind and apiVersion, and the paths of unknown fields.

    Raises DecodeError: a field has the wrong type.
    """
    decoder = _Decoder(kind)
    body = {key: value for key, value in obj.items() if key not in ("kind", "apiVersion")}
    body["metadata"] = {} if body.get("metadata") is None else body["metadata"]
    shape = _SHAPES.get(kind)
    if isinstance(shape, dict):
        return decoder.struct(body, shape, ""), decoder.unknown
    meta = decoder.value(body["metadata"], _META, "metadata")
    rest = {key: value for key, value in body.items() if key in _TOP or key in ("webhooks", "parameters")}
    return {"metadata": meta, **{key: value for key, value in rest.items() if value is not None}}, decoder.unknown
