"""Valid policies as plain data, made from the same shape that the loader reads."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from agent.config import units
from agent.config.render import spelled
from agent.config.scalar_types import Kind
from agent.config.schema import Config
from agent.config.schema_tree import Choice, Form, Key, Leaf, Many, Nullable, Section, Table, keys

_TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Co", "Cn"), max_codepoint=0xFFFD), max_size=12)
_PATH = st.from_regex(r"/[a-z]{1,8}(/[a-z0-9.-]{0,8}[a-z])?", fullmatch=True)
_LABEL = st.from_regex(r"([a-z]{1,5}\.io/)?[A-Za-z]([A-Za-z0-9_.-]{0,8}[a-z0-9])?", fullmatch=True)
_SELECTOR = st.sampled_from(["a=b", "a!=b", "a in (b,c)", "!a", "x.io/y", "a notin (b), c"])

LEAVES: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.FLAG: st.booleans(),
    Kind.TEXT: _TEXT,
    Kind.WORDS: _TEXT.filter(str.strip),
    Kind.REGEXP: st.sampled_from(["^Watchdog$", "a|b", "[a-z]+$", "(?i)x"]),
    Kind.SELECTOR: _SELECTOR,
    Kind.PATH: _PATH,
    Kind.PATH_OR_NONE: _PATH | st.just(""),
    Kind.PATH_OR_AUTO: _PATH | st.just("auto"),
    Kind.MODULE: st.from_regex(r"[a-z0-9_][A-Za-z0-9_-]{0,10}", fullmatch=True),
    Kind.NAME: st.from_regex(r"[a-z][a-z0-9_-]{0,10}", fullmatch=True),
    Kind.OBJECT_OR_NONE: st.from_regex(r"([a-z]{1,5}/[a-z]{1,5})?", fullmatch=True),
    Kind.ADDRESS: st.sampled_from(["", "0.0.0.0:9105", "[::1]:0", "node:65535"]),
    Kind.URL: st.sampled_from(["http://prometheus:9090", "https://p.example.com/prefix", "http://[::1]:1"]),
    Kind.TIME: st.from_regex(r"([01][0-9]|2[0-3]):[0-5][0-9]", fullmatch=True),
    Kind.DATE: st.sampled_from(["2026-12-24", "2024-02-29"]),
    Kind.DATE_OR_NONE: st.sampled_from(["", "2026-12-24", "12-24", "02-29"]),
    Kind.TIMEZONE: st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu"]),
    Kind.LABEL: _LABEL,
    Kind.LABEL_OR_NONE: _LABEL | st.just(""),
    Kind.LABEL_VALUE: st.from_regex(r"([a-z0-9]([A-Za-z0-9_.-]{0,8}[a-z0-9])?)?", fullmatch=True),
    Kind.COUNT_OR_PERCENT: st.integers(1, 1000) | st.integers(1, 100).map(lambda n: f"{n}%"),
    Kind.EXIT_CODE: st.integers(0, 125),
    Kind.TEMPLATE: st.sampled_from(["", "{node}: {message}", "{{x}}", "plain"]),
    Kind.ARGV: st.tuples(_PATH, st.lists(_TEXT, max_size=2)).map(lambda pair: [pair[0], *pair[1]]),
}


def value(form: Form, key: Key) -> st.SearchStrategy[Any]:
    """What may stand under this key."""
    match form:
        case Section(make):
            return section(make)
        case Nullable(inner):
            return st.none() | value(inner, key)
        case Many(item):
            return st.lists(value(item, key), max_size=3)
        case Table(name, inner):
            return st.dictionaries(LEAVES[name.kind], value(inner, key), max_size=3)
        case Choice():
            return st.sampled_from(form.words)
        case Leaf(Kind.DURATION):
            most = key.most or 86_400
            return st.integers(int((key.least or 0) * 1000), int(most * 1000)).map(
                lambda milliseconds: units.spell_duration(milliseconds / 1000)
            )
        case Leaf(Kind.SIZE):
            return st.integers(int(key.least or 0), int(key.most or 1 << 30)).map(units.spell_size)
        case Leaf(Kind.COUNT | Kind.NATURAL):
            return st.integers(1, int(key.most or 100))
        case Leaf(kind):
            return LEAVES[kind]


def section(make: type[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any few keys of the section."""
    return st.fixed_dictionaries({}, optional={name: value(key.form, key) for name, key in keys(make).items()})


def policies() -> st.SearchStrategy[dict[str, Any]]:
    """Whole policies that also keep the rules between keys."""
    return section(Config).map(_consistent)


