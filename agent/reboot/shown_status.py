"""What the Node shows of a reboot: the sentence and the data as annotations, and the condition. Pure."""

from __future__ import annotations

from agent import annotations as keys
from agent.model import Condition
from agent.reboot.status import RebootStatus
from agent.report.node_status import NodeView, cut

_SENTENCE_CHARACTERS = 1024
_STATUSES = {True: "True", False: "False", None: "Unknown"}


def shown_status(status: RebootStatus) -> NodeView:
    """The same whether the coordinator writes it together with the state, or the publisher without."""
    sentence = cut(status.sentence, _SENTENCE_CHARACTERS)
    condition = Condition(keys.CONDITION_REBOOT, _STATUSES[status.required], status.reason.value, sentence)
    return NodeView({keys.REBOOT: sentence, keys.REBOOT_STATUS: status.encode()}, conditions=(condition,))
