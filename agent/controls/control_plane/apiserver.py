"""The checks of kube-apiserver: CIS 1.2, and what it leaves out. One row each, all pure.

https://kubernetes.io/docs/reference/command-line-tools-reference/kube-apiserver/
"""

from __future__ import annotations

from agent.controls.control_plane import documents
from agent.controls.control_plane.check import (
    Check,
    Facts,
    Judge,
    Line,
    Unknown,
    flag,
    is_set,
    noted,
    shown,
    table,
    unset,
)
from agent.controls.control_plane.observe import OLD_TLS
from agent.controls.kubelet.check import CheckResult
from agent.controls.kubelet.checks import STRONG_CIPHERS, WEAK_TLS
from agent.host import Program
from agent.model import Severity, Status

CRITICAL, HIGH, MEDIUM, LOW, INFO = Severity
# On unless they are disabled; only those that a check reads.
_DEFAULT_PLUGINS = frozenset(("ServiceAccount", "NamespaceLifecycle", "PodSecurity"))
_SAFE_ANONYMOUS = (
    "an AuthenticationConfiguration with anonymous.enabled: true and conditions for the paths /livez, /readyz and "
    "/healthz (--anonymous-auth=false alone breaks kubeadm's probes)"
)


def _anonymous(facts: Facts) -> CheckResult:
    on, paths, source = documents.anonymous(facts)
    answers = [one for one in facts.seen.answers("/version") if one[1].status in (200, 401, 403)]
    refused = answers and all(answer.status == 401 for _, answer in answers)
    if refused and (not on or not paths or documents.only_health(paths)):
        url = answers[0][0]
        return CheckResult(Status.PASS, f"GET {url}: 401, off for all but health checks", source)
    if answers and not refused and not (on and not documents.only_health(paths)):
        url, answer = answers[0]
        observed = f"GET {url}: {answer}, although it is set to be off ({source})"
        return CheckResult(Status.FAIL, observed, source, "Restart kube-apiserver so that it uses its configuration.")
    if not on:
        return CheckResult(Status.PASS, "anonymous requests are refused", source)
    if documents.only_health(paths):
        return CheckResult(Status.PASS, f"only {', '.join(paths)}", source)
    observed = f"on for {', '.join(paths) or 'every path'}; only authorization stands in the way"
    return CheckResult(Status.FAIL, observed, source, facts.fix(f"Use {_SAFE_ANONYMOUS}"))


def _anonymous_live(facts: Facts) -> CheckResult:
    answers = [one for one in facts.seen.answers("/api/v1/nodes") if one[1].status in (200, 401, 403)]
    if not answers:
        raise Unknown(facts.seen.unprobed or "no answer to GET /api/v1/nodes without credentials")
    if opened := [url for url, answer in answers if answer.status == 200]:
        step = "Take system:anonymous and system:unauthenticated out of every binding, and AlwaysAllow out of the "
        return CheckResult(Status.FAIL, f"GET {opened[0]} without credentials: 200, every client reads the cluster",
                           opened[0], step + "authorizers; whoever reached this port knows its secrets.")  # fmt: skip
    url, answer = max(answers, key=lambda one: one[1].status or 0)
    status = Status.PASS if answer.status == 401 else Status.INFO
    return CheckResult(status, f"GET {url} without credentials: {answer}", url)


def _mode(name: str) -> Judge:
    def judge(facts: Facts) -> CheckResult:
        types, source, _ = documents.authorizers(facts)
        observed = ", ".join(types) or "none"
        if name in types:
            return CheckResult(Status.PASS, observed, source)
        fix = facts.fix(f"Add the authorizer {name}")
        return CheckResult(Status.FAIL, f"{observed}: no {name}", source, fix)

    return judge


