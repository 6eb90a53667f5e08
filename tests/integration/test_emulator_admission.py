"""Admission policies on the emulator as on a real API server: one list of policies and writes, one answer to each.

The agent's own policies are in hostile/test_hostile_writes.py; these are the parts of policies beside them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from agent.sandbox import admission
from agent.sandbox.server import Sandbox
from tests.support.agents import eventually
from tests.support.apiservers import ApiServer, Client

GROUP = "/apis/admissionregistration.k8s.io/v1"
Object = dict[str, Any]
RULE: Object = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
PLURALS = ("validatingadmissionpolicies", "validatingadmissionpolicybindings")
DENIED = "configmaps \"{0}\" is forbidden: ValidatingAdmissionPolicy '{0}' with binding '{0}' denied request: {1}"

# A policy's keys; the HTTP status, the reason and the message of a ConfigMap's refusal, or 201.
CASES: dict[str, tuple[Object, int, str, str]] = {
    "holds": ({"validations": [{"expression": "object.data.a == '1'"}]}, 201, "", ""),
    "default reason and message": (
        {"validations": [{"expression": " object.data.a == '2' "}]},
        422, "Invalid", "failed expression: object.data.a == '2'",
    ),
    "a message of its own": (
        {"validations": [{"expression": "false", "message": "no", "reason": "RequestEntityTooLarge"}]},
        413, "RequestEntityTooLarge", "no",
    ),
    "a message expression": (
        {"validations": [
            {"expression": "false", "messageExpression": "' ' + object.data.a + '!'", "reason": "Forbidden"}
         ]},
        403, "Forbidden", "1!",
    ),
    "a message expression without a value": (
        {"validations": [{"expression": "false", "messageExpression": "string(object.data.none)", "message": "no"}]},
        422, "Invalid", "no",
    ),
    "the first that does not hold": (
        {"validations": [{"expression": "true"}, {"expression": "false", "message": "b"},
                         {"expression": "false", "message": "c"}]},
        422, "Invalid", "b",
    ),
    "a match condition that is false": (
        {"matchConditions": [{"name": "m", "expression": "request.name == 'other'"}],
         "validations": [{"expression": "false"}]},
        201, "", "",
    ),
    "a match condition about the user and the request": (
        {"matchConditions": [
            {"name": "m", "expression": "request.operation == 'CREATE' && request.resource.resource == 'configmaps'"},
            {"name": "n", "expression": "'system:masters' in request.userInfo.groups && oldObject == null"},
         ],
         "validations": [{"expression": "false", "message": "no"}]},
        422, "Invalid", "no",
    ),
    "variables of variables": (
        {"variables": [{"name": "a", "expression": "object.data.a"}, {"name": "b", "expression": "variables.a + 'x'"}],
         "validations": [{"expression": "variables.b != '1x'", "message": "no"}]},
        422, "Invalid", "no",
    ),
    "a variable without a value that no expression reads": (
        {"variables": [{"name": "a", "expression": "object.data.none"}],
         "validations": [{"expression": "true || variables.a == ''"}]},
        201, "", "",
    ),
    "an expression without a value": (
        {"validations": [{"expression": "object.data.none == '1'", "reason": "Forbidden"}]},
        422, "Invalid", "expression 'object.data.none ==",
    ),
    "an expression without a value, ignored": (
        {"failurePolicy": "Ignore", "validations": [{"expression": "object.data.none == '1'"}]}, 201, "", "",
    ),
    "another operation": (
        {"matchConstraints": {"resourceRules": [{**RULE, "operations": ["UPDATE"]}]},
         "validations": [{"expression": "false"}]},
        201, "", "",
    ),
    "another name": (
        {"matchConstraints": {"resourceRules": [{**RULE, "resourceNames": ["other"]}]},
         "validations": [{"expression": "false"}]},
        201, "", "",
    ),
    "every resource of the namespaces": (
        {"matchConstraints": {"resourceRules": [
            {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"], "scope": "Namespaced"}
         ]},
         "matchConditions": [{"name": "m", "expression": "object.kind == 'ConfigMap'"}],
         "validations": [{"expression": "false", "message": "no"}]},
        422, "Invalid", "no",
    ),
}  # fmt: skip
UNMATCHED = ("a match condition that is false", "another operation", "another name")


@pytest.fixture
def bound(client: Client, namespace: str) -> Iterator[list[str]]:
    """A policy of each case, in force for the ConfigMap of its name."""
    names = [f"{namespace}-{number}" for number in range(len(CASES))]
    marker = {"expression": "!has(object.data.marker)", "message": "in force"}
    for name, (spec, *_) in zip(names, CASES.values(), strict=True):
        mine = {"name": "mine", "expression": f"request.name == '{name}' && request.namespace == '{namespace}'"}
        more: Object = {"matchConditions": [mine, *spec.get("matchConditions", [])]}
        more["validations"] = [*spec["validations"], marker]
        _install(client, name, {"matchConstraints": {"resourceRules": [RULE]}, **spec, **more})
    yield names
    for name in names:
        for plural in reversed(PLURALS):
            client.delete(f"{GROUP}/{plural}/{name}")


def _install(client: Client, name: str, spec: Object) -> None:
    for plural, one in zip(PLURALS, (spec, {"policyName": name, "validationActions": ["Deny"]}), strict=True):
        answer = client.post(f"{GROUP}/{plural}", {"metadata": {"name": name}, "spec": one})
        assert answer.status_code == 201, answer.text


def test_both_servers_give_the_same_answer(client: Client, bound: list[str], namespace: str) -> None:
    """On the real one a policy is compiled some time after it was stored."""
    path, wanted, found = f"/api/v1/namespaces/{namespace}/configmaps", {}, {}
    for name, (case, (_, code, reason, message)) in zip(bound, CASES.items(), strict=True):
        body: Object = {"metadata": {"name": name}, "data": {"a": "1"}}
        marked = {**body, "data": {"a": "1", "marker": ""}}
        if case not in UNMATCHED:
            eventually(lambda: client.post(path, marked, dryRun="All").status_code != 201, what=case)  # noqa: B023
        answer = client.post(path, body, dryRun="All")
        status = answer.json()
        text = DENIED.format(name, message) if reason else ""
        wanted[case] = (code, reason, text)
        found[case] = (answer.status_code, status.get("reason", ""), status.get("message", "")[: len(text)])
    assert found == wanted


@pytest.mark.parametrize("who", ["system:node:n", ""])
def test_one_user_acts_as_another(api: ApiServer, client: Client, who: str) -> None:
    """Impersonation, where RBAC allows it: what a policy about kubelets is tried with."""
    plain = api.client(api.token if who else "")
    plain.session.headers.update({"Impersonate-User": who or "system:node:n", "Impersonate-Group": "system:nodes"})
    answer = plain.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", {})
    if not who:
        assert answer.status_code in (401, 403)
        return
    found = answer.json()["status"]["userInfo"]
    assert (found["username"], {*found["groups"]}) == (who, {"system:nodes", "system:authenticated"})


def test_what_is_not_evaluated_is_refused(sandbox: Sandbox) -> None:
    """A policy whose parts the emulator does not know lets nothing pass."""
    client = ApiServer.of(sandbox).client()
    spec: Object = {"matchConstraints": {"resourceRules": [RULE], "objectSelector": {"matchLabels": {"a": "b"}}}}
    _install(client, "p", {**spec, "validations": [{"expression": "true"}]})
    answer = client.post("/api/v1/namespaces/default/configmaps", {"metadata": {"name": "c"}})
    assert answer.status_code == 422
    assert "the sandbox does not evaluate objectSelector" in answer.text


def test_without_the_library_a_policy_is_stored_and_its_writer_is_warned(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo needs no CEL."""
    monkeypatch.setitem(sys.modules, "cel_expr_python", None)
    admission.environment.cache_clear()
    client = ApiServer.of(sandbox).client()
    spec: Object = {"matchConstraints": {"resourceRules": [RULE]}, "validations": [{"expression": "false"}]}
    answer = client.post(f"{GROUP}/validatingadmissionpolicies", {"metadata": {"name": "p"}, "spec": spec})
    assert (answer.status_code, admission.NOT_ENFORCED in answer.headers["Warning"]) == (201, True)
    bound = {"policyName": "p", "validationActions": ["Deny"]}
    client.post(f"{GROUP}/validatingadmissionpolicybindings", {"metadata": {"name": "p"}, "spec": bound})
    assert client.post("/api/v1/namespaces/default/configmaps", {"metadata": {"name": "c"}}).status_code == 201
    monkeypatch.undo()
    admission.environment.cache_clear()
