"""Admission by the policies that are stored, as a real API server evaluates them: the mutating, then the validating.

CEL is evaluated by cel-expr-python, which development has and the image has not: where it is not installed, policies
are stored, their writer is warned, and nothing is refused. What a policy uses and this does not know (parameters,
selectors) is an error of that policy, so that its failurePolicy decides: nothing passes because it was not understood.
Subresources other than status are not judged.
Source: apiserver pkg/admission/plugin/policy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from agent.sandbox import patches, status_errors
from agent.sandbox.authn import User
from agent.sandbox.catalog import Catalog, Target
from agent.sandbox.status_errors import ApiError, Cause, Object
from agent.sandbox.store import Store

if TYPE_CHECKING:
    from cel_expr_python import cel

NOT_ENFORCED = "admission policies are stored, not enforced: the sandbox has no CEL (pip install cel-expr-python)"
_CODES = {"Unauthorized": 401, "Forbidden": 403, "RequestEntityTooLarge": 413, "Invalid": 422}
_UNKNOWN = ("paramKind", "paramRef", "matchResources", "namespaceSelector", "objectSelector", "excludeResourceRules")
_VARIABLE = re.compile(r"\bvariables\.(\w+)")
# The typed objects of a mutation, `Object.spec{name: …}`: a map is as good where nothing checks the types.
_TYPED = re.compile(r'("(?:[^"\\]|\\.)*")|\bObject(?:\.\w+)*\s*(?=\{)|(?<=[{,])\s*(\w+)\s*(?=:)')


class PolicyError(Exception):
    """An expression has no value."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A write as policies see it: whose (None: the cluster's own, not judged), CREATE, UPDATE or DELETE, of what."""

    user: User | None
    operation: str
    target: Target
    dry_run: bool

    def matches(self, rule: Object) -> bool:
        """Whether a resource rule is about this write."""
        resource, subresource, name = self.target.resource, self.target.subresource, self.target.name
        plural = f"{resource.plural}/{subresource}" if subresource else resource.plural
        names = {plural, "*/*", f"{resource.plural}/*", f"*/{subresource}" if subresource else "*"}
        return (
            bool({self.operation, "*"} & {*rule.get("operations", [])})
            and bool({resource.group, "*"} & {*rule.get("apiGroups", [])})
            and bool({resource.version, "*"} & {*rule.get("apiVersions", [])})
            and bool(names & {*rule.get("resources", [])})
            and rule.get("scope", "*") in ("*", "Namespaced" if resource.namespaced else "Cluster")
            and name in (rule.get("resourceNames") or [name])
        )

    def request(self) -> Object:
        """The variable ``request``."""
        target, resource = self.target, self.target.resource
        user = self.user.info() if self.user else {}
        place = {"group": resource.group, "version": resource.version}
        return {
            "kind": {**place, "kind": resource.kind}, "resource": {**place, "resource": resource.plural},
            "subResource": target.subresource, "namespace": target.namespace, "name": target.name,
            "operation": self.operation, "userInfo": {"extra": {}, **user}, "dryRun": self.dry_run,
        }  # fmt: skip


class Policies:
    """The stored policies and their bindings, read at each write: there are few, and they are never stale."""

    def __init__(self, store: Store, catalog: Catalog) -> None:
        """Nothing is compiled before a write matches."""
        self._store = store
        self._catalog = catalog

    def mutate(self, attempt: Attempt, obj: Object, old: Object | None) -> Object:
        """The object as the policies change it. Raises ApiError: a policy that fails cannot be evaluated."""
        for scope in self._bound("mutatingadmissionpolicies", attempt, obj, old):
            try:
                if scope.applies():
                    for one in scope.spec["mutations"]:
                        change = scope.value(_maps(one["applyConfiguration"]["expression"]))
                        obj = patches.strategic(obj, change, attempt.target.resource.kind)
            except PolicyError as error:
                if scope.is_strict:
                    raise scope.denied(str(error)) from error
        return obj

    def validate(self, attempt: Attempt, obj: Object | None, old: Object | None) -> None:
        """Nothing, or the refusal of the first policy that denies. Raises ApiError: with the policy's reason."""
        for scope in self._bound("validatingadmissionpolicies", attempt, obj, old):
            if "Deny" not in scope.binding["spec"].get("validationActions", []):
                continue
            try:
                checks = scope.spec.get("validations", []) if scope.applies() else []
            except PolicyError as error:
                if scope.is_strict:
                    raise scope.denied(str(error)) from error
                continue
            for check in checks:
                if refusal := scope.refusal(check):
                    raise refusal

    def _bound(self, plural: str, attempt: Attempt, obj: Object | None, old: Object | None) -> Iterator[_Scope]:
        resource = attempt.target.resource
        if attempt.user is None or resource.group == "admissionregistration.k8s.io" or environment() is None:
            return
        values = {"object": obj and resource.typed(obj), "oldObject": old and resource.typed(old)}
        bindings = f"{plural.removesuffix('ies')}ybindings"
        for _, item in self._store.scan(self._catalog.named(bindings), ""):
            policy = self._store.get(self._catalog.named(plural), ("", item.obj["spec"].get("policyName", "")))
            if policy is None:
                continue
            constraints = policy.obj["spec"].get("matchConstraints") or {}
            if any(attempt.matches(rule) for rule in constraints.get("resourceRules") or []):
                yield _Scope(attempt, policy.obj, item.obj, values)


