"""What `validate` found, as a table and in the formats that CI systems read. Pure.

SARIF: https://docs.oasis-open.org/sarif/sarif/v2.1.0/ JUnit: what Jenkins and GitLab read. GitHub: workflow commands,
https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

from agent import __version__
from agent.cli.validate import Result
from agent.config.overrides import Origin
from agent.errors import Problem
from agent.terminal import Style, printable

_TOOL = "node-hardening-agent"


def document(result: Result) -> dict[str, object]:
    """The document that `-o json` and `-o yaml` print."""
    return {
        "status": "fail" if result.problems else "unknown" if result.unchecked or result.doubts else "pass",
        "checked": [
            {"file": one.file, "kind": one.kind} | ({"key": one.key} if one.key else {}) for one in result.checked
        ],
        "problems": [asdict(one) for one in result.problems],
        "warnings": [asdict(one) for one in result.warnings],
        "unchecked": result.unchecked,
        **({"policies": [_merged(file, found) for file, found in result.policies]} if result.policies else {}),
        "skipped": [{"file": one.file, "reason": one.reason, "inDoubt": one.in_doubt} for one in result.skipped],
    }


def _merged(file: str, found: Sequence[Origin]) -> dict[str, object]:
    """A policy for the labels that were given: what is no default."""
    values = [
        {"key": one.key, "value": one.value, "override": one.override or None, "line": one.line}
        for one in found
        if one.line
    ]
    return {"file": file, "values": values}


def table(result: Result, style: Style, *, verbose: bool) -> str:
    """A line a file, problems first, a one-line verdict last. verbose: what was skipped, and why."""
    lines = [style.paint(printable(str(problem)), "31;1") for problem in result.problems]
    lines += [style.paint(printable(f"not checked: {reason}"), "33;1") for reason in result.unchecked]
    lines += [style.paint(printable(f"warning: {one}"), "33") for one in result.warnings]
    bad = {problem.file for problem in result.problems}
    for file, kind, key in result.checked:
        if file not in bad:
            name = f"{file}: {key}" if key else file
            lines.append(f"{style.paint('ok', '32')}  {printable(name)}  ({kind})")
    for one in result.skipped if verbose else ():
        mark = style.paint("not judged", "33") if one.in_doubt else "skipped"
        lines.append(f"{mark}  {printable(one.file)}  ({printable(one.reason)})")
    for file, found in result.policies:
        lines.append(
            style.paint(f"{printable(file)}, merged for these labels; what is not listed is the default:", "1")
        )
        lines += [printable(f"  {one.key}: {json.dumps(one.value)}  # {one.source}") for one in found if one.line]
    colour = "31;1" if result.problems else "33;1" if result.unchecked else "32"
    return "\n".join([*lines, style.paint(_verdict(result, len(bad)), colour)]) + "\n"


def _verdict(result: Result, bad: int) -> str:
    count, files = len(result.problems), len({one.file for one in result.checked})
    if result.problems:
        first = f"{_count(count, 'problem')} in {bad} of {_count(files, 'file')}"
    elif result.unchecked:
        first = f"{len(result.unchecked)} not checked, {_count(len(result.checked), 'text')} without problems"
    else:
        first = f"{_count(len(result.checked), 'text')} checked, no problems"
    doubts = f", {len(result.doubts)} of them not judged (-v lists them)" if result.doubts else ""
    return f"{first}; {len(result.skipped)} skipped{doubts}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def sarif(result: Result) -> str:
    """A SARIF 2.1.0 log."""
    levels = {"error": result.problems, "warning": result.warnings}
    results = [_sarif_result(level, one) for level, found in levels.items() for one in found]
    notes = [{"level": "error", "message": {"text": reason}} for reason in result.unchecked]
    notes += [{"level": "warning", "message": {"text": f"not judged: {doubt}"}} for doubt in result.doubts]
    run = {
        "tool": {"driver": {"name": _TOOL, "version": __version__, "rules": [{"id": level} for level in levels]}},
        "invocations": [{"executionSuccessful": not result.unchecked, "toolExecutionNotifications": notes}],
        "results": results,
    }
    log = {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2) + "\n"


def _sarif_result(level: str, one: Problem) -> dict[str, object]:
    region = {"region": {"startLine": one.line}} if one.line else {}
    place = {"physicalLocation": {"artifactLocation": {"uri": quote(one.file)}, **region}}
    return {"ruleId": level, "level": level, "message": {"text": _text(one)}, "locations": [place]}


def junit(result: Result) -> str:
    """A JUnit report: a test for each file, with its problems as failures."""
    failures = len({one.file for one in result.problems})
    cases = [*_junit_cases(result)]
    counts = f'failures="{failures}" errors="{len(result.unchecked)}" skipped="{len(result.skipped)}"'
    suite = f'<testsuite name="{_TOOL} validate" tests="{len(cases)}" {counts}>'
    head = f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n{suite}\n'
    return head + "\n".join(cases) + "\n</testsuite>\n</testsuites>\n"


def _junit_cases(result: Result) -> Iterator[str]:
    for file in dict.fromkeys(one.file for one in result.checked):
        kinds = ", ".join(dict.fromkeys(one.kind for one in result.checked if one.file == file))
        wrong = "\n".join(str(one) for one in result.problems if one.file == file)
        inside = f"<failure message={quoteattr(_xml(wrong))}>{escape(_xml(wrong))}</failure>" if wrong else ""
        yield f"<testcase classname={quoteattr(kinds)} name={quoteattr(_xml(file))}>{inside}</testcase>"
    for reason in result.unchecked:
        yield f'<testcase classname="not checked" name={quoteattr(_xml(reason))}><error/></testcase>'
    for one in result.skipped:
        inside = f"<skipped message={quoteattr(_xml(one.reason))}/>"
        yield f'<testcase classname="skipped" name={quoteattr(_xml(one.file))}>{inside}</testcase>'


def _xml(text: str) -> str:
    """What XML 1.0 may hold: other characters are written as \\x1b."""
    return "\n".join(printable(line) for line in text.splitlines())


def github(result: Result) -> str:
    """Workflow commands: GitHub shows each beside its line."""
    lines = [_command("error", one) for one in result.problems] + [_command("warning", one) for one in result.warnings]
    lines += [f"::error::{_data(f'not checked: {reason}')}" for reason in result.unchecked]
    lines += [f"::notice::{_data(f'not judged: {doubt}')}" for doubt in result.doubts]
    bad = len({problem.file for problem in result.problems})
    return "\n".join([*lines, _verdict(result, bad)]) + "\n"


def _command(level: str, one: Problem) -> str:
    file = _data(one.file).replace(":", "%3A").replace(",", "%2C")
    return f"::{level} file={file},line={max(one.line, 1)}::{_data(_text(one))}"


def _data(text: str) -> str:
    return printable(text).replace("%", "%25")


def _text(one: Problem) -> str:
    return f"{one.key}: {one.message}" if one.key else one.message


FORMATS: Mapping[str, Callable[[Result], str]] = {"sarif": sarif, "junit": junit, "github": github}
