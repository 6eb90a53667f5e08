"""`report` as people run it: over HTTP, to a pipe, a file, a terminal; and what a real browser makes of the page."""

from __future__ import annotations

import io
import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from agent.plugin.main import main
from agent.plugin.page.output import GENERATOR
from agent.plugin.session import COULD_NOT, OK, USAGE
from agent.sandbox.faults import Fault, FaultKind
from agent.sandbox.server import Sandbox
from agent.sandbox.settings import KubeletSettings, Settings
from tests.support import browser, plugin_crowd
from tests.support.html import Sound
from tests.support.programs import needed


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """Thirty nodes, and something of everything the matter."""
    with Sandbox(Settings(controllers=False, kubelet=KubeletSettings(enabled=False))) as made:
        plugin_crowd.put_on(made, plugin_crowd.crowd())
        yield made


@pytest.fixture
def config(sandbox: Sandbox, tmp_path: Path) -> Iterator[str]:
    """The way to it."""
    yield str(sandbox.kubeconfig(tmp_path / "kubeconfig"))
    sandbox.clear_faults()


def run(config: str, *line: str) -> int:
    """Exit code of `kubectl node-hardening report`."""
    return main(["--kubeconfig", config, "report", *line])


def test_it_writes_a_sound_page_to_a_pipe(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Verdict, findings, nodes, locks, history and policies are on it, and nothing but the page."""
    assert run(config, "--title", "Audit <2026>") == OK
    out, err = capsys.readouterr()
    found = Sound.of(out)
    assert (found.wrong, err) == ([], "")
    for words in (
        "Audit <2026>",
        "6 of 30 nodes need attention",
        "Lock gpus/0 is stuck: gpu-01 went down to reboot",
        "kubelet/4.2.1",
        "Set authentication.anonymous.enabled: false",
        "the node is opted out: holds the licence server",
        "shop/web-0, shop/web-1",
        "6.1.0-25-amd64 \u2192 6.1.0-26-amd64",
        "b7709f2e61c04d53",
        "Whether 1 node needs a reboot (first cp-03).",
        "27/30 agents are ready",
    ):
        assert words in found.words


def test_a_selector_takes_some_nodes(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Only these are counted, and the page says so."""
    assert run(config, "-l", "example.org/pool=edges") == OK
    words = Sound.of(capsys.readouterr().out).words
    assert "Selector example.org/pool=edges" in words
    assert "2 nodes" in words
    assert "worker-03" not in words


@pytest.mark.parametrize(("form", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_programs_get_a_document(config: str, capsys: pytest.CaptureFixture[str], form: str, read: object) -> None:
    """The page's content under the same verdict."""
    assert run(config, "-o", form) == OK
    made = read(capsys.readouterr().out)  # type: ignore[operator]
    assert made["summary"]["status"] == "bad"
    assert (made["counts"]["total"], len(made["nodes"])) == (30, 30)
    assert made["findings"][0]["id"] == "kubelet/4.2.1"
    assert made["findings"][0]["nodes"] == {"total": 2, "names": ["worker-03", "worker-12"]}


def test_a_file_is_written_whole_for_its_owner_alone(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is left beside it; a second report takes its place; it says where it is and how the fleet stands."""
    path = tmp_path / "fleet.html"
    assert [run(config, "-O", str(path)) for _ in range(2)] == [OK, OK]
    assert Sound.of(path.read_text()).wrong == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(one.name for one in tmp_path.iterdir()) == ["fleet.html", "kubeconfig"]
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(str(path))
    assert "6 of 30 nodes need attention" in err


def test_it_does_not_write_over_what_is_no_report(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong name costs no user a file, directory or link."""
    other, folder = tmp_path / "notes.txt", tmp_path / "folder"
    other.write_text("mine")
    folder.mkdir()
    (tmp_path / "link").symlink_to(other)
    for name in ("notes.txt", "folder", "link", "not/there.html"):
        assert run(config, "-O", str(tmp_path / name)) == USAGE
    assert other.read_text() == "mine"
    assert len(capsys.readouterr().err.splitlines()) == 4


def test_it_pours_into_a_device(config: str) -> None:
    """Nothing is put in the place of /dev/null."""
    assert run(config, "-O", "/dev/null") == OK
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_terminal_gets_a_file_with_a_name_of_its_own(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A page does not belong on the screen; with -O - it comes there regardless."""
    monkeypatch.chdir(tmp_path)

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", Terminal())
        assert run(config) == OK
    (made,) = tmp_path.glob("node-hardening-report-*.html")
    assert GENERATOR in made.read_text()
    assert made.name in capsys.readouterr().err
    assert run(config, "-O", "-") == OK
    assert capsys.readouterr().out.startswith("<!DOCTYPE html>")


def test_without_jinja2_the_page_names_the_extra(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the documents work."""
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.delitem(sys.modules, "agent.plugin.page.document", raising=False)
    monkeypatch.delattr("agent.plugin.page.document", raising=False)
    assert run(config) == USAGE
    out, err = capsys.readouterr()
    assert (out, "the page needs jinja2: pip install 'node-hardening-agent[plugin]'" in err) == ("", True)
    assert run(config, "-o", "json") == OK


def test_what_may_not_be_read_is_unknown_on_the_page(
    sandbox: Sandbox, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Locks, pause, configuration and version are refused: the nodes are shown, and the rest is called unknown."""
    for resource in ("leases", "configmaps", "daemonsets", "selfsubjectreviews"):
        sandbox.add_fault(Fault(FaultKind.STATUS, path=f"/{resource}", code=403, reason="Forbidden"))
    assert run(config) == OK
    found = Sound.of(capsys.readouterr().out)
    assert found.wrong == []
    for words in (
        "Reboot locks: they cannot be read",
        "Whether reboots are paused",
        "How many agents run",
    ):
        assert words in found.words


def test_nodes_that_cannot_be_listed_leave_no_file(
    sandbox: Sandbox, config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No page rather than half of one."""
    sandbox.add_fault(Fault(FaultKind.STATUS, path="/nodes", code=403, reason="Forbidden"))
    assert run(config, "-O", str(tmp_path / "fleet.html")) == COULD_NOT
    assert not (tmp_path / "fleet.html").exists()
    assert "node-hardening-reader" in capsys.readouterr().err


def test_kubectl_finds_it(config: str, tmp_path: Path) -> None:
    """As `kubectl node-hardening report`."""
    path = tmp_path / "fleet.html"
    argv = [needed("kubectl"), "node-hardening", "--kubeconfig", config, "report", "-O", str(path)]
    found = subprocess.run(
        argv, env={"PATH": str(Path(sys.executable).parent)}, capture_output=True, text=True, timeout=120, check=False
    )
    assert (found.returncode, found.stdout) == (0, ""), found.stderr
    assert Sound.of(path.read_text()).wrong == []


def test_a_browser_shows_it_at_every_width_without_complaint(config: str, tmp_path: Path) -> None:
    """No error on the console, no request, nothing to scroll sideways for; filter and sorting work; colours follow."""
    if browser.program() is None:
        pytest.skip(browser.NO_BROWSER)
    path = tmp_path / "fleet.html"
    assert run(config, "-O", str(path)) == OK
    with browser.browser() as page:
        for width in (1440, 1201, 768, 390, 360):
            page.show(path, width=width)
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert page.evaluate(_STICKING_OUT) == []
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.show(path, width=1440, dark=True)
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
        assert _contrasts(page) == []
        page.evaluate(
            "(f => { f.value = 'worker-03'; f.dispatchEvent(new Event('input')) })(document.querySelector('input'))"
        )
        assert page.evaluate(_SHOWN) == ["worker-03"]
        page.show(path, width=1440)
        assert _contrasts(page) == []
        page.evaluate("document.querySelector('#nodes-table thead button').click()")
        assert page.evaluate(_SHOWN)[:3] == ["cp-01", "cp-02", "cp-03"]
        assert page.complaints == []


# Parts that are wider than the column of text they stand in.
_STICKING_OUT = (
    "[...document.querySelectorAll('main table, main p, main ul')].filter(one => one.getBoundingClientRect().right"
    " > document.querySelector('main').getBoundingClientRect().right).map(one => one.id || one.className)"
)
_SHOWN = (
    "[...document.querySelectorAll('#nodes-table tbody tr')].filter(r => !r.hidden).map(r => r.cells[0].textContent)"
)
# WCAG 2.1, 1.4.3: 4.5 to 1 for text, against the nearest background that is painted.
_CONTRAST = """
(() => {
  const parts = text => text.match(/[\\d.]+/g).map(Number);
  const light = rgb => rgb.slice(0, 3).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const back = one => {
    for (let at = one; at; at = at.parentElement) {
      const rgb = parts(getComputedStyle(at).backgroundColor);
      if (rgb.length === 3 || rgb[3] > 0) return rgb;
    }
    return [255, 255, 255];
  };
  const found = new Set();
  for (const one of document.body.querySelectorAll('*')) {
    if (![...one.childNodes].some(node => node.nodeType === 3 && node.data.trim()) || one.closest('script')) continue;
    const [a, b] = [light(parts(getComputedStyle(one).color)), light(back(one))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) found.add(one.tagName + '.' + one.className + ' ' + ratio.toFixed(2));
  }
  return [...found];
})()
"""


def _contrasts(page: browser.Page) -> list[str]:
    """Elements whose text is too faint."""
    found: list[str] = page.evaluate(_CONTRAST)
    return found
