"""Modules that load at their first use rather than at their import.

importlib.util.LazyLoader is meant for this, but in Python 3.11 the second import of a module loads it. Only modules of
the list are deferred, and a test fails when `run` loads one of them.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.abc import Loader  # costs what it imports itself

# Modules that are imported and never used in `run`; beside each its importer. With names: what others import from it
# (`from … import`) and do not use; each is a placeholder that loads the module when it is called.
DEFERRED: Mapping[str, Sequence[str]] = {
    "asyncio": (),  # structlog.stdlib, structlog._native
    "bz2": (),  # shutil, zipfile
    "calendar": ("timegm",),  # http.cookiejar
    "difflib": (),  # config.suggestions, for typing errors
    "email.header": (),  # email.message
    "http.cookies": ("Morsel",),  # requests.cookies
    "idna": (),  # requests; for names of hosts beyond ASCII
    "importlib.metadata": ("version",),  # urllib3.http2
    "inspect": (),  # dataclasses
    "lzma": (),  # shutil, zipfile
    "mimetypes": (),  # http.server, urllib3.fields
    "mmap": (),  # prometheus_client.mmap_dict
    "pickle": ("PicklingError",),  # structlog._output
    "prometheus_client.context_managers": ("ExceptionCounter", "InprogressTracker", "Timer"),
    "prometheus_client.exposition": (
        "CONTENT_TYPE_LATEST", "CONTENT_TYPE_PLAIN_0_0_4", "CONTENT_TYPE_PLAIN_1_0_0", "MetricsHandler",
        "delete_from_gateway", "generate_latest", "instance_ip_grouping_key", "make_asgi_app", "make_wsgi_app",
        "push_to_gateway", "pushadd_to_gateway", "start_http_server", "start_wsgi_server", "write_to_textfile",
    ),
    "prometheus_client.gc_collector": ("GCCollector", "GC_COLLECTOR"),
    "prometheus_client.platform_collector": ("PLATFORM_COLLECTOR", "PlatformCollector"),
    "prometheus_client.process_collector": ("PROCESS_COLLECTOR", "ProcessCollector"),
    "structlog.stdlib": (),
    "structlog.threadlocal": (),
    "sysconfig": (),  # zoneinfo; PYTHONTZPATH answers its question
    "tempfile": (),  # requests.utils
    "traceback": ("walk_tb",),  # logging, structlog
    "urllib.request": (
        "getproxies", "getproxies_environment", "parse_http_list", "proxy_bypass", "proxy_bypass_environment",
    ),  # http.cookiejar, requests
    "zipfile": (),  # requests.utils
}  # fmt: skip


def defer(names: Mapping[str, Sequence[str]] = DEFERRED) -> None:
    """From now on these modules load at their first use. What is loaded already stays as it is."""
    sys.meta_path.insert(0, Finder(names))


def unload(*names: str) -> None:
    """Removes modules from memory; the next import loads them again."""
    for name in names:
        sys.modules.pop(name, None)
        package, _, child = name.rpartition(".")
        if package in sys.modules:
            vars(sys.modules[package]).pop(child, None)
    gc.collect()


class Finder:
    """Finds deferred modules where Python finds them, with a loader that waits."""

    def __init__(self, names: Mapping[str, Sequence[str]]) -> None:
        self._names = names
        # One for all, and re-entrant: a module may use another one while it loads.
        self._lock = threading.RLock()

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The module's own specification, with our loader around its own; None for what is not deferred."""
        if name not in self._names:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _LazyLoader(spec.loader, self._names[name], self._lock)  # type: ignore[assignment]
        return spec


class _LazyLoader:
    def __init__(self, loader: Loader, placeholders: Sequence[str], lock: AbstractContextManager[bool]) -> None:
        self._loader, self._placeholders, self._lock = loader, placeholders, lock

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Leaves the module empty except for what loads it: https://peps.python.org/pep-0562/."""
        inside, waits = vars(module), True

        def load(attribute: str) -> Any:
            nonlocal waits
            # `from … import` reads __path__, and a package has one from the beginning.
            if attribute == "__path__":
                raise AttributeError(attribute)
            with self._lock:
                if waits:
                    waits = False
                    for name in self._placeholders:
                        inside.pop(name, None)
                    self._loader.exec_module(module)
                    if inside.get("__getattr__") is load:
                        del inside["__getattr__"]
            if attribute not in inside and inside.get("__getattr__") is load:  # half loaded, and used by its own code
                raise AttributeError(f"module {module.__name__!r} has no attribute {attribute!r}", name=attribute)
            return getattr(module, attribute)

        inside["__getattr__"] = load
        inside.update({name: _placeholder(load, name) for name in self._placeholders})
        if module.__name__ == "inspect":
            inside["signature"] = _signature(load)


def _placeholder(load: Callable[[str], Any], name: str) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        return load(name)(*arguments, **named)

    return call


def _signature(load: Callable[[str], Any]) -> Callable[..., Any]:
    def signature(subject: Any, **named: Any) -> Any:
        # dataclasses writes it into the docstring of a class that has none, and with -OO that is every class.
        return "" if hasattr(subject, "__dataclass_fields__") else load("signature")(subject, **named)

    return signature
