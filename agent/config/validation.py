"""Rules between keys whose values are valid by themselves.

A contradiction is refused even where one key could simply win: whoever wrote both relies on both.
"""

from __future__ import annotations

import datetime as dt
import posixpath
import re
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet

from agent.annotations import LABEL
from agent.config.choices import Mode, RebootMethod, Required
from agent.config.essential_modules import ESSENTIAL_MODULES
from agent.config.groups import Override
from agent.config.overrides import MOST, merged
from agent.config.schema import (
    AuditException,
    Blackout,
    Config,
    Hooks,
    Modprobe,
    Notify,
    Prometheus,
    Reboot,
    Sentinel,
    Window,
)
from agent.config.schema_tree import keys
from agent.config.selector import parse

# Set by the request itself, or they would change its meaning.
_OUR_HEADERS = frozenset({"authorization", "accept", "accept-encoding", "host", "content-length", "connection"})

_LONGEST_MONTH = 31

# An exception that outlives its author is a hole without an owner.
_LONGEST_EXCEPTION_DAYS = 366
_CLUSTER = "cluster"
_SELECTS = {False: ("node", "labels"), True: ("namespace", "kind", "name", "subject", "labels")}

Broken = Iterator[tuple[str, str]]  # (key path, message)
_SECRETS = {"urlFile": "URL", "keyFile": "routing key"}


def broken(config: Config, given: AbstractSet[str], wrong: AbstractSet[str]) -> Broken:
    """Key path and message of each broken rule. given: paths in the file. wrong: those with a problem.

    A key with a problem of its own holds its default here, and no rule reports more about it.
    """
    touched = {around for key in wrong for around in _around(key)}
    alone = list(_all(config, given))
    for key, message in (*alone, *_groups(config, set(alone))):
        if key not in touched:
            yield key, message


def _around(key: str) -> Iterator[str]:
    """The key and every section and list that it is in."""
    while key:
        yield key
        key = key[: max(key.rfind("."), key.rfind("["), 0)]


def _all(config: Config, given: AbstractSet[str]) -> Broken:
    yield from _modprobe(config.modprobe)
    if config.denials.noquiet and config.apparmor.mode is Mode.OFF:
        yield "denials.noquiet", "nothing sets it while apparmor.mode is off: write enforce, or leave it out"
    yield from _sentinel(config.reboot.sentinel, given)
    for index, window in enumerate(config.reboot.windows):
        yield from _window(window, f"reboot.windows[{index}]")
    for index, blackout in enumerate(config.reboot.blackouts):
        yield from _blackout(blackout, f"reboot.blackouts[{index}]")
    yield from _prometheus(config.reboot.blockers.prometheus)
    for index, pods in enumerate(config.reboot.blockers.pods):
        if not pods:
            yield f"reboot.blockers.pods[{index}]", "is empty: every pod would block every reboot"
    yield from _reboot(config.reboot, given)
    yield from _hooks(config.reboot.hooks)
    sections = (key for key in keys(Config).values() if hasattr(key.default, "mode"))
    controls = [key.attribute.replace("_", "-") for key in sections if key.attribute != "reboot"]
    for index, exception in enumerate(config.exceptions):
        yield from _exception(exception, f"exceptions[{index}]", (*controls, _CLUSTER))
    for index, receiver in enumerate(config.notify):
        yield from _notify(receiver, f"notify[{index}]")


def _modprobe(modprobe: Modprobe) -> Broken:
    folder, name = posixpath.split(modprobe.file)
    if posixpath.basename(folder) != "modprobe.d" or not name.endswith(".conf") or name == ".conf":
        yield "modprobe.file", f"{modprobe.file} is not read by modprobe: write NAME.conf in a folder modprobe.d"
    forced = {module.replace("-", "_") for module in modprobe.force}
    for index, module in enumerate(modprobe.deny):
        why = ESSENTIAL_MODULES.get(name := module.replace("-", "_"))
        if why is not None and name not in forced:
            yield (
                f"modprobe.deny[{index}]",
                f"{module} is what nodes run on ({why}): write it in modprobe.force to deny it",
            )
    denied = forced | {module.replace("-", "_") for module in modprobe.deny}
    for index, module in enumerate(modprobe.allow):
        if module.replace("-", "_") in denied:
            yield (
                f"modprobe.allow[{index}]",
                f"{module} is denied by modprobe.deny or modprobe.force too: write it in one of them",
            )


