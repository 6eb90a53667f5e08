"""What the configuration files of the API server ask for: authentication, authorization, admission, encryption, audit.

A file that a running server has read is valid (it decodes strictly); what does not look so is unknown, never a pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agent.controls.control_plane.check import Facts, Unknown

_HEALTH = frozenset(("/livez", "/readyz", "/healthz"))
# What must not be logged with its content, and what has to be logged at all: group and resource.
_DATA = (("", "secrets"), ("", "configmaps"), ("authentication.k8s.io", "tokenreviews"))
_WRITES = frozenset(("create", "update", "patch", "delete"))
_EVENTFUL = (*_DATA[:2], ("", "pods/exec"), ("rbac.authorization.k8s.io", "clusterrolebindings"))
_ALL_USERS = frozenset(("system:authenticated", "system:masters"))
# A stage at the end of each answered request; watches alone have another one.
_ANSWERED = "ResponseComplete"
_BEFORE = "RequestReceived"


def anonymous(facts: Facts) -> tuple[bool, tuple[str, ...], str]:
    """Whether anonymous requests are let in, on which paths alone (none: on all), and the place. Raises Unknown."""
    if facts.value("authentication-config"):
        path, document = facts.document("authentication-config")
        given = document.get("anonymous")
        if given is not None:
            body = mapping(given, f"{path}: anonymous")
            paths = tuple(str(mapping(one, path).get("path", "")) for one in sequence(body.get("conditions"), path))
            return body.get("enabled") is True, paths, path
    modes = facts.value("authorization-mode")
    on = bool(facts.value("anonymous-auth"))
    if on and not facts.value("authorization-config") and (not modes or "AlwaysAllow" in modes):
        return False, (), "--authorization-mode=AlwaysAllow switches it off"
    return on, (), facts.source("anonymous-auth")


def only_health(paths: Sequence[str]) -> bool:
    """Whether anonymous requests reach nothing but health checks."""
    return bool(paths) and all(path in _HEALTH or path.rpartition("/")[0] in _HEALTH for path in paths)


def authorizers(facts: Facts) -> tuple[tuple[str, ...], str, Sequence[Mapping[str, Any]]]:
    """The types of the authorizers in order, the place, and those of the file in whole. Raises Unknown."""
    if not facts.value("authorization-config"):
        modes = tuple(facts.value("authorization-mode")) or ("AlwaysAllow",)
        return modes, facts.source("authorization-mode"), ()
    path, document = facts.document("authorization-config")
    given = [mapping(one, f"{path}: authorizers") for one in sequence(document.get("authorizers"), path)]
    return tuple(str(one.get("type", "")) for one in given), path, given


def pod_security(facts: Facts) -> Mapping[str, Any] | None:
    """The PodSecurityConfiguration of the admission configuration; None without one. Raises Unknown."""
    if not facts.value("admission-control-config-file"):
        return None
    path, document = facts.document("admission-control-config-file")
    for plugin in sequence(document.get("plugins"), path):
        one = mapping(plugin, f"{path}: plugins")
        if one.get("name") != "PodSecurity":
            continue
        if isinstance(one.get("configuration"), Mapping):
            return mapping(one["configuration"], path)
        if one.get("path"):
            raise Unknown(f"{path}: the configuration of PodSecurity is in {one['path']}")
    return None


def secrets_provider(facts: Facts) -> str:
    """Which provider writes secrets: the first of the first entry that names them; empty without. Raises Unknown."""
    path, document = facts.document("encryption-provider-config")
    for entry in sequence(document.get("resources"), path):
        one = mapping(entry, f"{path}: resources")
        names = [str(name) for name in sequence(one.get("resources"), path)]
        if any(name in ("secrets", "*.", "*.*", "secrets.") for name in names):
            first: Any = next(iter(sequence(one.get("providers"), path)), {})
            return next(iter(mapping(first, f"{path}: providers")), "")
    return ""


def audit_gaps(document: Mapping[str, Any], path: str) -> tuple[bool, tuple[str, ...]]:
    """Whether the policy logs anything, and what it leaves out or tells too much of. Raises Unknown.

    The first rule that matches a request decides; what no rule matches is not logged.
    """
    rules = [mapping(one, f"{path}: rules") for one in sequence(document.get("rules"), path)]
    omitted = _texts(document, "omitStages")
    logging = [rule for rule in rules if rule.get("level") != "None" and not _is_silent(rule, omitted)]
    if not logging:
        why = "omitStages leaves out every stage of an answered request" if omitted else "no rule logs anything"
        return False, (why,)
    gaps = list(_leaks(rules))
    every = next((rule for rule in rules if not _narrowed(rule)), None)
    if every is None or every not in logging:
        gaps.append("requests that no rule names are not logged")
    before = rules if every is None else rules[: rules.index(every)]
    gaps += (f"changes of {resource} are not logged" for group, resource in _EVENTFUL
             if _is_dropped([rule for rule in before if _reaches(rule, group, resource)], logging))  # fmt: skip
    return True, tuple(gaps)


def _is_silent(rule: Mapping[str, Any], omitted: frozenset[str]) -> bool:
    """Whether no stage of an answered request is left."""
    return omitted | _texts(rule, "omitStages") >= {_BEFORE, _ANSWERED}


def _leaks(rules: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Every rule that a request for such content may meet counts, up to the one that all of them meet."""
    for group, resource in _DATA:
        for rule in rules:
            if not _reaches(rule, group, resource, by_name=True):
                continue
            verbs = _texts(rule, "verbs")
            has_body = not verbs or bool(verbs & {"create", "update", "patch", "*"})
            if rule.get("level") == "RequestResponse" or (rule.get("level") == "Request" and has_body):
                yield f"{resource} are logged with their content ({rule['level']})"
                break
            narrowed = any(rule.get(key) for key in ("users", "userGroups", "verbs", "namespaces"))
            if not narrowed and _reaches(rule, group, resource):
                break


