"""What each measure against memory saves: the daemon as shipped, and with one measure undone at a time.

Only when asked for (`python -m bench savings`, about five minutes). A measure that saves nothing here should go.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench import imaged
from bench.daemons import running
from bench.figure import Figure
from bench.resident import Resident

_RUNS = 3
_SETTLED_SECONDS = 3.0
_MALLOC = ("MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
_LOCALE = ("PYTHONUTF8", "PYTHONCOERCECLOCALE")
_NO_DEFER = "lazy_import.defer = lambda *_: None"
_NO_SHARE = "shared_methods.share = lambda _: None"
_NO_FORGET = "shared_methods.forget_annotations = lambda: None"
_NO_UNLOAD = "lazy_import.unload = lambda *_: None"
# shared_methods imports dataclasses, and so comes after defer.
_IMPORT_CLASSES = "from agent.lean import shared_methods"
_THEIR_TEXT = (
    "import prometheus_client, agent.report.exposition as text; text.exposition = prometheus_client.generate_latest"
)


@dataclass(frozen=True, slots=True)
class _Variant:
    """what: the measure that is undone. code: run before the command line is."""

    what: str
    python: imaged.Python
    code: Sequence[str] = ()

    @property
    def start(self) -> tuple[str, ...]:
        """What the interpreter is given before `run`."""
        if not self.code:
            return ("-m", "agent")
        lines = [
            "import sys",
            "from agent.lean import lazy_import",
            *self.code,
            "from agent.cli import main",
            "sys.exit(main())",
        ]
        return ("-c", "\n".join(lines))


def figures() -> list[Figure]:
    """The baseline, then what each measure gives."""
    shipped = imaged.python()
    base = _median(_Variant("", shipped))
    saved = [Figure(f"saved by: {one.what}", f"{_median(one) - base:.2f} MiB") for one in _variants(shipped)]
    return [Figure("resident as shipped", f"{base:.2f} MiB"), *saved]


def _variants(shipped: imaged.Python) -> list[_Variant]:
    # Byte code of its own: what is cached has no columns.
    columns = shipped.without("PYTHONNODEBUGRANGES", PYTHONPYCACHEPREFIX=f"{imaged.CACHE}/byte-code-columns")
    undone = (_NO_DEFER, _IMPORT_CLASSES, _NO_SHARE, _NO_FORGET, _NO_UNLOAD, _THEIR_TEXT)
    bare = columns.without("PYTHONOPTIMIZE", "PYTHONTZPATH", *_MALLOC, *_LOCALE)
    whole = imaged.python(pruned=False).environment["PYTHONPATH"]
    return [
        _Variant("modules deferred", shipped, (_NO_DEFER,)),
        _Variant("methods shared", shipped, ("lazy_import.defer()", _IMPORT_CLASSES, _NO_SHARE)),
        _Variant("functions without annotations", shipped, ("lazy_import.defer()", _IMPORT_CLASSES, _NO_FORGET)),
        _Variant("the parser unloaded", shipped, (_NO_UNLOAD,)),
        _Variant("our own text of metrics", shipped, ("lazy_import.defer()", _THEIR_TEXT)),
        _Variant("all of these", shipped, undone),
        _Variant("no docstrings (-OO)", shipped.without("PYTHONOPTIMIZE")),
        _Variant("no columns in tracebacks", columns),
        _Variant("packages pruned", shipped.without(PYTHONPATH=whole)),
        _Variant("malloc's settings", shipped.without(*_MALLOC)),
        _Variant("no locale", shipped.without(*_LOCALE)),
        _Variant("PYTHONTZPATH", shipped.without("PYTHONTZPATH")),
        _Variant("everything", replace(bare, environment={**bare.environment, "PYTHONPATH": whole}), undone),
    ]


def _median(variant: _Variant) -> float:
    """MiB; a first run, which writes byte code, is left out."""
    samples = [_sample(variant) for _ in range(_RUNS + 1)]
    return statistics.median(samples[1:])


def _sample(variant: _Variant) -> float:
    with running(variant.python, start=variant.start) as agent:
        agent.metrics()
        time.sleep(_SETTLED_SECONDS)
        assert agent.process is not None
        return Resident.of(agent.process.pid).total_mib
