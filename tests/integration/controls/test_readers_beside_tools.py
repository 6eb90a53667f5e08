"""Our readers of other programs' files beside those programs: modprobe.d with modprobe, profiles with apparmor_parser.

Each input is a line or a file as operators and distributions write them, about half of them with something wrong. The
tools read hundreds at a time.
"""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.config.recognition import Claim
from agent.controls.apparmor import FILE_TYPE, parser_errors
from agent.controls.modprobe.modprobe_d import FOLDERS, ConfigLine, Configuration, in_order, parse
from agent.host import Host
from agent.sandbox.kernel_modules import DCCP_AND_SCTP, RELEASE, build, tool
from tests.support.apparmor_kernel import PARSER

MODPROBE = tool("modprobe") or ""
SIZES = [400, pytest.param(20_000, marks=pytest.mark.slow)]
BATCH = 500

# -- modprobe.d --------------------------------------------------------------------------------------------------------

VERBS = ("install", "blacklist", "alias", "options", "softdep", "remove")
NAMES = (
    "sctp", "dccp-ipv4", "dccp_ipv6", "net-pf-2-proto-132", "snd-*", "nf_conntrack", "x[0-9-]y", "a[b", "b]c", "i2c-*",
    "KSMBD", "usb:v1D6Bp*d*", "crypto-aes", "?", "9p", "é", "x.ko",
)  # fmt: skip
RESTS: dict[str, tuple[str, ...]] = {
    "install": ("/bin/false", "/bin/true", "/sbin/modprobe --ignore-install x && echo ok", "a \\\n b", "x#y # z", ""),
    "remove": ("/sbin/rmmod x", "/bin/true; :", ""),
    "blacklist": ("", "", "more words", "# no comment"),
    "alias": ("sctp", "dccp-ipv4", "", "tipc"),
    "options": ("max=3", 'a=1 b="x y"', "off", ""),
    "softdep": ("pre: a b post: c-d", "post: x", "pre: y", "pre: a", ""),
}
BROKEN_LINES = ("instal sctp /bin/false", "install", "=", "include /etc/x", "\\", "#", "", "blacklist", "Install x /y")
BLANKS = (" ", " ", " ", "\t", "  ", " \t ")


def modprobe_line(chance: random.Random) -> str:
    """One line, perhaps over two."""
    if chance.random() < 0.15:
        return chance.choice(BROKEN_LINES)
    verb = chance.choice(VERBS)
    before = chance.choice(("", "", "", "", " ", "\t", "# ", "#", "#\\\n"))
    words = [verb, chance.choice(NAMES), chance.choice(RESTS[verb])]
    # kmod 30 takes a softdep with two blanks before `pre:` for one without dependencies; nobody relies on it.
    blanks = BLANKS if verb != "softdep" else (" ", "\t")
    text = before + chance.choice(blanks).join(word for word in words if word)
    return text.replace(" ", " \\\n", 1) if chance.random() < 0.05 else text


def kmod_form(line: ConfigLine) -> tuple[str, ...]:
    """A line by what counts in it: one word of an alias, the command as written; modprobe prints `pre: apost: b`."""
    words = line.rest.split()
    if line.verb == "alias":
        words = [words[0].replace("-", "_")]
    elif line.verb == "blacklist":
        words = []
    elif line.verb == "softdep":
        words = ["".join(words)]
    return (line.verb, line.name, *words)


