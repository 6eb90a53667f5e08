"""Who may do what: RBAC's bindings. Each check is a row; the functions look at grants that are resolved already.

Bindings of cluster-admin in the whole cluster are listed once, and left out of the other checks, which they would fill.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from agent.model import Severity, Status
from agent.plugin.audit import rbac
from agent.plugin.audit.check import Affected, Check, PlainResult
from agent.plugin.audit.pods import is_system
from agent.plugin.audit.rbac import Grant
from agent.plugin.audit.view import View

_NEEDS = ("clusterrolebindings", "rolebindings", "clusterroles", "roles")
_LEAST = "Bind a role with fewer rights, in the one namespace that needs it; kubectl auth can-i --list shows the rest."


def _affected(grant: Grant, detail: str = "") -> Affected:
    return Affected(grant.binding_kind, grant.scope, grant.binding, detail or grant.role, str(grant.subject))


def _having(power: str, where: Callable[[View, Grant], bool]) -> Callable[[View], Iterator[Affected]]:
    def judge(view: View) -> Iterator[Affected]:
        for grant in view.grants:
            is_listed_once = grant.has(rbac.ADMIN) and not grant.scope and power != rbac.ADMIN
            if grant.has(power) and not grant.is_default and not is_listed_once and where(view, grant):
                yield _affected(grant)

    return judge


def _anywhere(_view: View, _grant: Grant) -> bool:
    return True


def _whole_cluster(_view: View, grant: Grant) -> bool:
    return not grant.scope


def _reaches_system(_view: View, grant: Grant) -> bool:
    return not grant.scope or is_system(grant.scope)


def _reaches_privileged(view: View, grant: Grant) -> bool:
    one = view.namespaces.get(grant.scope)
    return _reaches_system(view, grant) or (one is not None and one.enforce == "privileged")


def _user_or_group(_view: View, grant: Grant) -> bool:
    return not grant.scope and not grant.subject.is_account


def _anonymous(view: View) -> Iterator[Affected]:
    """By what the roles let, not by their names: a default role may have been changed."""
    for grant in view.grants:
        if grant.subject.name in rbac.EVERYONE and not grant.subject.is_account and grant.powers is not None:
            least = rbac.DISCOVERY if grant.subject.name == "system:authenticated" else rbac.PUBLIC
            if least not in grant.powers:
                yield _affected(grant)


def _integrations(view: View) -> Iterator[Affected]:
    for grant in view.grants:
        powerful = grant.has(rbac.ADMIN) or grant.has(rbac.SECRETS) or grant.has(rbac.ESCALATE)
        if grant.subject.is_account and not grant.scope and powerful and not grant.is_default:
            known = view.accounts.get((grant.subject.namespace, grant.subject.name))
            of = f" of {known.owner}" if known is not None and known.owner else ""
            yield _affected(grant, f"{grant.role}{of}")


def _users(view: View) -> Iterator[Affected]:
    for grant in view.grants:
        if grant.subject.kind == "User" and not grant.subject.name.startswith("system:"):
            yield _affected(grant)


def _masters(view: View) -> PlainResult:
    more = [str(_affected(grant)) for grant in view.grants
            if grant.subject.name == "system:masters" and grant.role != "ClusterRole/cluster-admin"]  # fmt: skip
    bound = f"; bound besides cluster-admin: {', '.join(more[:3])}" if more else ""
    return PlainResult(
        Status.INFO, f"certificates of system:masters pass every authorizer and are not visible here{bound}"
    )


def _dangling(view: View) -> Iterator[Affected]:
    for grant in view.grants:
        if view.scope and grant.subject.namespace != view.scope:
            continue
        key = (grant.subject.namespace, grant.subject.name)
        if grant.subject.is_account and not is_system(key[0]) and key not in view.accounts:
            yield _affected(grant, "no such service account: whoever creates it has the role")


def _default_accounts(view: View) -> Iterator[Affected]:
    """Bound by name, or as a member of a group of service accounts."""
    for grant in view.grants:
        is_one = grant.subject.is_account and grant.subject.name == "default"
        is_all = f"{grant.subject.name}:".startswith("system:serviceaccounts:") and not grant.has(rbac.DISCOVERY)
        if is_one or is_all:
            yield _affected(grant)


def _token_mounts(view: View) -> Iterator[Affected]:
    """Workloads whose pods hold a token that no binding gives a right."""
    bound = {(grant.subject.namespace, grant.subject.name) for grant in view.grants if grant.subject.is_account}
    groups = {grant.subject.name for grant in view.grants if not grant.has(rbac.DISCOVERY)}
    for one in view.user_workloads:
        if groups.intersection(("system:serviceaccounts", f"system:serviceaccounts:{one.namespace}")):
            continue
        account = view.accounts.get((one.namespace, one.account))
        automount = account is None or account.automount is not False
        mounted = "token-asked" in one.flags or ("token" in one.flags and automount)
        if mounted and (one.namespace, one.account) not in bound:
            yield Affected(one.kind, one.namespace, one.name, f"service account {one.account} has no binding")


CHECKS: tuple[Check, ...] = (
    Check("anonymous", "Anonymous and authenticated clients have the default rights", Severity.CRITICAL, "K2", (),
          _NEEDS, _anonymous, "only health, version and discovery",
          "Delete the binding: anyone who reaches the API server, or who is in the cluster at all, has this role."),
    Check("cluster-admin", "Only Kubernetes' own subjects have cluster-admin", Severity.HIGH, "K3", ("5.1.1",), _NEEDS,
          _having(rbac.ADMIN, _whole_cluster), "system:masters and kubeadm:cluster-admins alone", _LEAST),
    Check("secrets-readers", "No binding reads the Secrets of the whole cluster or of kube-*", Severity.HIGH, "K15",
          ("5.1.2",), _NEEDS, _having(rbac.SECRETS, _reaches_system), "no get, list or watch of secrets",
          f"List and watch return the values as get does. {_LEAST}"),
    Check("wildcards", "No bound role uses wildcards", Severity.MEDIUM, "K3", ("5.1.3",), _NEEDS,
          _having(rbac.WILDCARD, _anywhere), "named verbs, resources and groups",
          "Name what is needed: a wildcard grows with every new resource."),
    Check("create-workloads", "No binding creates pods in the whole cluster", Severity.MEDIUM, "K3", ("5.1.4",), _NEEDS,
          _having(rbac.WORKLOADS, _whole_cluster), "no create of pods or what makes pods",
          f"Who creates a Deployment or a Job creates its pods. {_LEAST}"),
    Check("escalation", "No binding may bind, escalate or impersonate", Severity.HIGH, "K3", ("5.1.8",), _NEEDS,
          _having(rbac.ESCALATE, _anywhere), "no bind, escalate or impersonate",
          "Remove the verbs: each of them gives rights that the subject does not have."),
    Check("persistent-volumes", "No binding creates PersistentVolumes", Severity.HIGH, "K3", ("5.1.9",), _NEEDS,
          _having(rbac.VOLUMES, _whole_cluster), "no create of persistentvolumes",
          "Leave it to the provisioners: a hostPath volume reads any file of a node."),
    Check("node-proxy", "No binding reaches kubelets through nodes/proxy", Severity.HIGH, "K4", ("5.1.10",), _NEEDS,
          _having(rbac.NODE_PROXY, _whole_cluster), "no nodes/proxy",
          "Use nodes/metrics, nodes/stats and nodes/log: nodes/proxy, also with get, runs commands in every pod."),
    Check("certificate-approval", "No binding approves certificates", Severity.HIGH, "K14", ("5.1.11",), _NEEDS,
          _having(rbac.APPROVE, _whole_cluster), "no update of certificatesigningrequests/approval", _LEAST),
    Check("webhook-writers", "No binding changes admission webhooks", Severity.HIGH, "K15", ("5.1.12",), _NEEDS,
          _having(rbac.WEBHOOKS, _whole_cluster), "no write of webhook configurations",
          "A webhook sees and changes every object, Secrets included. " + _LEAST),
    Check("token-creation", "No binding creates tokens of any service account", Severity.HIGH, "K14", ("5.1.13",),
          _NEEDS, _having(rbac.TOKENS, _anywhere), "no create of serviceaccounts/token",
          "Who creates a token has the rights of its account. " + _LEAST),
    Check("exec", "No user or group runs commands in every pod", Severity.MEDIUM, "K3", (), _NEEDS,
          _having(rbac.EXEC, _user_or_group), "no pods/exec, attach, portforward, ephemeralcontainers", _LEAST),
    Check("kube-pods", "Pods are created in system and privileged namespaces by Kubernetes alone", Severity.HIGH, "K15",
          (), (*_NEEDS, "namespaces"), _having(rbac.WORKLOADS, _reaches_privileged), "no create of pods there",
          "A pod there may use every service account and run privileged. " + _LEAST),
    Check("integrations", "No third-party component is administrator, or reads every Secret", Severity.HIGH, "K15", (),
          (*_NEEDS, "serviceaccounts"), _integrations, "none",
          "Where the integration can work in one namespace, restrict it; else accept it by an exception with an "
          "owner."),
    Check("groups", "Roles are bound to groups, not to single users", Severity.LOW, "A1", (), _NEEDS, _users,
          "subjects of kind Group", "Bind a group of the identity provider: membership then follows a user's job."),
    Check("masters", "The group system:masters", Severity.INFO, "K2", ("5.1.7",), _NEEDS, _masters, "no certificate",
          ""),
    Check("dangling-bindings", "Bindings name service accounts that exist", Severity.LOW, "K3", (),
          (*_NEEDS, "serviceaccounts"), _dangling, "no binding for a missing account", "Delete the binding."),
    Check("default-accounts", "The default service accounts have no role", Severity.LOW, "K14", ("5.1.5",), _NEEDS,
          _default_accounts, "no binding of an account called default",
          "Make a service account for the workload: every pod without one uses default."),
    Check("token-mounts", "Pods mount a service account token only where it has a role", Severity.LOW, "K14",
          ("5.1.6",), ("pods", "serviceaccounts", *_NEEDS), _token_mounts, "automountServiceAccountToken: false",
          "Set automountServiceAccountToken: false in the service account, or in the pod."),
)  # fmt: skip