def _always_allow(facts: Facts) -> CheckResult:
    fix = facts.fix("Take AlwaysAllow out of the authorizers, and set --authorization-mode=Node,RBAC")
    if facts.all.allows_anything:
        why = "a made-up verb is allowed (SelfSubjectAccessReview): AlwaysAllow, or the agent's rights are far too wide"
        return CheckResult(Status.FAIL, why, "the API server", fix)
    types, source, _ = documents.authorizers(facts)
    observed = (", ".join(types) or "none") + (
        "; a made-up verb is refused" if facts.all.allows_anything is False else ""
    )
    if "AlwaysAllow" not in types:
        return CheckResult(Status.PASS, observed, source)
    unset = not facts.value("authorization-config") and not facts.value("authorization-mode")
    return CheckResult(Status.FAIL, f"{observed}{' (the default)' if unset else ''}", source, fix)


def _webhook_authorizer(facts: Facts) -> CheckResult:
    types, source, given = documents.authorizers(facts)
    hooks = [documents.mapping(one.get("webhook"), source) for one in given if one.get("type") == "Webhook"]
    if not hooks:
        why = "Webhook without an AuthorizationConfiguration" if "Webhook" in types else "no webhook authorizer"
        return CheckResult(Status.NOT_APPLICABLE, why, source)
    policies = [str(hook.get("failurePolicy")) for hook in hooks]
    if set(policies) == {"Deny"}:
        return CheckResult(Status.PASS, "failurePolicy: Deny", source)
    step = f"Set failurePolicy: Deny in {source}, unless requests may pass without the webhook."
    return CheckResult(Status.FAIL, f"failurePolicy: {', '.join(policies)}", source, step)


def _plugin(name: str, *, on: bool, missing: Status = Status.FAIL, note: str = "") -> Judge:
    """Whether an admission plugin is (not) enabled. missing: the status where it is not so."""
    flags = ("enable-admission-plugins", "disable-admission-plugins", "admission-control")

    def judge(facts: Facts) -> CheckResult:
        enabled, disabled, whole = (facts.value(one) for one in flags)
        active = name in whole if whole else (name in enabled or name in _DEFAULT_PLUGINS) and name not in disabled
        by = flags[2] if whole else flags[1] if name in disabled else flags[0]
        observed = f"{name} is {'on' if active else 'off'}" + ("" if active is on else note)
        if active is on:
            return facts.passed(observed, by)
        if missing is Status.INFO:
            return facts.info(observed, by)
        where = "--disable-admission-plugins" if name in disabled else "--enable-admission-plugins"
        return facts.failed(observed, f"Change {where} so that {name} is {'on' if on else 'off'}", by)

    return judge


def _pod_security_defaults(facts: Facts) -> CheckResult:
    document = documents.pod_security(facts)
    flags = "admission-control-config-file"
    if document is None:
        return facts.info("no defaults: namespaces without a label are privileged; see the cluster's labels", flags)
    defaults = documents.mapping(document.get("defaults") or {}, "defaults")
    exempt = documents.mapping(document.get("exemptions") or {}, "exemptions")
    level = str(defaults.get("enforce") or "privileged")
    spaces, *others = ([str(one) for one in documents.sequence(exempt.get(key), key)] for key in _EXEMPT)
    spaces = [one for one in spaces if not one.startswith("kube-")]
    found = [f"enforce: {level}"] if level not in ("baseline", "restricted") else []
    found += [f"exempt namespaces: {', '.join(spaces)}"] if spaces else []
    found += [f"exempt {key}: {', '.join(some)}" for key, some in zip(_EXEMPT[1:], others, strict=True) if some]
    if not found:
        return facts.passed(f"enforce: {level}, no namespace is exempt", flags)
    fix = f"Set defaults.enforce to baseline and empty exemptions in {facts.component.path(flags)}."
    return CheckResult(Status.FAIL, "; ".join(found), facts.source(flags), fix)


_EXEMPT = ("namespaces", "usernames", "runtimeClasses")