@pytest.mark.skipif(not MODPROBE or not tool("depmod"), reason="needs kmod (modprobe, depmod)")
@pytest.mark.parametrize("count", SIZES)
def test_modprobe_takes_the_lines_that_we_take(tmp_path: Path, count: int) -> None:
    """The same lines in the same order, whatever stands around them; files of five folders, some of them hidden."""
    chance = random.Random(20261128)
    root = tmp_path / "node"
    build(root, DCCP_AND_SCTP)
    (root / "lib/modules" / RELEASE / "modules.softdep").unlink(missing_ok=True)
    taken = 0
    for _ in range(0, count, BATCH):
        files = {
            f"{folder}/{name}.conf": list[str]() for folder in FOLDERS for name in chance.sample("abcdefgBCD-_0189", 3)
        }
        for _ in range(min(count, BATCH)):
            files[chance.choice(list(files))].append(modprobe_line(chance))
        for path, lines in files.items():
            (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
            (root / path[1:]).write_text("\n".join(lines) + chance.choice(("", "\n")))
        host = Host(root)
        order, hidden = in_order({folder: host.names(folder) for folder in FOLDERS})
        assert len(order) + len(hidden) == len(files)
        ours = Configuration(tuple(line for file in order for line in parse(host.read_text(file), file)))
        for verb in VERBS:
            mine = [kmod_form(line) for line in ours.lines if line.verb == verb]
            printed = list(theirs(root, verb))
            assert mine == printed[: len(mine)]
            # Behind the files' options come those of this machine's kernel command line.
            assert verb == "options" or len(printed) == len(mine)
        taken += len(ours.lines)
        for path in files:
            (root / path[1:]).unlink()
    assert taken > count // 8


def theirs(root: Path, verb: str) -> Iterator[tuple[str, ...]]:
    """What modprobe prints of its configuration."""
    chosen = [option for folder in FOLDERS for option in ("-C", str(root / folder[1:]))]
    argv = [MODPROBE, "-d", str(root), "-S", RELEASE, *chosen, "--showconfig"]
    text = subprocess.run(argv, capture_output=True, check=True, timeout=300).stdout.decode(errors="replace")
    for line in text.partition("# End of configuration")[0].split("\n"):
        if line.startswith(f"{verb} "):
            words = line.split()
            yield (*words[:2], *(["".join(words[2:])] if verb == "softdep" else words[2:]))


# -- AppArmor ----------------------------------------------------------------------------------------------------------

HEADERS = (
    "", "abi <abi/3.0>,\n", "#include <tunables/global>\n", "include <tunables/global>\n\n", "# vim:syntax=apparmor\n",
    "@{ROOT}=/srv /opt\n", "include if exists <local/none>\n", "# Written for web.\n\nabi <abi/3.0>,\n",
    "alias /usr/ -> /mnt/usr/,\n",
)  # fmt: skip
ATTACHED = ("profile {}", 'profile "{}"', "profile {} /usr/bin/{}", "/usr/bin/{}", "profile {} flags=(complain)",
            "/opt/{}/** flags=(attach_disconnected)", "profile {} flags=(attach_disconnected,mediate_deleted)",
            'profile "{} with blanks"')  # fmt: skip
RULES = (
    "file,", "network inet stream,", "deny /etc/shadow rw,", "/usr/lib/** mr,", "capability net_admin,",
    "owner /home/*/.cache/** rwk,", "/bin/sh ix,", "signal (send) peer=unconfined,", "# a comment", "/x px -> other,",
    "deny @{PROC}/sysrq-trigger w,", "ptrace (read),", "audit /etc/passwd r,", "mount options=ro /a -> /b,",
    "unix (connect),", "  ", "/srv/{a,b}/[0-9]* r,", '"/with blank/**" rw,', "umount /x/,", "link /a -> /b,",
)  # fmt: skip
INNER = ("profile inner {\n    file,\n  }", "^hat {\n    /y r,\n  }", "hat other {\n  }")
FAULTS: tuple[Callable[[str], str], ...] = (
    lambda text: text.replace(",\n}", "\n}", 1),
    lambda text: text[: text.rindex("}")],
    lambda text: text.replace("{\n", "{\n  nonsense here\n", 1),
    lambda text: text.replace("{\n", "{\n  capability fly,\n", 1),
    lambda text: text.replace("{\n", "{\n  /x/@{NOPE} r,\n", 1),
    lambda text: text.replace("{\n", "{\n  /x rq,\n", 1),
    lambda text: text.replace("{\n", "{\n  network inet6 nothing,\n", 1),
    lambda text: text + "}\n",
)


def profile(chance: random.Random, name: str) -> str:
    """A file with a profile or two."""
    blocks = []
    for part in range(chance.choice((1, 1, 1, 2))):
        head = chance.choice(ATTACHED).replace("{}", f"{name}{'bc'[part]}")
        # One rule at least: a path and a pair of brackets are no evidence.
        rules = [
            chance.choice(RULES[:8]),
            *chance.choices(RULES, k=chance.randint(0, 4)),
            *chance.sample(INNER, chance.choice((0, 0, 1))),
        ]
        blocks.append(f"{head} {{\n" + "".join(f"  {rule}\n" for rule in rules) + "}\n")
    return "".join((*chance.choices(HEADERS, k=chance.choice((1, 1, 2))), *blocks))


@pytest.mark.skipif(not Path(PARSER).exists(), reason="needs Debian's apparmor (apparmor_parser)")
@pytest.mark.parametrize("count", SIZES)
def test_apparmor_parser_refuses_what_we_call_wrong_and_finds_the_names_that_we_find(
    tmp_path: Path, count: int
) -> None:
    """Every file is recognized, right or wrong; of a wrong one the parser's words become problems of a line in it, and
    of a right one each name has the line that defines it."""
    chance = random.Random(20261128)
    accepted = refused = 0
    for start in range(0, count, BATCH):
        texts = {}
        for number in range(start, min(start + BATCH, count)):
            text = profile(chance, f"p{number}")
            texts[str(tmp_path / f"f{number}")] = chance.choice(FAULTS)(text) if chance.random() < 0.4 else text
        for file, text in texts.items():
            Path(file).write_text(text)
            assert FILE_TYPE.claim(text, f"team/{Path(file).name}") is Claim.CERTAIN, text
        done = subprocess.run([PARSER, "-K", "-N", *texts], capture_output=True, text=True, timeout=120, check=False)
        named = parser_errors.names(done.stdout)
        errors: dict[str, list[str]] = {}
        for line in done.stderr.splitlines():
            if found := re.search(r"error for (\S+)", line):
                errors.setdefault(found[1], []).append(line)
        for file, text in texts.items():
            lines = text.count("\n") + 1
            mine = [name for name in named if re.search(rf"\bp{Path(file).name[1:]}[bc]", name)]
            if file in errors:
                spoken = "\n".join(errors[file]).replace(f"profile {file}", f"profile {parser_errors.STDIN}")
                problems = parser_errors.problems(spoken, file, text)
                assert problems, errors[file]
                assert all(one.file == file and 0 <= one.line <= lines and one.message for one in problems), problems
                refused += 1
            else:
                assert mine, text
                for name in mine:
                    at = parser_errors.defining_line(text, name)
                    assert at, (name, text)
                    assert name.rpartition("//")[2] in text.split("\n")[at - 1], (name, at, text)
                accepted += 1
            Path(file).unlink()
    assert min(accepted, refused) > count // 5, (accepted, refused)