def _consistent(policy: dict[str, Any]) -> dict[str, Any]:
    modprobe = policy.get("modprobe", {})
    if "file" in modprobe:
        modprobe["file"] = f"/etc/modprobe.d/{modprobe['file'].replace('/', '-')}.conf"
    denied = {module.replace("-", "_") for key in ("deny", "force") for module in modprobe.get(key, ())}
    if "allow" in modprobe:
        modprobe["allow"] = [one for one in modprobe["allow"] if one.replace("-", "_") not in denied]
    for number, override in enumerate(policy.get("overrides", ())):
        override |= {"name": f"override-{number}", "nodeSelector": override.get("nodeSelector") or "pool=a"}
    parts = (policy, *policy.get("overrides", ()))
    if any(part.get("apparmor", {}).get("mode") == "off" for part in parts):
        for part in parts:
            part.get("denials", {}).pop("noquiet", None)
    if "reboot" in policy:
        _consistent_reboot(policy["reboot"])
    for exception in policy.get("exceptions", ()):
        given = {"id": "kubelet/4.2.6", "selector": {"node": "*"}, "reason": "r", "owner": "o", "expires": "2026-06-30"}
        exception.update({**given, **{name: exception[name] for name in ("reason", "owner") if exception.get(name)}})
    for receiver in policy.get("notify", ()):
        pager = receiver.get("type") == "pagerduty"
        receiver["keyFile"] = "/key" if pager else ""
        receiver["urlFile"] = receiver.get("urlFile") or "/url"
    return policy


def _consistent_reboot(reboot: dict[str, Any]) -> None:
    sentinel = reboot.get("sentinel", {})
    if "command" in sentinel:
        sentinel.pop("file", None)
        sentinel.pop("exitCodes", None) if "required" not in sentinel.get("exitCodes", {}).values() else None
    else:
        sentinel.pop("exitCodes", None)
    for window in reboot.get("windows", ()):
        window["days"] = window.get("days") or ["mon"]
        window["daysOfMonth"] = [min(day, 31) for day in window.get("daysOfMonth", ())]
        if window.get("start") == window.get("end"):
            window.pop("end", None)
    for blackout in reboot.get("blackouts", ()):
        blackout["start"] = blackout.get("start") or "12-24"
        if len(blackout.get("end") or blackout["start"]) != len(blackout["start"]):
            blackout.pop("end")
    prometheus = reboot.get("blockers", {}).get("prometheus")
    if prometheus:
        prometheus["url"] = prometheus.get("url", "https://p")
        if prometheus["url"].startswith("http:"):
            prometheus.pop("caFile", None)
        if prometheus.get("tokenFile"):
            prometheus.pop("basicAuthFile", None)
        prometheus["headerFiles"] = {
            f"X-{number}": path for number, path in enumerate(prometheus.get("headerFiles", {}).values())
        }
        if prometheus.get("query"):
            for name in ("ignore", "only", "labels", "firingOnly"):
                prometheus.pop(name, None)
    if not str(reboot.get("maxUnavailable", "1")).endswith("%"):
        reboot["maxUnavailable"] = max(int(reboot.get("maxUnavailable", 1)), reboot.get("concurrency", 1))
    drain = reboot.get("drain", {})
    drain.get("waitFor", {}).pop("timeout", None)
    for several in (drain.get("evictLast", []), drain.get("waitFor", {}).get("pods", [])):
        several[:] = [one for one in several if one]
    if drain.get("gracePeriod"):
        drain["timeout"] = "30d"
        drain["gracePeriod"] = units.spell_duration(min(units.duration(drain["gracePeriod"]), 3600))
    if reboot.get("method") == "signal":
        reboot.pop("command", None)
    labels = reboot.get("nodeLabels", {})
    for when, some in labels.items():  # no label that the agent writes selects nodes
        labels[when] = {f"agent.example.com/{name.rpartition('/')[2]}": value for name, value in some.items()}
    for hooks in reboot.get("hooks", {}).values():
        for hook in hooks:
            hook.setdefault("command", ["/bin/true"])


def shortest(config: Any) -> dict[str, Any]:
    """The shortest policy that loads to an equal Config."""
    given = ((name, key, getattr(config, key.attribute)) for name, key in keys(type(config)).items())
    return {
        name: shortest(one)
        if isinstance(key.form, Section)
        else [shortest(item) for item in one]
        if isinstance(key.form, Many) and isinstance(key.form.item, Section)
        else spelled(key.form, one)
        for name, key, one in given
        if one != key.default
    }