def _audit(facts: Facts) -> CheckResult:
    path, hook, policy = (facts.value(one) for one in _AUDIT_FLAGS)
    if not (path or hook) or not policy:
        missing = "no policy file" if path or hook else "no backend" if policy else "neither a backend nor a policy"
        fix = "Set --audit-policy-file and --audit-log-path (both: one alone logs nothing)"
        return facts.failed(f"nothing is logged: {missing}", fix, *_AUDIT_FLAGS)
    file, document = facts.document("audit-policy-file")
    logs, gaps = documents.audit_gaps(document, file)
    if not logs:
        step = f"Add rules to {file}; kube-apiserver restarts."
        return CheckResult(Status.FAIL, f"nothing is logged: {file}: {gaps[0]}", facts.source(*_AUDIT_FLAGS), step)
    return facts.passed(f"{file}, written to {path or 'a webhook'}", *_AUDIT_FLAGS)


def _audit_policy(facts: Facts) -> CheckResult:
    if not facts.value("audit-policy-file"):
        return facts.failed("no audit policy", "Set --audit-policy-file", "audit-policy-file")
    backend = any(facts.value(one) for one in _AUDIT_FLAGS[:2])
    file, document = facts.document("audit-policy-file")
    _, gaps = documents.audit_gaps(document, file)
    found = (*(() if backend else ("no backend: nothing is logged",)), *gaps)
    if not found:
        return facts.passed(f"{file}: every request reaches a rule, secrets without their content", "audit-policy-file")
    step = f"Change the rules in {file}; kube-apiserver restarts."
    return CheckResult(Status.FAIL, "; ".join(found), facts.source("audit-policy-file"), step)


_AUDIT_FLAGS = ("audit-log-path", "audit-webhook-config-file", "audit-policy-file")


def _at_least(name: str, least: int) -> Judge:
    def judge(facts: Facts) -> CheckResult:
        text = facts.value(name)
        try:
            number = int(text)
        except ValueError:
            raise Unknown(f"--{name}={text[:80]!r} is no number") from None
        note = "" if facts.value("audit-log-path") else " (no audit log is written)"
        if number >= least:
            return facts.passed(shown(name, text) + note, name)
        why = ": kept without limit, until the disk is full" if number == 0 else ""
        return facts.failed(shown(name, text) + why + note, f"Set --{name}={least}", name)

    return judge


def _etcd(facts: Facts) -> CheckResult:
    names = ("etcd-certfile", "etcd-keyfile", "etcd-cafile", "etcd-servers", "etcd-servers-overrides")
    *files, servers, others = (facts.value(one) for one in names)
    servers = (*servers, *(url for one in others for url in one.partition("#")[2].split(";")))
    plain = [url for url in servers if not url.startswith(("https://", "unix:"))]
    if all(files) and not plain and servers:
        return facts.passed(f"{', '.join(servers)}, with a certificate of its own", *names)
    if servers and all(url.startswith("unix:") for url in servers):
        return facts.passed(f"{', '.join(servers)}: a socket of this node", "etcd-servers")
    missing = [shown(name, "") for name, value in zip(names, files, strict=False) if not value]
    observed = "; ".join((*(f"in the clear: {url}" for url in plain), *missing)) or "no etcd server is named"
    fix = "Set https URLs, --etcd-certfile, --etcd-keyfile and --etcd-cafile"
    return facts.failed(observed, fix, *names)


def _serving(facts: Facts) -> CheckResult:
    names = ("tls-cert-file", "tls-private-key-file")
    if not all(facts.value(one) for one in names):
        return facts.failed("self-signed, in --cert-dir", "Set --tls-cert-file and --tls-private-key-file", *names)
    first = facts.certificates(names[0])[0]
    observed = f"{facts.component.path(names[0])}, of {first.common_name or 'a holder without a name'}"
    if first.self_issued:
        return facts.failed(f"{observed}, self-signed", "Use a certificate of the cluster's CA", *names)
    return facts.passed(f"{observed}, issued by a CA", *names)