def _sentinel(sentinel: Sentinel, given: AbstractSet[str]) -> Broken:
    here = "reboot.sentinel"
    if f"{here}.file" in given and sentinel.command:
        yield f"{here}.command", "is given beside file: the sentinel is a file or a command, write one of them"
    if not sentinel.command and sentinel.exit_codes != Sentinel().exit_codes:
        yield f"{here}.exitCodes", "is not used without a command: write command too, or leave it out"
    if Required.REQUIRED not in sentinel.exit_codes.values():
        yield f"{here}.exitCodes", "has no code that means required: the node would never reboot"


def _window(window: Window, here: str) -> Broken:
    if not window.days:
        yield f"{here}.days", "is empty: the window would never open"
    if too_late := [day for day in window.days_of_month if day > _LONGEST_MONTH]:
        yield f"{here}.daysOfMonth", f"{too_late[0]} is in no month: write days from 1 to {_LONGEST_MONTH}"
    if window.start == window.end != "00:00":
        yield f"{here}.end", f"start and end are both {window.end}: leave both out for the whole day"


def _blackout(blackout: Blackout, here: str) -> Broken:
    start, end = blackout.start, blackout.end
    if not start:
        yield f"{here}.start", "is missing: write the first day"
    elif end and len(end) != len(start):
        yield f"{here}.end", f"{end} and start {start} are not of one form: give both with a year, or none"
    elif end and end < start and len(start) == len("2026-12-24"):
        yield f"{here}.end", f"{end} is before start {start}"


def _exception(exception: AuditException, here: str, controls: tuple[str, ...]) -> Broken:
    for name, key in keys(AuditException).items():
        if not getattr(exception, key.attribute):
            yield f"{here}.{name}", f"is missing: {key.about}"
    control, slash, check = exception.id.partition("/")
    if exception.id and not (slash and check and exception.id.isprintable() and control in controls):
        yield f"{here}.id", f"{exception.id!r} is no check: write control/check with one of {', '.join(controls)}"
    known = _SELECTS[control == _CLUSTER]
    for name in exception.selector:
        if name not in known:
            yield f"{here}.selector.{name}", f"is not known for {exception.id}: write {', '.join(known)}"
    if (labels := exception.selector.get("labels")) is not None:
        try:
            if not parse(labels):
                yield f"{here}.selector.labels", "is empty: write labels of the nodes, such as pool=gpu"
        except ValueError as error:
            yield f"{here}.selector.labels", f"is not a label selector: {error}"
    latest = dt.datetime.now(dt.UTC).date() + dt.timedelta(_LONGEST_EXCEPTION_DAYS)
    if exception.expires and dt.date.fromisoformat(exception.expires) > latest:
        yield f"{here}.expires", f"{exception.expires} is more than a year ahead: at most {latest}"


def _prometheus(prometheus: Prometheus) -> Broken:
    here = "reboot.blockers.prometheus"
    plain = Prometheus()
    names = [
        name
        for name, key in keys(Prometheus).items()
        if getattr(prometheus, key.attribute) != getattr(plain, key.attribute)
    ]
    if not prometheus.url and names:
        yield f"{here}.url", f"is empty while {names[0]} is given: no alert would ever block"
    if prometheus.query:
        for name in names:
            if name in ("ignore", "only", "labels", "firingOnly"):
                yield f"{here}.{name}", "filters alerts, but query selects series instead: write one of them"
    if prometheus.token_file and prometheus.basic_auth_file:
        yield f"{here}.basicAuthFile", "is given beside tokenFile: write one of them"
    for header in prometheus.header_files:
        if not re.fullmatch(r"[A-Za-z0-9-]+", header) or header.lower() in _OUR_HEADERS:
            yield f"{here}.headerFiles", f"{header} is not a header that may be set: write another name"
    if prometheus.ca_file and prometheus.url.startswith("http:"):
        yield f"{here}.caFile", "is not used for an http URL: write https, or leave it out"


