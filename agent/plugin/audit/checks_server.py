"""Credentials, admission, and what only the API server's metrics show. Absent is unknown here, never a pass."""

from __future__ import annotations

import re
from collections.abc import Iterator

from agent.model import Severity, Status
from agent.plugin.audit import rbac
from agent.plugin.audit.check import Affected, Check, PlainResult
from agent.plugin.audit.view import Token, View
from agent.text import join_limited

_DAY = 86400.0
_BOOTSTRAP_DAYS = 1  # kubeadm's own: 24 hours
_MANAGED = re.compile(r"-eks-|-gke\.|-aks|-aliyun|-tke")
# Groups of the API server itself: those without a dot, and these; a CRD may be below k8s.io too.
_CORE = re.compile(
    r"[a-z]+/|(admissionregistration|apiextensions|apiregistration|authentication|authorization|certificates|"
    r"coordination|discovery|events|flowcontrol\.apiserver|internal\.apiserver|networking|node|rbac\.authorization|"
    r"resource|scheduling|storage|storagemigration)\.k8s\.io/"
)
_ENCRYPTED = "k8s:enc:"
_BOOTSTRAP_USERS = ("system:bootstrap:", "system:bootstrappers:")
_TRANSFORMED = "apiserver_storage_transformation_operations_total"


def _certificate_users(view: View) -> list[Affected] | PlainResult:
    """Signs of them alone: who holds a certificate that the client CA signed elsewhere is in no object."""
    if "client-ca-file" in view.flags and not view.flags["client-ca-file"]:
        return PlainResult(Status.PASS, "the API server accepts no client certificate: it has no --client-ca-file")
    found = [Affected("CertificateSigningRequest", "", name, f"of {user}") for name, user in view.certificates]
    if view.by_certificate and not view.user.startswith("system:"):
        found.append(Affected("User", "", view.user, "this audit's own credential is a client certificate"))
    if not found and "certificate requests" in view.problems:
        return PlainResult(Status.UNKNOWN, view.problems["certificate requests"])
    return found or PlainResult(
        Status.INFO,
        f"no sign that they do: none of {view.counts['certificate requests']:,} certificate requests was signed for a "
        "user, and this audit has no such certificate; what was signed elsewhere is not visible here",
    )


def _token_users(view: View) -> list[Affected] | PlainResult:
    """A token that is used while no pod runs under its account is in someone's hands, or an external program's."""
    running = {(one.namespace, one.account) for one in view.workloads.values()}
    found = [
        Affected("Secret", one.namespace, one.name,
                 f"of {one.account}: used {_days(view, one.last_used)} days ago, and no pod runs as it")
        for one in view.tokens if one.last_used and (one.namespace, one.account) not in running
    ]  # fmt: skip
    own = "; this audit itself is a service account" if view.user.startswith("system:serviceaccount:") else ""
    return found or PlainResult(
        Status.INFO,
        f"no sign that they do: none of {len(view.tokens):,} tokens that are Secrets was used without a pod{own}; "
        "tokens on request (kubectl create token) are visible in the audit log alone",
    )


def _bootstrap_users(view: View) -> list[Affected] | PlainResult:
    """By what is bound to their group: the token of a node that joins may ask for a certificate, and little else."""
    if view.flags.get("enable-bootstrap-token-auth") == "false":
        return PlainResult(Status.PASS, "the API server accepts none: --enable-bootstrap-token-auth is false")
    of_tokens = [one for one in view.grants if not one.subject.is_account
                 and f"{one.subject.name}:".startswith(_BOOTSTRAP_USERS)]  # fmt: skip
    found = [
        Affected(one.binding_kind, one.scope, one.binding, one.role, str(one.subject))
        for one in of_tokens if one.powers is not None and not one.has(rbac.JOIN)
    ]  # fmt: skip
    return found or PlainResult(
        Status.PASS,
        f"{len(view.bootstrap):,} tokens, and {len(of_tokens):,} bindings for them, which let a node join and no more",
    )


def _legacy_tokens(view: View) -> Iterator[Affected]:
    for one in view.tokens:
        used = f"last used {_days(view, one.last_used)} days ago" if one.last_used else "no use recorded"
        yield Affected("Secret", one.namespace, one.name, f"of {one.account}, {_age(view, one)}, {used}")


def _bootstrap(view: View) -> Iterator[Affected]:
    for one in view.bootstrap:
        if not one.created or view.now - one.created > _BOOTSTRAP_DAYS * _DAY:
            yield Affected("Secret", one.namespace, one.name, _age(view, one))


def _age(view: View, token: Token) -> str:
    return f"{_days(view, token.created)} days old" if token.created else "of unknown age"


