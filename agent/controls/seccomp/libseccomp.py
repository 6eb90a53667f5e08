"""Whether libseccomp will take a list of rules, as runc adds them: one after the other, for each architecture.

A rule becomes a chain of comparisons in a tree; two actions for one place in it are EEXIST, and no container starts.
On 32-bit architectures, x32 among them, only the low half of an argument is compared. On x86 the calls of sockets and
System V IPC are also one multiplexed call each, whose first argument is the number of the call. The image carries no
libseccomp, so this is its rule-adding (src/db.c, src/arch-x86.c), compared with libseccomp itself by tests.
https://github.com/seccomp/libseccomp
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from agent.controls.seccomp.profile import MASKED, Arg, Rule

X86: Final = "SCMP_ARCH_X86"
# ARCH_SIZE_32 in src/arch-*.c: x32 and n32 among them, although their registers have 64 bits.
_NARROW_NAMES: Final = "X86 X32 ARM MIPS MIPSEL MIPS64N32 MIPSEL64N32 PPC S390 PARISC M68K SH SHEB"
_NARROW: Final = frozenset(f"SCMP_ARCH_{name}" for name in _NARROW_NAMES.split())
_LOW: Final = 0xFFFFFFFF
_SOCKETS: Final = """socket bind connect listen accept getsockname getpeername socketpair send recv sendto recvfrom
    shutdown setsockopt getsockopt sendmsg recvmsg accept4 recvmmsg sendmmsg"""
_IPC: Final = {"semop": 1, "semget": 2, "semctl": 3, "semtimedop": 4, "msgsnd": 11, "msgrcv": 12, "msgget": 13,
               "msgctl": 14, "shmat": 21, "shmdt": 22, "shmget": 23, "shmctl": 24}  # fmt: skip
_MULTIPLEXED: Final[Mapping[str, tuple[str, int]]] = {
    **{name: ("socketcall", number) for number, name in enumerate(_SOCKETS.split(), 1)},
    **{name: ("ipc", number) for name, number in _IPC.items()},
}
# One comparison in the tree: argument, half, mask, value, operator, branch taken.
_Node = tuple[int, str, int, int, str, bool]
_Path = tuple[_Node, ...]


def clash(rules: Sequence[Rule], architecture: str) -> tuple[Rule, str, Rule] | None:
    """The first rule that libseccomp refuses, the name of its call, and the rule that it collides with."""
    trees: dict[str, list[tuple[_Path, tuple[Arg, ...], Rule]]] = {}
    unconditional: set[str] = set()
    narrow = architecture in _NARROW
    for rule in rules:
        for name, call, args in _calls(rule, architecture):
            if call in unconditional:
                continue
            paths = _paths(args, narrow=narrow)
            if paths == [()]:
                unconditional.add(call)
                trees.pop(call, None)
                continue
            tree = trees.setdefault(call, [])
            for path in paths:
                if any(path[: len(other)] == other and len(path) > len(other) for other, _, _ in tree):
                    continue  # a shorter chain decides before this one is reached
                for other, others_args, other_rule in tree:
                    longer = len(other) > len(path)
                    same = other == path and (others_args == args or not _is_shared(path[-1]))
                    if other_rule.effect != rule.effect and (same or (longer and other[: len(path)] == path)):
                        return rule, name, other_rule
                tree[:] = [one for one in tree if one[0][: len(path)] != path]
                tree.append((path, args, rule))
    return None


def _calls(rule: Rule, architecture: str) -> Iterator[tuple[str, str, tuple[Arg, ...]]]:
    """The rule's names, and the calls that each one is on the architecture: on x86 a multiplexed one besides itself."""
    for name in rule.names:
        yield name, name, rule.args
        if architecture == X86 and name in _MULTIPLEXED:
            call, number = _MULTIPLEXED[name]
            yield name, call, (Arg(0, "SCMP_CMP_EQ", number), *(arg for arg in rule.args if arg.index))


def _is_shared(last: _Node) -> bool:
    """Whether comparisons with other low halves end at the same node: libseccomp takes those of different actions."""
    _, half, _, _, op, taken = last
    return half == "high" and (op != "EQ" or not taken)


def _paths(args: Sequence[Arg], *, narrow: bool) -> list[_Path]:
    paths: list[_Path] = [()]
    for arg in sorted(args):
        paths = [path + more for path in paths for more in _comparisons(arg, narrow=narrow)]
    return paths


def _comparisons(arg: Arg, *, narrow: bool) -> Iterator[_Path]:
    """What one comparison becomes: a node for each half of the argument, one or two ways through them."""
    value = arg.value_two if arg.op == MASKED else arg.value
    mask = arg.value if arg.op == MASKED else (_LOW << 32) | _LOW
    op = arg.op.removeprefix("SCMP_CMP_").replace("MASKED_EQ", "EQ")

    def node(half: str, op: str) -> _Node:
        shift = 32 if half == "high" else 0
        inverted = {"NE": "EQ", "LT": "GE", "LE": "GT"}
        return arg.index, half, mask >> shift & _LOW, value >> shift & _LOW, inverted.get(op, op), op not in inverted

    if narrow:
        yield (node("low", op),) if mask & _LOW else ()
    elif op == "EQ":
        yield tuple(node(half, op) for half, part in (("high", mask >> 32), ("low", mask & _LOW)) if part)
    else:
        yield (node("high", {"GE": "GT", "LT": "LE"}.get(op, op)),)
        yield node("high", "EQ"), node("low", op)
