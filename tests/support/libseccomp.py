"""libseccomp in a process of its own, as runc uses it to build a filter."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyseccomp as seccomp

ROOT = Path(__file__).parents[2]

ALLOW, DENY, KILL = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"


def action_of(rule: dict[str, Any], action: str = "action", number: str = "errnoRet") -> int:
    found = getattr(seccomp, rule[action].removeprefix("SCMP_ACT_"))
    return int(found(rule.get(number, 1)) if rule[action] == DENY else found)


def build(document: dict[str, Any]) -> None:
    """libcontainer/seccomp: the architectures, then each rule whose action is not the default. Raises OSError."""
    default = action_of(document, "defaultAction", "defaultErrnoRet")
    built = seccomp.SyscallFilter(default)
    arches = [getattr(seccomp.Arch, one.removeprefix("SCMP_ARCH_")) for one in document.get("architectures", ())]
    for arch in arches:
        if not built.exist_arch(arch):
            built.add_arch(arch)
    if arches and seccomp.system_arch() not in arches:
        built.remove_arch(seccomp.Arch.NATIVE)
    for rule in document["syscalls"]:
        args = [
            seccomp.Arg(
                one["index"], getattr(seccomp, one["op"].removeprefix("SCMP_CMP_")), one["value"],
                *([one["valueTwo"]] if "valueTwo" in one else []),
            )
            for one in rule.get("args", ())
        ]  # fmt: skip
        if (action := action_of(rule)) != default:
            for name in rule["names"]:
                built.add_rule(action, name, *args)


class Builder:
    """Another process for libseccomp, because 2.5 may never return: then it ends, and the next one is started.

    Not a fork of this one: that would keep the listening sockets open which other tests close.
    """

    process: subprocess.Popen[str] | None = None

    def loads(self, document: dict[str, Any]) -> bool | None:
        """Whether libseccomp takes it; None when it does not return."""
        if self.process is None:
            argv = [sys.executable, "-m", "tests.support.libseccomp"]
            self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(document) + "\n")
        self.process.stdin.flush()
        if answer := self.process.stdout.readline():
            return bool(json.loads(answer))
        assert self.close() == -signal.SIGPROF, "build() itself failed"
        return None

    def close(self) -> int:
        """Ends the process; its exit code."""
        process, self.process = self.process, None
        if process is None:
            return 0
        with process:
            assert process.stdin is not None
            process.stdin.close()
        return process.wait()


def main() -> None:
    """Answers a line for each document until its parent is gone, with a second of processor time for each."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # a handler of Python's would wait for the call to end
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, 1)
        try:
            build(json.loads(line))
        except OSError:
            sys.stdout.write("false\n")
        else:
            sys.stdout.write("true\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