def _is_dropped(rules: Sequence[Mapping[str, Any]], logging: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the first of these rules that takes changes by every user does not log them."""
    for rule in rules:
        verbs, groups = _texts(rule, "verbs"), _texts(rule, "userGroups")
        by_everyone = not rule.get("users") and not rule.get("namespaces") and (not groups or groups & _ALL_USERS)
        if by_everyone and (not verbs or verbs & _WRITES):
            return rule not in logging
    return False


def _reaches(rule: Mapping[str, Any], group: str, resource: str, *, by_name: bool = False) -> bool:
    """Whether a rule takes requests to that resource, of some users at least. by_name: one for single objects too.

    `secrets/*` are the secrets themselves too; a group has no wildcard: pkg/audit/policy/checker.go of the API server.
    """
    where = "resources of a rule"
    given = [mapping(one, where) for one in sequence(rule.get("resources"), where)]
    if not given:
        return not rule.get("nonResourceURLs")
    base, _, below = resource.partition("/")
    names_of_it = {"*", resource, f"{base}/*", f"*/{below}"}
    matching = [one for one in given if (one.get("group") or "") == group and (by_name or not one.get("resourceNames"))]
    return any(not names or names & names_of_it for names in (_texts(one, "resources") for one in matching))


def _texts(given: Mapping[str, Any], key: str) -> frozenset[str]:
    return frozenset(str(one) for one in sequence(given.get(key), key))


def _narrowed(rule: Mapping[str, Any]) -> bool:
    keys = ("users", "userGroups", "verbs", "resources", "namespaces", "nonResourceURLs")
    return any(rule.get(key) for key in keys)


def mapping(value: Any, where: str) -> Mapping[str, Any]:
    """The value as a mapping. Raises Unknown."""
    if not isinstance(value, Mapping):
        raise Unknown(f"{where}: not a mapping")
    return value


def sequence(value: Any, where: str) -> Sequence[Any]:
    """The value as a list; nothing is an empty one. Raises Unknown."""
    if value is not None and not isinstance(value, list):
        raise Unknown(f"{where}: not a list")
    return value or ()