def _client_ca(facts: Facts) -> CheckResult:
    if not facts.value("client-ca-file"):
        return facts.failed(shown("client-ca-file", ""), "Set --client-ca-file", "client-ca-file")
    facts.certificates("client-ca-file")
    return facts.passed(shown("client-ca-file", facts.value("client-ca-file")), "client-ca-file")


def _encryption(facts: Facts) -> CheckResult:
    name = "encryption-provider-config"
    if not facts.value(name):
        return facts.failed("secrets are stored in the clear: no encryption is configured",
                            "Set --encryption-provider-config", name)  # fmt: skip
    provider, path = documents.secrets_provider(facts), facts.component.path(name)
    if provider in ("", "identity"):
        why = "the first provider for secrets is identity" if provider else "no entry names secrets"
        step = f"Put kms, secretbox or aescbc first for secrets in {path}, then write every secret again."
        return CheckResult(Status.FAIL, f"secrets are written in the clear: {why}", facts.source(name), step)
    note = "; its key has to be rotated every 200,000 writes" if provider == "aesgcm" else ""
    return facts.passed(f"secrets are written with {provider}{note}", name)


def _ciphers(facts: Facts) -> CheckResult:
    names = facts.value("tls-cipher-suites")
    if not names:
        return facts.info("--tls-cipher-suites is not set: Go's own list", "tls-cipher-suites")
    if weak := [one for one in names if one not in STRONG_CIPHERS]:
        return facts.failed(f"weak: {', '.join(weak)}", "Take them out of --tls-cipher-suites", "tls-cipher-suites")
    return facts.passed(", ".join(names), "tls-cipher-suites")


def _gates(facts: Facts) -> CheckResult:
    gates, runtime = facts.value("feature-gates"), facts.value("runtime-config")
    on = [f"{key}={value}" for key, value in (*gates.items(), *runtime.items())
          if key in ("AllAlpha", "api/all", "api/alpha") and value.lower() in ("true", "1", "t")]  # fmt: skip
    flags = ("feature-gates", "runtime-config")
    if on:
        return facts.failed(", ".join(on), "Name the few features that are needed instead", *flags)
    return facts.passed("not every alpha feature is on", *flags)


def _shared_ca(facts: Facts) -> bool:
    clients = {one.key for one in facts.certificates("client-ca-file")}
    return any(one.key in clients for one in facts.certificates("requestheader-client-ca-file"))


def _proxy_names(facts: Facts) -> CheckResult:
    names = ("requestheader-allowed-names", "requestheader-client-ca-file")
    if not facts.value(names[1]):
        return facts.none("no front proxy is trusted", names[1])
    allowed = facts.value(names[0])
    if allowed:
        return facts.passed(shown(names[0], allowed), *names)
    if not _shared_ca(facts):
        return facts.passed("any name, from a CA that issues nothing else", *names)
    why = "any client certificate may name any user: no name is required, and the CA issues clients' certificates"
    return facts.failed(why, "Set --requestheader-allowed-names=front-proxy-client", *names)


def _aggregation_ca(facts: Facts) -> CheckResult:
    names = ("requestheader-client-ca-file", "client-ca-file")
    if not facts.value(names[0]):
        return facts.none("no front proxy is trusted", names[0])
    if _shared_ca(facts):
        return facts.failed("one CA for the front proxy and for clients", "Give the front proxy its own CA", *names)
    return facts.passed("different CAs", *names)


def _profiling(facts: Facts) -> CheckResult:
    if opened := [url for url, answer in facts.seen.answers("/debug/pprof/") if answer.status == 200]:
        return CheckResult(Status.FAIL, f"GET {opened[0]} without credentials: 200", opened[0],
                           facts.fix("Set --profiling=false"), HIGH)  # fmt: skip
    return flag("profiling", False, "Set --profiling=false")(facts)