def _days(view: View, moment: float) -> int:
    return int(max(0.0, view.now - moment) // _DAY)


def _webhooks(view: View) -> Iterator[Affected] | PlainResult:
    """Mutating ones are not read: an injector of side-cars that is down must not stop every pod."""
    if not view.webhooks:
        return PlainResult(Status.NOT_APPLICABLE, "no validating webhooks")
    return (Affected("ValidatingWebhookConfiguration", "", one.configuration, f"{one.name}: failurePolicy: Ignore")
            for one in view.webhooks if one.ignores_failure)  # fmt: skip


def _admission(view: View) -> Iterator[Affected] | PlainResult:
    if not view.admission:
        return PlainResult(Status.NOT_APPLICABLE, "no ValidatingAdmissionPolicy")
    return (Affected("ValidatingAdmissionPolicy", "", name, "no binding denies")
            for name, denies in view.admission.items() if not denies)  # fmt: skip


def _alpha(view: View) -> Iterator[Affected] | PlainResult:
    on = [labels.get("name", "") for labels, value in view.metrics.get("kubernetes_feature_enabled", [])
          if labels.get("stage") == "ALPHA" and value]  # fmt: skip
    served = [name for name in view.groups if _CORE.match(name) and "alpha" in name.rpartition("/")[2]]
    if "kubernetes_feature_enabled" not in view.metrics and not served:
        return PlainResult(Status.UNKNOWN, "the API server does not publish kubernetes_feature_enabled")
    return (Affected(kind, "", name) for kind, names in (("feature gate", on), ("API", served)) for name in names)


def _at_rest(view: View) -> PlainResult:
    samples = view.metrics.get(_TRANSFORMED, [])
    prefixes = sorted({
        labels.get("transformer_prefix", "") for labels, value in samples
        if value and labels.get("transformation_type") == "to_storage" and labels.get("status", "OK") == "OK"
        and labels.get("resource") == "secrets"
    })  # fmt: skip
    if _MANAGED.search(view.version):
        return PlainResult(
            Status.UNKNOWN, f"{view.version} is managed: whether etcd is encrypted is in the cloud's own API"
        )
    if not samples:
        return PlainResult(Status.FAIL, "the metrics have no encrypted write: no encryption is configured")
    if not prefixes:
        return PlainResult(Status.UNKNOWN, "the metrics of this API server show no Secret that was written")
    bare = [prefix for prefix in prefixes if not prefix.startswith(_ENCRYPTED)]
    if bare:
        return PlainResult(Status.FAIL, "the API server has written in clear (identity)")
    return PlainResult(Status.PASS, f"written with {join_limited(prefixes)}; older values may still be in clear")


def _audit(view: View) -> PlainResult:
    samples = view.metrics.get("apiserver_audit_event_total")
    if samples is None:
        return PlainResult(Status.UNKNOWN, "the API server does not publish apiserver_audit_event_total")
    total = sum(value for _, value in samples)
    if not total:
        return PlainResult(Status.FAIL, "no audit event since the API server started")
    return PlainResult(Status.PASS, f"{total:,.0f} events were made; whether they are stored is not visible here")


def _static_users(view: View) -> PlainResult:
    samples = view.metrics.get("authenticated_user_requests")
    if samples is None:
        return PlainResult(Status.UNKNOWN, "the API server does not publish authenticated_user_requests")
    named = sorted({labels.get("username", "") for labels, _ in samples} - {"other", ""})
    return PlainResult(
        Status.INFO, f"requests were made as {join_limited(named)}" if named else "no well-known name was used"
    )


CHECKS: tuple[Check, ...] = (
    Check("certificate-users", "Users do not authenticate with client certificates", Severity.MEDIUM, "K2", ("3.1.1",),
          ("user",), _certificate_users, "an identity provider (OIDC, a webhook)",
          "Give users an identity provider: a certificate cannot be revoked, and holds its groups until it expires."),
    Check("token-users", "Users do not authenticate with service account tokens", Severity.MEDIUM, "K2", ("3.1.2",),
          ("service account tokens", "pods", "user"), _token_users, "an identity provider, or a token of a pod's own",
          "Give users an identity provider, and programs outside tokens with an expiry; then delete the Secret."),
    Check("bootstrap-users", "Users do not authenticate with bootstrap tokens", Severity.MEDIUM, "K2", ("3.1.3",),
          ("clusterrolebindings", "rolebindings", "clusterroles", "roles", "bootstrap tokens"), _bootstrap_users,
          "rights to join a node alone", "Delete the binding: whoever has a bootstrap token has its role."),
    Check("service-account-tokens", "No service account token is a Secret", Severity.HIGH, "K14", (),
          ("service account tokens",), _legacy_tokens, "tokens with an expiry",
          "Such a token never expires. Use the TokenRequest API (kubectl create token, projected volumes), then "
          "delete " "the Secret."),
    Check("bootstrap-tokens", "No bootstrap token is older than 24 hours", Severity.MEDIUM, "K14", (),
          ("bootstrap tokens",), _bootstrap, "none older than 24 hours",
          "kubeadm token delete ID: whoever has it can join a node. Its expiry is in its data, which is not read."),
    Check("webhook-failures", "Validating webhooks fail closed", Severity.MEDIUM, "K15", (), ("validating webhooks",),
          _webhooks, "failurePolicy: Fail",
          "Set failurePolicy: Fail, with enough replicas and kube-system excluded: else taking it down switches it "
          "off."),
    Check("admission-policies", "Every ValidatingAdmissionPolicy denies", Severity.INFO, "K6", (),
          ("admission policies", "admission policy bindings"), _admission, "a binding with Deny",
          "Bind it with validationActions: [Deny], or remove it.", Status.INFO),
    Check("alpha-features", "No alpha feature or API is on", Severity.LOW, "K13", (), ("metrics", "groups"), _alpha,
          "none", "Switch off what is not used: alpha features have no security support."),
    Check("encryption-at-rest", "Secrets are encrypted in etcd", Severity.MEDIUM, "K16", ("1.2.27", "1.2.28"),
          ("metrics", "version"), _at_rest, "an encrypting provider first",
          "Set --encryption-provider-config with a KMS, then write every Secret again."),
    Check("audit-events", "The API server makes audit events", Severity.MEDIUM, "K12", ("3.2.1",), ("metrics",), _audit,
          "at least one", "Set an audit policy and a log path or webhook: one alone logs nothing."),
    Check("static-users", "Requests of well-known user names", Severity.INFO, "K2", (), ("metrics",), _static_users,
          "none", ""),
)  # fmt: skip
