"""What an operator sees while a node reboots: Node, metrics and plugin, at moments that a test holds open."""

from __future__ import annotations

import json
from pathlib import Path

from agent.text import parse_rfc3339
from tests.support import agents
from tests.support.operator_view import Operator
from tests.support.sites import LOCK, Site, emulated

# Goes down only once the file is there: everything that the agent does before its command has been done.
_GATE = 'touch "$0/asked"; until test -e "$0/go"; do sleep 0.05; done; exec "$@"'


def _operated(site: Site, folder: Path, name: str) -> Operator:
    """The node's policy is the cluster's, as the plugin reads it."""
    agents.publish(site.client, site.machines[name].config.read_text())
    return Operator(site.api.kubeconfig(folder / "operator.kubeconfig"))


def test_a_pool_of_one_is_rebooting_before_the_command_and_stuck_after_the_timeouts(tmp_path: Path) -> None:
    """No other node waits, so none reports it: status and why judge by the Lease's age, and the Event comes with
    the node. Node, Lease and metrics say rebooting before the command is given."""
    with emulated(tmp_path / "site", {"rebootTimeout": "10s", "verifyTimeout": "5s"}) as site:
        machine = site.add("alone")
        site.configure("alone", command=["/bin/sh", "-c", _GATE, str(tmp_path), *machine.reboot_command])
        machine.down_seconds = 3600.0
        operator = _operated(site, tmp_path, "alone")
        site.start()
        site.require()
        site.until((tmp_path / "asked").exists, "the command")
        status, condition = json.loads(site.annotation("alone", "reboot-status")), site.condition("alone")
        assert (status["phase"], status["reason"]) == ("rebooting", "Rebooting")
        assert (condition["status"], condition["reason"]) == ("True", "Rebooting")
        assert site.lease()["metadata"]["annotations"]["node-hardening.io/phase"] == "rebooting"
        assert site.metrics("alone")['node_hardening_reboot_phase{phase="rebooting"}'] == 1
        (tmp_path / "go").touch()
        since = parse_rfc3339(status["since"])
        assert "rebooting" in operator.row("alone", since)
        why = operator.why("alone", since)
        assert (why["code"], why["next"]) == ("Rebooting", [])
        site.until(lambda: "STUCK" in operator.row("alone"), "STUCK")
        why = operator.why("alone")
        assert why["code"] == "NotBack"
        assert why["next"][0].startswith("check the console of alone and bring it back")
        assert why["next"][-1].startswith("kubectl node-hardening unlock workers/0")
        assert site.history.told("alone", ("RebootLockStuck",)) == []
        machine.come_up()
        site.until(site.all_rebooted, "back and verified")
        site.until(lambda: site.history.told("alone", ("RebootLockStuck",)), "the Event")
        (message,) = site.history.messages("alone", "RebootLockStuck")
        assert message.startswith("alone went down to reboot and came back after ")
        assert "STUCK" not in operator.row("alone")
        assert site.holder(LOCK) == ""


def test_the_back_off_after_a_reboot_is_announced_and_a_request_ends_it(tmp_path: Path) -> None:
    """A sentinel soon after a reboot: an Event with the end of the wait, advice that is right the first time, and a
    request that says what it does. While the lock is released the reboot is over, not next."""
    with emulated(tmp_path / "site", {"lock": {"releaseDelay": "1h"}}) as site:
        site.add("again")
        operator = _operated(site, tmp_path, "again")
        site.start()
        site.require()
        site.until(lambda: '"releasing"' in site.annotation("again", "reboot-status"), "releasing")
        assert "its reboot is over" in operator.type("why", "again")
        site.configure("again", lock={"releaseDelay": "1s"})
        site.until(site.all_rebooted, "the first reboot")
        site.require()
        site.says("again", "required again soon after the last reboot; backing off")
        site.until(lambda: site.history.told("again", ("RebootBlocked",)), "the Event")
        (message,) = site.history.messages("again", "RebootBlocked")
        assert "backing off (until " in message
        why = operator.why("again")
        assert why["code"] == "BackingOff"
        assert why["next"][0].startswith("wait: the first back-off is normal")
        asked = operator.type("reboot", "again", "--dry-run")
        assert "it does not wait any longer for its back-off" in asked
        assert "does not move it forward" not in asked
        operator.type("reboot", "again", "--yes")
        site.until(lambda: site.all_rebooted(2), "the requested reboot")