def _bind(facts: Facts) -> CheckResult:
    if not facts.seen.sockets:
        return noted("bind-address")(facts)
    return facts.info(f"listens on {', '.join(map(str, facts.seen.sockets))}", "bind-address", "secure-port")


def _tokens(facts: Facts) -> CheckResult:
    names = ("service-account-key-file", "service-account-signing-endpoint")
    if any(facts.value(one) for one in names):
        return facts.passed(", ".join(shown(one, facts.value(one)) for one in names if facts.value(one)), *names)
    return facts.failed("tokens are checked with the TLS key", "Set --service-account-key-file", *names)


def _tls_minimum(facts: Facts) -> CheckResult:
    """Go itself refuses TLS 1.0 and 1.1 by default, whatever the flag allows: an attempt decides."""
    name = "tls-min-version"
    value = facts.value(name)
    attempts = [(one, one.tls[OLD_TLS]) for one in facts.seen.sockets if OLD_TLS in one.tls]
    if value not in WEAK_TLS or (attempts and all("ALERT_PROTOCOL_VERSION" in answer.error for _, answer in attempts)):
        refused = ", and TLS 1.1 is refused" if attempts else ""
        return facts.passed(f"{shown(name, value)}{refused}", name)
    return facts.failed(shown(name, value), "Set --tls-min-version=VersionTLS12", name)


