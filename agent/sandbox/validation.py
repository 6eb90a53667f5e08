"""What an object must look like to be stored: the 422s that users of the agent can meet.

The rules and their words follow apimachinery pkg/api/validation and kubernetes pkg/apis/*/validation. It does not
check what only a kubelet or a controller would notice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from agent.config.selector import from_object
from agent.sandbox.catalog import RBAC_GROUP, Resource
from agent.sandbox.status_errors import Cause, Object, invalid

ANNOTATIONS_LIMIT = 256 * 1024
TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_NAME_PART = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_PERCENT = re.compile(r"[0-9]+%")
_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'example.com', regex used for validation is"
    r" '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with"
    " an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is"
    " '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_NAME_PART_TEXT = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric"
    " character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is"
    " '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_LABEL_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is"
    " '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
Causes = list[Cause]


def _bad(field: str, value: Any, why: str) -> Cause:
    shown = f'"{value}"' if isinstance(value, str) else str(value)
    return Cause("FieldValueInvalid", f"Invalid value: {shown}: {why}", field)


def _required(field: str, why: str = "") -> Cause:
    return Cause("FieldValueRequired", f"Required value: {why}" if why else "Required value", field)


def _forbidden(field: str, why: str) -> Cause:
    return Cause("FieldValueForbidden", f"Forbidden: {why}", field)


def _unsupported(field: str, value: Any, allowed: tuple[str, ...]) -> Cause:
    listed = ", ".join(f'"{item}"' for item in sorted(allowed))
    return Cause("FieldValueNotSupported", f'Unsupported value: "{value}": supported values: {listed}', field)


def qualified_name(text: str) -> list[str]:
    """What is wrong with a label or annotation key; nothing when it is well."""
    prefix, slash, name = text.rpartition("/")
    if text.count("/") > 1:
        return [f"a qualified name must have one slash at most: {_NAME_PART_TEXT}"]
    problems: list[str] = []
    if slash and not prefix:
        problems.append("prefix part must be non-empty")
    elif slash and (len(prefix) > 253 or not _SUBDOMAIN.fullmatch(prefix)):
        problems.append(f"prefix part {_SUBDOMAIN_TEXT}")
    if not name:
        problems.append("name part must be non-empty")
    if len(name) > 63:
        problems.append("name part must be no more than 63 bytes")
    if not _NAME_PART.fullmatch(name):
        problems.append(_NAME_PART_TEXT)
    return problems


def _wrong(text: str, most: int, pattern: re.Pattern[str], why: str) -> list[str]:
    problems = [f"must be no more than {most} bytes"] if len(text) > most else []
    return problems if pattern.fullmatch(text) else [*problems, why]


def label_value(text: str) -> list[str]:
    """What is wrong with a label's or a taint's value."""
    return _wrong(text, 63, _LABEL_VALUE, _LABEL_VALUE_TEXT)


def _name(name: str, resource: Resource) -> list[str]:
    if resource.group == RBAC_GROUP:
        wrong = name in (".", "..") or "/" in name or "%" in name
        return ["may not be '.', '..' or contain '/' or '%'"] if wrong else []
    if resource.plural == "namespaces":
        return _wrong(name, 63, _LABEL, _LABEL_TEXT)
    return _wrong(name, 253, _SUBDOMAIN, _SUBDOMAIN_TEXT)


def metadata(meta: Object, resource: Resource) -> Causes:
    """Name, labels, annotations, owners and finalizers."""
    causes: Causes = []
    name = meta.get("name", "")
    if not name:
        causes.append(_required("metadata.name", "name or generateName is required"))
    else:
        causes += [_bad("metadata.name", name, why) for why in _name(name, resource)]
    for key, value in (meta.get("labels") or {}).items():
        causes += [_bad("metadata.labels", key, why) for why in qualified_name(key)]
        causes += [_bad("metadata.labels", value, why) for why in label_value(value)]
    causes += _annotations(meta.get("annotations") or {})
    causes += [
        _bad(f"metadata.ownerReferences[{position}].{key}", "", f"{key} must not be empty")
        for position, owner in enumerate(meta.get("ownerReferences") or [])
        for key in ("apiVersion", "kind", "name", "uid")
        if not owner.get(key)
    ]
    for finalizer in meta.get("finalizers") or []:
        causes += [_bad("metadata.finalizers", finalizer, why) for why in qualified_name(finalizer)]
    return causes


def _annotations(annotations: Mapping[str, str]) -> Causes:
    causes: Causes = []
    size = 0
    for key, value in annotations.items():
        causes += [_bad("metadata.annotations", key, why) for why in qualified_name(key.lower())]
        size += len(key.encode()) + len(value.encode())
    if size > ANNOTATIONS_LIMIT:
        text = f"Too long: may not be more than {ANNOTATIONS_LIMIT} bytes"
        causes.append(Cause("FieldValueTooLong", text, "metadata.annotations"))
    return causes


def metadata_update(new: Object, old: Object) -> Causes:
    """What of the metadata may not change."""
    causes = [
        _bad(f"metadata.{key}", new.get(key, ""), "field is immutable")
        for key in ("uid", "name", "namespace")
        if new.get(key, "") != old.get(key, "")
    ]
    if old.get("deletionTimestamp"):
        added = [item for item in new.get("finalizers") or [] if item not in (old.get("finalizers") or [])]
        if added:
            why = f"no new finalizers can be added if the object is being deleted, found new finalizers {added}"
            causes.append(_forbidden("metadata.finalizers", why))
    return causes


def node(obj: Object, old: Object | None) -> Causes:
    """Taints, and what of the spec may change. The path is metadata.taints there too (ValidateNode)."""
    causes = _taints((obj.get("spec") or {}).get("taints") or [])
    if old is not None:
        new_spec, old_spec = obj.get("spec") or {}, old.get("spec") or {}
        fixed = {
            key
            for key in ("podCIDR", "podCIDRs", "providerID", "externalID")
            if old_spec.get(key) and new_spec.get(key) != old_spec[key]
        }
        if fixed:
            why = (
                "node updates may only change labels, taints, or capacity (or configSource, if the"
                " DynamicKubeletConfig feature gate is enabled)"
            )
            causes.append(_forbidden("spec", why))
    return causes


def _taints(taints: list[Object]) -> Causes:
    causes: Causes = []
    seen: set[tuple[str, str]] = set()
    for position, taint in enumerate(taints):
        path = f"metadata.taints[{position}]"
        key, effect = taint.get("key", ""), taint.get("effect", "")
        causes += [_bad(f"{path}.key", key, why) for why in qualified_name(key)]
        causes += [_bad(f"{path}.value", taint.get("value", ""), why) for why in label_value(taint.get("value", ""))]
        if not effect:
            causes.append(_required(f"{path}.effect"))
        elif effect not in TAINT_EFFECTS:
            causes.append(_unsupported(f"{path}.effect", effect, TAINT_EFFECTS))
        if (key, effect) in seen:
            why = "taints must be unique by key and effect pair"
            causes.append(Cause("FieldValueDuplicate", f"Duplicate value: {taint}: {why}", path))
        seen.add((key, effect))
    return causes


def lease(obj: Object, _: Object | None) -> Causes:
    """Durations and transitions."""
    spec = obj.get("spec") or {}
    causes: Causes = []
    if spec.get("leaseDurationSeconds", 1) <= 0:
        causes.append(_bad("spec.leaseDurationSeconds", spec["leaseDurationSeconds"], "must be greater than 0"))
    if spec.get("leaseTransitions", 0) < 0:
        causes.append(_bad("spec.leaseTransitions", spec["leaseTransitions"], "must be greater than or equal to 0"))
    return causes


def event(obj: Object, _: Object | None) -> Causes:
    """The legacy rules, and those of an event with eventTime (legacyValidateEvent)."""
    causes: Causes = []
    namespace = obj["metadata"].get("namespace", "")
    about = (obj.get("involvedObject") or {}).get("namespace", "")
    mismatch = _bad("involvedObject.namespace", about, "does not match event.namespace")
    if about and about != namespace:
        causes.append(mismatch)
    modern = bool(obj.get("eventTime"))
    allowed = ("", "default", "kube-system") if modern else ("", "default")
    if not about and namespace not in allowed:
        causes.append(mismatch)
    if modern:
        for key in ("reportingComponent", "reportingInstance", "action", "reason"):
            if not obj.get(key):
                causes.append(_required(key))
        component = obj.get("reportingComponent", "")
        causes += [_bad("reportingComponent", component, why) for why in qualified_name(component) if component]
    return causes


def budget(obj: Object, _: Object | None) -> Causes:
    """minAvailable and maxUnavailable: one of them, a number or a percentage; the selector readable."""
    spec = obj.get("spec") or {}
    causes: Causes = []
    if "minAvailable" in spec and "maxUnavailable" in spec:
        causes.append(_bad("spec", "", "minAvailable and maxUnavailable cannot be both set"))
    for key in ("minAvailable", "maxUnavailable"):
        value = spec.get(key)
        if isinstance(value, str) and not (_PERCENT.fullmatch(value) and int(value[:-1]) <= 100):
            causes.append(_bad(f"spec.{key}", value, "must be an integer or percentage (e.g '5%')"))
        if isinstance(value, int) and value < 0:
            causes.append(_bad(f"spec.{key}", value, "must be greater than or equal to 0"))
    policies = ("IfHealthyBudget", "AlwaysAllow")
    if spec.get("unhealthyPodEvictionPolicy", policies[0]) not in policies:
        causes.append(_unsupported("spec.unhealthyPodEvictionPolicy", spec["unhealthyPodEvictionPolicy"], policies))
    try:
        from_object(spec.get("selector") or {})
    except ValueError as error:
        causes.append(_bad("spec.selector", "", str(error)))
    return causes


def pod(obj: Object, old: Object | None) -> Causes:
    """Containers must be there; of a stored pod only images, tolerations and deadlines change."""
    causes: Causes = []
    containers = (obj.get("spec") or {}).get("containers") or []
    if not containers:
        causes.append(_required("spec.containers"))
    for position, container in enumerate(containers):
        causes += [
            _required(f"spec.containers[{position}].{key}") for key in ("name", "image") if not container.get(key)
        ]
    if old is not None and _fixed(obj) != _fixed(old):
        why = (
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
            "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
            "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
        )
        causes.append(_forbidden("spec", why))
    return causes


def _fixed(obj: Object) -> Object:
    spec = {
        key: value
        for key, value in (obj.get("spec") or {}).items()
        if key not in ("activeDeadlineSeconds", "tolerations", "schedulingGates")
    }
    for key in ("containers", "initContainers"):
        spec[key] = [{**container, "image": ""} for container in spec.get(key) or []]
    return spec


def workload(obj: Object, old: Object | None) -> Causes:
    """A selector that selects the template's labels, and that does not change."""
    spec = obj.get("spec") or {}
    selector = spec.get("selector")
    if not selector:
        return [_required("spec.selector")]
    if old is not None and selector != (old.get("spec") or {}).get("selector"):
        return [_bad("spec.selector", str(selector), "field is immutable")]
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    try:
        parsed = from_object(selector)
    except ValueError as error:
        return [_bad("spec.selector", str(selector), str(error))]
    if not parsed.matches(labels):
        shown = json.dumps(labels, separators=(",", ":"))
        text = f"Invalid value: {shown}: `selector` does not match template `labels`"
        return [Cause("FieldValueInvalid", text, "spec.template.metadata.labels")]
    return []


_RULES: dict[str, Callable[[Object, Object | None], Causes]] = {
    "nodes": node,
    "pods": pod,
    "leases": lease,
    "events": event,
    "poddisruptionbudgets": budget,
    **dict.fromkeys(("daemonsets", "replicasets", "deployments", "statefulsets"), workload),
}


def validate(obj: Object, old: Object | None, resource: Resource) -> None:
    """All of the above for one object; ``old`` is None at creation. Raises ApiError: 422 with every cause."""
    causes = metadata(obj["metadata"], resource)
    if old is not None:
        causes += metadata_update(obj["metadata"], old["metadata"])
    if resource.plural in _RULES:
        causes += _RULES[resource.plural](obj, old)
    if causes:
        raise invalid(resource.who, obj["metadata"].get("name", ""), causes)