def _reboot(reboot: Reboot, given: AbstractSet[str]) -> Broken:
    unavailable = reboot.max_unavailable
    if not unavailable.endswith("%") and int(unavailable) < reboot.concurrency:
        key = "maxUnavailable" if "reboot.maxUnavailable" in given else "concurrency"
        yield f"reboot.{key}", f"concurrency {reboot.concurrency} needs maxUnavailable of as many: it is {unavailable}"
    drain = reboot.drain
    if drain.wait_for.timeout > drain.timeout:
        yield "reboot.drain.waitFor.timeout", "is longer than reboot.drain.timeout, which ends the drain before"
    if drain.wait_for.timeout and not (drain.wait_for.pods or drain.wait_for.annotations):
        yield "reboot.drain.waitFor.timeout", "has no meaning without pods or annotations to wait for"
    for name, selectors in (("waitFor.pods", drain.wait_for.pods), ("evictLast", drain.evict_last)):
        if not all(selectors):
            yield f"reboot.drain.{name}", "holds an empty selector, which matches every pod"
    if drain.grace_period is not None and drain.grace_period > drain.timeout:
        yield "reboot.drain.gracePeriod", "is longer than reboot.drain.timeout: the drain would always time out"
    if reboot.method is RebootMethod.COMMAND and not reboot.command:
        yield "reboot.command", "is empty: nothing would reboot the node"
    if reboot.method is RebootMethod.SIGNAL and reboot.command != Reboot().command:
        yield "reboot.command", "is never run with method signal: write method: command, or leave it out"


def _hooks(hooks: Hooks) -> Broken:
    for name, key in keys(Hooks).items():
        for index, hook in enumerate(getattr(hooks, key.attribute)):
            if not hook.command:
                yield f"reboot.hooks.{name}[{index}].command", "is missing: nothing would run"


def _notify(receiver: Notify, here: str) -> Broken:
    kind, secret = receiver.type.value, receiver.type.secret
    files = {"urlFile": receiver.url_file, "keyFile": receiver.key_file}
    if not files[secret]:
        yield f"{here}.{secret}", f"is missing: {kind} needs the file with its {_SECRETS[secret]}"
    if receiver.key_file and secret != "keyFile":
        yield f"{here}.keyFile", f"is not used by {kind}: leave it out"


def _groups(config: Config, known: AbstractSet[tuple[str, str]]) -> Broken:
    """Overrides and canaries. known: what is wrong with the policy without any override."""
    written = {LABEL, *config.reboot.node_labels.before, *config.reboot.node_labels.after}
    selectors = {f"overrides[{index}].nodeSelector": one.node_selector for index, one in enumerate(config.overrides)}
    for here, selector in (*selectors.items(), ("rollout.canary", config.rollout.canary)):
        for key in (one.key for one in selector.requirements if one.key in written):
            yield here, f"{key} is written by the agent itself: its policy would change with every change of the label"
    if len(config.overrides) > MOST:
        yield "overrides", f"has {len(config.overrides)} entries: at most {MOST}"
    names: set[str] = set()
    for index, override in enumerate(config.overrides[:MOST]):
        here = f"overrides[{index}]"
        if not override.name or override.name in names:
            yield f"{here}.name", f"{override.name} is another override's" if override.name else "is missing"
        names.add(override.name)
        if not override.node_selector:
            yield f"{here}.nodeSelector", "is missing or empty, which matches every node: change the policy itself"
        for key, message in refused(config, [override]):
            if (key, message) not in known:
                yield f"{here}.{key}", message


def refused(config: Config, chosen: Sequence[Override]) -> Broken:
    """Broken rules of the policy that these overrides make; they win over what contradicts them in the rest."""
    given = {".".join(map(str, change.path)) for override in chosen for change in override.changes}
    yield from _all(merged(config, chosen), given)