_TABLE: tuple[Line, ...] = (
    ("anonymous", "1.2.1", "K2", LOW, "Anonymous requests reach health checks at most", "off, or conditions",
     _anonymous),
    ("anonymous-live", "", "K2", CRITICAL, "Anonymous requests read nothing", "HTTP 401", _anonymous_live),
    ("token-file", "1.2.2", "K2", HIGH, "No static tokens", "not set",
     unset("token-auth-file")),
    ("external-ips", "1.2.3", "K8", LOW, "Services do not claim external IPs", "DenyServiceExternalIPs",
     _plugin("DenyServiceExternalIPs", on=True, missing=Status.INFO,
             note="; whether a Service uses externalIPs is not seen from the node")),
    ("kubelet-client", "1.2.4", "K1", HIGH, "It shows kubelets a client certificate", "both set",
     is_set("kubelet-client-certificate", "kubelet-client-key", fix="Set both")),
    ("kubelet-ca", "1.2.5", "K1", MEDIUM, "It verifies kubelets' certificates", "set",
     is_set("kubelet-certificate-authority", fix="Set --kubelet-certificate-authority once kubelets have certificates "
            "of that CA (serverTLSBootstrap)")),
    ("always-allow", "1.2.6", "K3", CRITICAL, "Requests are authorized", "no AlwaysAllow", _always_allow),
    ("authorizer-node", "1.2.7", "K3", HIGH, "Kubelets are limited to their own node", "Node", _mode("Node")),
    ("authorizer-rbac", "1.2.8", "K3", HIGH, "RBAC decides", "RBAC", _mode("RBAC")),
    ("authorizer-webhook", "", "K3", MEDIUM, "A webhook that fails does not let requests pass", "Deny",
     _webhook_authorizer),
    ("event-rate-limit", "1.2.9", "K5", INFO, "Events are limited", "anything: API priority and fairness exists",
     _plugin("EventRateLimit", on=True, missing=Status.INFO)),
    ("always-admit", "1.2.10", "K3", INFO, "AlwaysAdmit is off", "off", _plugin("AlwaysAdmit", on=False)),
    ("always-pull", "1.2.11", "K6", INFO, "Images are pulled with the pod's own credentials",
     "anything: from 1.35 on the kubelet verifies them", _plugin("AlwaysPullImages", on=True, missing=Status.INFO)),
    ("service-account", "1.2.12", "K3", HIGH, "ServiceAccount admission is on", "on",
     _plugin("ServiceAccount", on=True)),
    ("namespace-lifecycle", "1.2.13", "K3", HIGH, "NamespaceLifecycle is on", "on",
     _plugin("NamespaceLifecycle", on=True)),
    ("pod-security", "", "K6", HIGH, "Pod Security admission is on", "on", _plugin("PodSecurity", on=True)),
    ("pod-security-defaults", "", "K6", MEDIUM, "Pod Security has defaults and no exemptions", "baseline or restricted",
     _pod_security_defaults),
    ("node-restriction", "1.2.14", "K3", HIGH, "Kubelets change their own objects only", "NodeRestriction",
     _plugin("NodeRestriction", on=True)),
    ("profiling", "1.2.15", "K13", LOW, "Profiling is off", "false", _profiling),
    ("audit", "1.2.16", "K12", MEDIUM, "Requests are audited", "a policy that logs, and a backend", _audit),
    ("audit-policy", "3.2.1 3.2.2", "K12", MEDIUM, "The audit policy covers what matters", "every request, no secrets",
     _audit_policy),
    ("audit-maxage", "1.2.17", "K12", LOW, "Audit logs are kept for 30 days", "30 or more",
     _at_least("audit-log-maxage", 30)),
    ("audit-maxbackup", "1.2.18", "K12", LOW, "Audit logs are kept in number", "10 or more",
     _at_least("audit-log-maxbackup", 10)),
    ("audit-maxsize", "1.2.19", "K12", LOW, "Audit logs are rotated late enough", "100 or more",
     _at_least("audit-log-maxsize", 100)),
    ("request-timeout", "1.2.20", "K5", INFO, "The timeout of requests", "anything", noted("request-timeout")),
    ("token-lookup", "1.2.21", "K14", HIGH, "Tokens of deleted service accounts are refused", "true",
     flag("service-account-lookup", True, "Remove --service-account-lookup=false")),
    ("token-key", "1.2.22", "K14", MEDIUM, "Service accounts have a key of their own", "set", _tokens),
    ("etcd", "1.2.23 1.2.26", "K11", HIGH, "It talks to etcd over mutual TLS", "https, and three files", _etcd),
    ("serving-certificate", "1.2.24", "K1", MEDIUM, "Its serving certificate is issued by a CA", "set", _serving),
    ("client-ca", "1.2.25", "K1", HIGH, "Client certificates are checked against a CA", "set, and there", _client_ca),
    ("encryption", "1.2.27 1.2.28", "K16", MEDIUM, "Secrets are encrypted at rest", "a provider that encrypts",
     _encryption),
    ("ciphers", "1.2.29", "K1", LOW, "Only strong cipher suites", "the six with forward secrecy", _ciphers),
    ("tls-minimum", "", "K1", LOW, "TLS 1.2 or later", "VersionTLS12 or later",
     _tls_minimum),
    ("token-expiration", "1.2.30", "K14", LOW, "Tokens are not extended to a year", "false",
     flag("service-account-extend-token-expiration", False, "Set --service-account-extend-token-expiration=false, once "
          "every client reads its token again (metric serviceaccount_stale_tokens_total)")),
    ("bind", "", "K1", INFO, "Where it listens", "anything", _bind),
    ("alpha", "", "K13", MEDIUM, "Not every alpha feature is on", "neither AllAlpha nor api/all", _gates),
    ("proxy-names", "", "K2", HIGH, "Only the front proxy may name users", "set, or a CA of its own", _proxy_names),
    ("proxy-ca", "", "K2", HIGH, "The front proxy has a CA of its own", "different CAs", _aggregation_ca),
    ("debug-socket", "", "K1", HIGH, "No debug socket, which requires no credentials", "not set",
     unset("debug-socket-path")),
    ("bootstrap-tokens", "", "K14", INFO, "Bootstrap tokens", "anything", noted("enable-bootstrap-token-auth")),
    ("allow-privileged", "", "K6", INFO, "Privileged containers", "anything: Pod Security decides",
     noted("allow-privileged")),
)  # fmt: skip
CHECKS: tuple[Check, ...] = table(Program.API_SERVER, *_TABLE)
