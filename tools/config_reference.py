"""Prints docs/configuration.md (`python -m tools.config_reference`), made from the dataclasses of the schema."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

from agent.config.render import spelled
from agent.config.schema import API_VERSION, KIND, Config
from agent.config.schema_tree import Choice, Form, Key, Leaf, Many, Nullable, Section, Table, keys
from agent.event_reasons import Reason, Urgency
from tools.config_schema import about

_COMMENT_COLUMN = 58
# Text that every YAML parser reads as text without quotes: words, paths, durations.
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9/_.-]*|(?:[0-9]+[a-zA-Z]+)+")
_YAML_WORDS = ("true", "false", "yes", "no", "on", "off", "null")

_INTRODUCTION = f"""# Configuration

<!-- Made by `make docs` from agent/config/schema.py: change it there. -->

One YAML file, by default `/etc/node-hardening/config.yaml`, or the one named with `--config`. Every key is optional and
the empty file is a sensible policy. `apiVersion: {API_VERSION}` and `kind: {KIND}` may be
left out; when they are there they have to be these.
[agentconfig.schema.json](agentconfig.schema.json) is the same as a JSON Schema, for editors:

    # yaml-language-server: $schema=agentconfig.schema.json

`node-hardening-agent validate FILE` names every problem of a file, with its line and what would be right. A
running agent rejects a file with a problem and keeps using the last valid configuration.

How values are written:

- **Durations** have a unit: `500ms`, `90s`, `10m`, `1h30m`, `2d`. Only `0` may stand without one.
- **Sizes** have a unit too: `512B`, `4KiB`, `1MiB`.
- **Commands** are lists, one argument an entry, the program with an absolute path: there is no shell.
- **Modes**: `enforce` applies and verifies, `audit` only reports, `off` does nothing. `off` and `22:00` need no quotes.
- **Secrets** never stand in the file: keys that end in `File` name the file that holds one.
- Anchors, aliases and `<<` work; tags and a second document are refused. At most 256 KiB of UTF-8.
"""

# What a cluster with patch windows and an on-call rota might run.
EXAMPLE = """\
apiVersion: node-hardening.io/v1alpha1
kind: AgentConfig
modprobe:
  lists: [kubernetes, cis]      # cis stops snaps, USB disks, UDF (optical media, provisioning on Azure), CAN and ATM
  allow: [udf]                  # this site reads optical images
kubelet:
  skip:
    "4.3.1": no kube-proxy here # shown as skipped, with this reason
reboot:
  sentinel:
    command: [/usr/bin/needs-restarting, -r]
    exitCodes: {1: required, 0: none}
  windows:
    - days: [mon, tue, wed, thu]
      start: 22:00
      end: 04:00                # the next morning
      timezone: Europe/Berlin
  blockers:
    prometheus:
      url: http://prometheus.monitoring:9090
      ignore: ^(Watchdog|InfoInhibitor|NodeHardening.*)$
    pods: [batch.example.com/critical=true]
    minimumGap: 10m
  drain:
    timeout: 30m
    onTimeout: abort            # roll back rather than lose data
notify:
  - type: slack
    urlFile: /etc/node-hardening/secrets/slack
    events: [RebootLockStuck, RebootFailed, ConfigRejected]
    cluster: production
"""

# With the one above, every key that is empty by default has a value somewhere: an example says more than a type.
MORE = """\
modprobe:
  deny: [rxrpc, algif_aead]                             # while a CVE is open
  force: [bridge]                                       # the network plugin of these nodes needs no bridge
sysctl:
  mode: enforce
  leave: [kernel.perf_event_paranoid]                   # the profiler of these nodes needs 1
reboot:
  pool: {label: topology.kubernetes.io/zone}            # one node of each zone at a time
  windows:
    - {days: [tue], weeks: [second], start: 22:00, end: 04:00}
    - {daysOfMonth: [1, 15], start: 00:00, end: 00:00}  # the whole day, UTC
  blackouts:
    - {start: 12-20, end: 01-02, reason: year end}      # every year
  blockers:
    prometheus:
      url: https://prometheus.monitoring:9090
      # query: 'sum(up{job="etcd"}) < 3'                # instead of selecting alerts: any result blocks
      only: ^(Etcd|Ceph).*                              # these alerts alone
      labels: severity in (critical),team!=web
      tokenFile: /etc/node-hardening/secrets/prometheus # or basicAuthFile, which holds user:password
      # basicAuthFile: /etc/node-hardening/secrets/prometheus-password
      headerFiles: {X-Scope-OrgID: /etc/node-hardening/secrets/tenant}
      caFile: /etc/node-hardening/secrets/prometheus-ca.crt
  drain:
    podSelector: app!=ingress                           # other pods stay
    gracePeriod: 90s
    waitFor:                                            # on the cordoned node, before anything is evicted
      pods: [batch.example.com/must-finish]
      annotations: {karpenter.sh/do-not-disrupt: "true"}
      timeout: 20m
    volumeTimeout: 5m
  lock: {kuredDaemonset: node-remediation/kured}
  hooks:
    preDrain: [{command: [/usr/local/bin/leave-loadbalancer, --wait], timeout: 2m}]
    preReboot: [{command: [/usr/bin/sync]}]
    postReboot: [{command: [/usr/local/bin/smoke-test]}]
  preferNoScheduleTaint: example.com/reboot-soon
  nodeLabels:
    before: {example.com/maintenance: "true"}
    after: {example.com/maintenance: "false"}
  nodeAnnotations:
    before: {cluster-autoscaler.kubernetes.io/scale-down-disabled: "true"}
