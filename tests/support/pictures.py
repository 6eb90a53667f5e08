"""The pictures of docs/images: `python -m tests.support.pictures FOLDER`, where a chromium is. To be looked at first.

The report of the crowd at desktop and phone widths, light and dark, and the plugin at a terminal. Larger than what is
committed: those were cut down to 128 colours.
"""

from __future__ import annotations

import html
import io
import re
import shlex
import sys
import tempfile
from pathlib import Path

from agent.kube import Kube
from agent.plugin.commands import COMMANDS
from agent.plugin.main import parser, run
from agent.plugin.page import document
from agent.plugin.session import Form, Session
from agent.sandbox.server import Sandbox
from agent.sandbox.settings import KubeletSettings, Settings
from agent.terminal import Style
from tests.support import plugin_crowd
from tests.support.access import direct
from tests.support.browser import browser
from tests.support.plugin_fleet import NAMESPACE, Staged

_COLUMNS = 120
_DESKTOP, _PHONE = (1440, 1250), (390, 1500)
_COLOURS = {"1": "b", "2": "f", "31": "r", "32": "g", "33": "y", "36": "c"}
_SGR = re.compile(r"\x1b\[([0-9;]*)m")
_TERMINAL = """<!DOCTYPE html><meta charset="utf-8"><style>
body { margin: 0; background: #14181f; width: fit-content; padding: 18px 22px }
pre { margin: 0; color: #dfe5ee; font: 14px/1.4 "DejaVu Sans Mono", monospace }
.b { font-weight: 700 } .f { color: #8d98a7 } .r { color: #ff8b84 } .g { color: #7ddc94 } .y { color: #f2c14e }
.c { color: #6fd3e3 } .p { color: #8ab8ff }
</style><pre>"""


def main(folder: Path) -> None:
    """All of them."""
    stage = plugin_crowd.crowd()
    lines = {"terminal-status": "status", "terminal-why": "why gpu-02"}
    with tempfile.TemporaryDirectory() as made:
        report = Path(made, "report.html")
        report.write_text("".join(document.pieces(plugin_crowd.snapshot(stage))), encoding="ascii")
        for name, line in lines.items():
            Path(made, f"{name}.html").write_text(_terminal(line, typed(stage, line)), encoding="utf-8")
        with browser() as page:
            for kind, (width, height) in {"desktop": _DESKTOP, "phone": _PHONE}.items():
                for scheme in ("light", "dark"):
                    page.show(report, width=width, dark=scheme == "dark")
                    page.picture(folder / f"report-{kind}-{scheme}.png", height=height)
            for name in lines:
                page.show(Path(made, f"{name}.html"), width=1070)
                page.picture(folder / f"{name}.png", height=page.evaluate("document.body.offsetHeight"))


def typed(stage: Staged, line: str) -> str:
    """What a command prints at a terminal that shows colour."""
    out = io.StringIO()
    with Sandbox(Settings(controllers=False, kubelet=KubeletSettings(enabled=False))) as sandbox:
        plugin_crowd.put_on(sandbox, stage)
        options = parser(COMMANDS).parse_args(shlex.split(line))
        kube = Kube(direct(sandbox.url, token=sandbox.token), node="kubectl-plugin")
        style = Style(colour=True, width=_COLUMNS)
        run(options, Session(lambda: kube, NAMESPACE, Form(options.output), out, out, lambda: stage.now, style=style))
        kube.close()
    return out.getvalue()


def _terminal(line: str, shown: str) -> str:
    parts, at = [], 0
    for match in _SGR.finditer(shown):
        parts.append(html.escape(shown[at : match.start()]))
        classes = " ".join(_COLOURS[code] for code in match[1].split(";") if code in _COLOURS)
        parts.append(f'<span class="{classes}">' if classes else "</span>")
        at = match.end()
    parts.append(html.escape(shown[at:]))
    prompt = f'<span class="p">$</span> kubectl node-hardening {line}\n'
    return f"{_TERMINAL}{prompt}{''.join(parts)}</pre>"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
