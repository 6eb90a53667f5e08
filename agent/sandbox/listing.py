"""Lists: pages that stay consistent, selectors, and the forms that clients ask for (list, Table, metadata only).

A page continues at the revision of the first one, from the store's window; when that is gone the answer is 410 with a
token to continue inconsistently, as the real server gives it. Source: apiserver pkg/storage/continue.go.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from agent.sandbox import status_errors
from agent.sandbox.catalog import Resource
from agent.sandbox.selectors import Filter, read_filter
from agent.sandbox.status_errors import Cause, Object, encode
from agent.sandbox.store import Item, Key, Store, TooOldError
from agent.sandbox.tables import partial, table

_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without"
    " the continue parameter, or use the continue token in this response to retrieve the remainder of the results."
    " Continuing with the provided token results in an inconsistent list - objects that were created, modified, or"
    " deleted between the time the first chunk was returned and now may show up in the list."
)


@dataclass(frozen=True, slots=True)
class ListOptions:
    """The query of a list."""

    filter: Filter
    limit: int = 0
    token: str = ""
    revision: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """What was found: the items, at which revision, and how to continue."""

    items: list[Item]
    revision: int
    token: str = ""
    remaining: int | None = None

    def meta(self) -> Object:
        """The list's metadata."""
        meta: Object = {"resourceVersion": str(self.revision)}
        if self.token:
            meta["continue"] = self.token
            if self.remaining is not None:
                meta["remainingItemCount"] = self.remaining
        return meta


def bad_revision(revision: str) -> str:
    """Go's error for a resourceVersion that is not a number."""
    return f'resourceVersion: Invalid value: "{revision}": strconv.ParseUint: parsing "{revision}": invalid syntax'


def read_options(query: Mapping[str, str], resource: Resource) -> ListOptions:
    """The options of a query. Raises ApiError: 400 for a selector or a number that cannot be read."""
    limit = query.get("limit", "") or "0"
    if not limit.lstrip("-").isdecimal():
        raise status_errors.bad_request(f'strconv.ParseInt: parsing "{limit}": invalid syntax')
    selected = read_filter(query.get("labelSelector", ""), query.get("fieldSelector", ""), resource)
    revision = query.get("resourceVersion", "")
    if revision and not revision.isdecimal():
        raise status_errors.bad_request(f"invalid resource version: {bad_revision(revision)}")
    return ListOptions(selected, max(int(limit), 0), query.get("continue", ""), revision)


def encode_token(revision: int, after: Key) -> str:
    """A continue token: continue after ``after`` at ``revision`` (-1: at whatever is now)."""
    raw = encode({"v": "meta.k8s.io/v1", "rv": revision, "start": [*after]})
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decode_token(token: str) -> tuple[int, Key]:
    try:
        raw = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        namespace, name = raw["start"]
        return int(raw["rv"]), (str(namespace), str(name))
    except (ValueError, KeyError, TypeError) as error:
        raise status_errors.bad_request(f"invalid continue token: continue key is not valid: {error}") from error


def check_not_future(store: Store, revision: str) -> None:
    """A revision that this server has not reached is worth a retry.

    Raises ApiError: 504 with the cause ResourceVersionTooLarge.
    """
    if revision and int(revision) > store.revision:
        cause = Cause("ResourceVersionTooLarge", "Too large resource version")
        message = f"Too large resource version: {revision}, current: {store.revision}"
        raise status_errors.timeout(message, 1, (cause,))


def find(store: Store, resource: Resource, namespace: str, options: ListOptions) -> Page:
    """One page. Raises ApiError: 400, 410 (the token is too old), 504 (a future revision)."""
    if not options.token:
        check_not_future(store, options.revision)
        return _page(store.scan(resource, namespace), store.revision, options)
    at, after = _decode_token(options.token)
    if at in (-1, store.revision):
        return _page(store.scan(resource, namespace, after), store.revision, options)
    try:
        found = store.snapshot(resource, at)
    except TooOldError as error:
        raise status_errors.expired(_EXPIRED, encode_token(-1, after)) from error
    keys = sorted(key for key in found if key > after and (not namespace or key[0] == namespace))
    return _page(((key, found[key]) for key in keys), at, options)


def _page(pairs: Iterable[tuple[Key, Item]], at: int, options: ListOptions) -> Page:
    items: list[Item] = []
    last: Key | None = None
    left = 0
    everything = options.filter.everything
    for key, item in pairs:
        if not everything and not options.filter.matches(item.obj):
            continue
        if options.limit and len(items) == options.limit:
            left += 1
            if not everything:
                break
            continue
        items.append(item)
        last = key
    if left and last is not None:
        return Page(items, at, encode_token(at, last), left if everything else None)
    return Page(items, at)


def render(page: Page, resource: Resource, shape: str, now: datetime) -> bytes:
    """The body of a list in the form that was asked for."""
    if shape == "Table":
        return encode(table(resource, page.items, page.meta(), now))
    if shape.startswith("PartialObjectMetadata"):
        items = b",".join(encode(partial(item)) for item in page.items)
        kind, version = "PartialObjectMetadataList", "meta.k8s.io/v1"
    else:
        items = b",".join(item.body for item in page.items)
        kind, version = f"{resource.kind}List", resource.api_version
    head = f'{{"kind":"{kind}","apiVersion":"{version}","metadata":'.encode()
    return head + encode(page.meta()) + b',"items":[' + items + b"]}"