exceptions:
  - id: kubelet/4.2.6
    selector: {node: "gpu-*"}
    reason: the vendor's image manages iptables itself
    owner: team-gpu
    expires: 2027-03-31
notify:
  - type: pagerduty
    keyFile: /etc/node-hardening/secrets/pagerduty
    template: "{cluster}: {node} {event}: {message}"
overrides:                                              # docs/policies.md
  - name: gpu
    nodeSelector: node.example.com/pool=gpu
    modprobe: {allow: [udf]}                            # lists are replaced
    kubelet: {skip: {"4.3.1": null}}                    # mappings are merged; null removes an entry
    reboot: {drain: {timeout: 2h}}
rollout:
  canary: node.example.com/canary=true
  soak: 1h
"""


def reference() -> str:
    """The whole page."""
    parts = [
        _INTRODUCTION,
        "## An example policy\n",
        _fenced(EXAMPLE),
        "## What is empty by default\n",
        "An example value for each key that is empty by default and not in the policy above. Not to be copied whole.\n",
        _fenced(MORE),
        "## Every key with its default\n",
        _fenced(every_key()),
        "## Keys by section\n",
        *_tables(Config, ""),
        "## Reasons of Events\n",
        "What `notify[].events` takes. A receiver without `events` gets those marked *on-call*.\n",
        _reasons(),
    ]
    return "\n".join(parts)


def every_key() -> str:
    """A file that holds every key with its default and what it is for; it loads to the default configuration."""
    lines = [f"apiVersion: {API_VERSION}", f"kind: {KIND}", *_lines(Config, 0)]
    return "\n".join(lines) + "\n"


def _lines(make: type[Any], depth: int) -> Iterator[str]:
    for name, key in keys(make).items():
        start = "  " * depth + f"{name}:"
        if isinstance(key.form, Section):
            yield f"{start.ljust(_COMMENT_COLUMN)} # {about(key)}"
            yield from _lines(key.form.make, depth + 1)
        else:
            shown = f"{start} {_inline(spelled(key.form, key.default))}"
            yield f"{shown.ljust(_COMMENT_COLUMN)} # {about(key)}"


def _inline(value: Any) -> str:
    """A value on one line of YAML; JSON is YAML, and words need no quotes where YAML sees none."""
    match value:
        case dict():
            return "{" + ", ".join(f"{name}: {_inline(one)}" for name, one in value.items()) + "}"
        case list():
            return "[" + ", ".join(_inline(one) for one in value) + "]"
        case str() if _PLAIN.fullmatch(value) and value not in _YAML_WORDS:
            return value
        case _:
            return json.dumps(value)


def _tables(make: type[Any], path: str) -> Iterator[str]:
    if path:
        yield f"### {path}\n\n{_about_section(make)}\n"
    rows = ["| key | type | default | what it is |", "|---|---|---|---|"]
    deeper: list[tuple[type[Any], str]] = []
    for name, key in keys(make).items():
        here = f"{path}.{name}" if path else name
        match key.form:
            case Section(inner):
                deeper.append((inner, here))
                rows.append(f"| `{name}` | [section](#{_anchor(here)}) | | {_cell(about(key))} |")
                continue
            case Many(Section(inner)):
                deeper.append((inner, f"{here}[]"))
        rows.append(f"| `{name}` | {_cell(_type(key.form, here))} | {_default(key)} | {_cell(about(key))} |")
    yield "\n".join(rows) + "\n"
    for inner, here in deeper:
        yield from _tables(inner, here)


def _type(form: Form, path: str) -> str:
    match form:
        case Nullable(inner):
            return f"{_type(inner, path)}, or null"
        case Many(Section()):
            return f"list of [sections](#{_anchor(path)})"
        case Many(item):
            return f"list: {_type(item, path)}"
        case Table(key, value):
            return f"mapping: {_type(key, path)} to {_type(value, path)}"
        case Choice():
            return "Event reason" if form.enum is Reason else " ".join(f"`{word}`" for word in form.words)
        case Section():
            return "section"
        case Leaf(kind):
            return kind.about


def _default(key: Key) -> str:
    value = spelled(key.form, key.default)
    return "none" if value in ("", [], {}) else f"`{_cell(_inline(value))}`"


def _about_section(make: type[Any]) -> str:
    return " ".join((make.__doc__ or "").split())


def _reasons() -> str:
    rows = ["| reason | urgency | meaning |", "|---|---|---|"]
    words = {Urgency.NORMAL: "normal", Urgency.WARNING: "warning", Urgency.ON_CALL: "warning, *on-call*"}
    rows += [f"| `{reason.value}` | {words[reason.urgency]} | {_cell(reason.meaning)} |" for reason in Reason]
    return "\n".join(rows) + "\n"


def _anchor(path: str) -> str:
    """The anchor that Markdown renderers make of the heading."""
    return "".join(letter for letter in path.lower() if letter.isalnum())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _fenced(text: str) -> str:
    return f"```yaml\n{text}```\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
