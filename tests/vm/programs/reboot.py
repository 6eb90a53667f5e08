"""METHOD: reboots the node by that method from its container."""

from __future__ import annotations

import sys

from agent.config.choices import RebootMethod
from agent.config.schema import Reboot
from agent.host import Host, HostExec
from agent.reboot.rebooters import make_rebooter

if __name__ == "__main__":
    make_rebooter(Reboot(method=RebootMethod(sys.argv[1])), Host("/host", how=HostExec.NSENTER)).reboot()
