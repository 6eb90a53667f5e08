"""The agent's own nftables table: new connections of pods to the metadata service are refused where they are forwarded.

A table of its own is independent of every other chain: an accept elsewhere ends only that chain. It refuses to match
more than the services' own addresses and ports; the resolvers beside them stay reachable, and so does everything that
the node itself sends, which is never forwarded. https://wiki.nftables.org/wiki-nftables/index.php/Configuring_chains
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from agent.controls.metadata_access.clouds import Service
from agent.errors import CommandMissing, HostError
from agent.host import Host

TABLE = "node_hardening_metadata"
_CHAIN = "forward"
_PRIORITY = 10  # after filter's own chains: what is rewritten by an interceptor before is judged as rewritten
_TIMEOUT_SECONDS = 10.0
_VERDICTS = ("reject", "drop")

# family of the address, address, port, verdict
Rule = tuple[str, str, int, str]


def expected(services: Sequence[Service]) -> tuple[Rule, ...]:
    """The rules, in order."""
    return tuple(
        ("ip6" if ":" in one.address else "ip", one.address, port, "reject") for one in services for port in one.ports
    )


def script(services: Sequence[Service]) -> str:
    """Replaces the table in one transaction: `add` makes the `delete` of a missing one succeed."""
    rules = (
        f"{family} daddr {address} tcp dport {port} reject with tcp reset"
        for family, address, port, _ in expected(services)
    )
    lines = "".join(f"    {rule}\n" for rule in rules)
    return (
        f"table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n  chain {_CHAIN} {{\n"
        f"    type filter hook forward priority {_PRIORITY}; policy accept;\n{lines}  }}\n}}\n"
    )


def install(host: Host, services: Sequence[Service]) -> None:
    """Writes the table. Raises HostError."""
    _nft(host, "-f", "-", feed=script(services)).check()


def remove(host: Host) -> None:
    """Deletes the table, also where it is gone. Raises HostError."""
    _nft(host, "-f", "-", feed=f"table inet {TABLE}\ndelete table inet {TABLE}\n").check()


def difference(host: Host, services: Sequence[Service]) -> str:
    """How the kernel's table differs from what it should be; empty when it does not. Raises HostError."""
    done = _nft(host, "-j", "list", "table", "inet", TABLE)
    if done.code != 0:
        if "No such file or directory" in done.stderr:
            return "the table is not there"
        done.check()
    try:
        return _difference(json.loads(done.stdout)["nftables"], expected(services))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise HostError(f"nft's answer is not understood: {error}") from error


def _difference(objects: list[dict[str, Any]], required: Sequence[Rule]) -> str:
    chains = [one["chain"] for one in objects if "chain" in one]
    base = [(one.get("hook"), one.get("type"), one.get("prio")) for one in chains]
    if base != [("forward", "filter", _PRIORITY)]:
        return f"its chains are not one at the forward hook: {base}"
    rules = [_rule(one["rule"]["expr"]) for one in objects if "rule" in one]
    if rules == list(required):
        return ""
    strange = sum(rule not in required for rule in rules)
    missing = sum(rule not in rules for rule in required)
    return (
        f"{strange} rules are not the agent's, {missing} are missing"
        if strange or missing
        else "its rules are not in order"
    )


def _rule(expressions: list[dict[str, Any]]) -> Rule | None:
    """A rule as a tuple; None for what is not of the agent's form."""
    if len(expressions) != 3 or any(one["match"]["op"] != "==" for one in expressions[:2] if "match" in one):
        return None
    if not all("match" in one for one in expressions[:2]):
        return None
    address, port = (one["match"] for one in expressions[:2])
    if address["left"]["payload"].get("field") != "daddr" or port["left"]["payload"] != _DPORT:
        return None
    verdict = next((word for word in _VERDICTS if word in expressions[2]), "")
    return address["left"]["payload"]["protocol"], address["right"], port["right"], verdict


_DPORT = {"protocol": "tcp", "field": "dport"}


def _nft(host: Host, *arguments: str, feed: str = "") -> Any:
    tool = host.find_tool("nft")
    if tool is None:
        raise CommandMissing(["nft"], "not on this node: install the package nftables")
    return host.run([tool, *arguments], timeout_seconds=_TIMEOUT_SECONDS, input_bytes=feed.encode())