class _Scope:
    """One policy about one write: its variables are computed when an expression first uses them."""

    def __init__(self, attempt: Attempt, policy: Object, binding: Object, values: Object) -> None:
        self.attempt = attempt
        self.binding = binding
        self.spec: Object = policy["spec"]
        self.is_strict = self.spec.get("failurePolicy", "Fail") == "Fail"
        self._texts = {one["name"]: one["expression"] for one in self.spec.get("variables") or []}
        self._values = {**values, "request": attempt.request(), "variables": {}}

    def applies(self) -> bool:
        """Whether every match condition is true.

        Raises PolicyError: one has no value, or the policy uses what is not known here.
        """
        parts = (self.spec, self.spec.get("matchConstraints") or {}, self.binding["spec"])
        used = [key for part in parts for key in _UNKNOWN if part.get(key)]
        if used:
            raise PolicyError(f"the sandbox does not evaluate {', '.join(used)}")
        return all(self.value(one["expression"]) is True for one in self.spec.get("matchConditions") or [])

    def value(self, expression: str) -> Any:
        """Of an expression. Raises PolicyError: it has none."""
        variables = self._values["variables"]
        for name in _VARIABLE.findall(expression):
            if name in self._texts:
                # One without a value is missing: it is an error only for the expression that comes to it.
                try:
                    variables[name] = self.value(self._texts.pop(name))
                except PolicyError:
                    continue
        return _evaluate(expression, self._values)

    def refusal(self, check: Object) -> ApiError | None:
        """By a validation that does not hold; by one without a value too, but not with its reason."""
        expression = check["expression"].strip()
        try:
            if self.value(expression) is True:
                return None
        except PolicyError as error:
            why = f"expression '{expression}' resulted in error: {error}"
            return self.denied(why) if self.is_strict else None
        message: str = check.get("message") or f"failed expression: {expression}"
        with suppress(PolicyError):
            message = self.value(check["messageExpression"]).strip() if check.get("messageExpression") else message
        return self.denied(message, check.get("reason", ""))

    def denied(self, message: str, reason: str = "") -> ApiError:
        """The refusal that a real API server sends."""
        meta = (self._values["object"] or {}).get("metadata") or {}
        name = self.attempt.target.name or meta.get("name") or meta.get("generateName") or "Unknown"
        policy, binding = self.binding["spec"]["policyName"], self.binding["metadata"]["name"]
        why = f"ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {message}"
        error = status_errors.forbidden(self.attempt.target.resource.who, name, why, (Cause(message=why),))
        error.reason = reason or "Invalid"
        error.code = _CODES.get(error.reason, 422)
        return error


@cache
def environment() -> cel.Env | None:
    """What compiles CEL, or None where the library is not installed."""
    try:
        from cel_expr_python import cel  # noqa: PLC0415 - 50 MB that no sandbox without policies needs
        from cel_expr_python.ext import ext_optional  # noqa: PLC0415
    except ImportError:
        return None
    names = ("object", "oldObject", "request", "variables")
    return cel.NewEnv(variables=dict.fromkeys(names, cel.Type.DYN), extensions=[ext_optional.ExtOptional()])


@lru_cache(1024)
def _compiled(expression: str) -> cel.Expression:
    made = environment()
    if made is None:
        raise PolicyError(NOT_ENFORCED)
    try:
        return made.compile(expression)
    except RuntimeError as error:
        raise PolicyError(f"compilation error: {error}") from error


def _evaluate(expression: str, values: Mapping[str, Any]) -> Any:
    result = _compiled(expression).eval(data=values)
    if result.type().name() == "ERROR":
        raise PolicyError(str(result.value()))
    return result.plain_value()


def _maps(expression: str) -> str:
    """The expression with maps in place of typed objects."""

    def render(found: re.Match[str]) -> str:
        return found[1] or (f'"{found[2]}"' if found[2] else "")

    return _TYPED.sub(render, expression)
