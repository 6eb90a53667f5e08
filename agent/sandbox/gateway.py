"""The HTTP server: journal, faults, authentication, authorization, then the API; one request at a time, whole.

A write is decided and stored without giving up the event loop, so that writers never interleave.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from aiohttp import web

from agent.sandbox import status_errors, watching, wire
from agent.sandbox.api import Api, Call
from agent.sandbox.authn import Authenticator
from agent.sandbox.authz import Authorizer
from agent.sandbox.faults import Fault, FaultBox, FaultKind
from agent.sandbox.journal import Journal, RequestRecord
from agent.sandbox.registry import Clock
from agent.sandbox.routing import RequestInfo, parse
from agent.sandbox.status_errors import ApiError
from agent.sandbox.watching import Watch


@dataclass(slots=True)
class Gateway:
    """Handles every request of the server."""

    _api: Api
    _authenticator: Authenticator
    _authorizer: Authorizer
    _journal: Journal
    _faults: FaultBox
    _readers: Mapping[str, Callable[[bytes], bytes]]
    _clock: Clock
    _bookmark_seconds: float
    _watches: set[Watch] = field(default_factory=set)

    def cut_watches(self) -> int:
        """End every running watch from the server's side; how many there were."""
        for watch in self._watches:
            watch.cut()
        return len(self._watches)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """One request."""
        info = parse(request.method, request.path, request.query)
        agent = request.headers.get("User-Agent", "")
        record = self._journal.begin(request.method, info, request.query_string, agent)
        try:
            return await self._serve(request, info, record)
        except asyncio.CancelledError:
            record.finish(record.status or 0)
            raise

    async def _serve(self, request: web.BaseRequest, info: RequestInfo, record: RequestRecord) -> web.StreamResponse:
        warnings: list[str] = []
        fault: Fault | None = None
        try:
            body, content_type = self._as_json(await wire.read_body(request), request.headers.get("Content-Type", ""))
            record.body = body.decode("utf-8", "replace")
            hit = self._faults.strike(info, record.user_agent)
            record.fault, fault = ",".join(hit.names), hit.fault
            if hit.latency_seconds:
                await asyncio.sleep(hit.latency_seconds)
            if fault is not None and fault.kind is FaultKind.DROP:
                return _cut(request, record)
            if fault is not None and fault.kind is FaultKind.STATUS:
                return self._send_fault(fault, record)
            # After the faults: a proxy in between does not know tokens.
            headers = request.headers
            known = self._authenticator.authenticate(headers.get("Authorization"))
            groups = tuple(headers.getall("Impersonate-Group", ()))
            user = self._authorizer.impersonate(known, headers.get("Impersonate-User", ""), groups)
            record.user = user.name
            self._authorizer.check(user, info)
            shape = wire.negotiate(headers.get("Accept", ""))
            call = Call(info, user, request.query, shape, content_type, body, warnings)
            if info.verb == "watch":
                return await self._watch(request, call, record, fault)
            answer = self._api.answer(call)
        except ApiError as error:
            answer = wire.refusal(error)
        return await self._send(request, answer, warnings, record, fault)

    def _as_json(self, body: bytes, content_type: str) -> tuple[bytes, str]:
        """A body that one of the readers knows, as JSON; any other as it came."""
        read = self._readers.get(content_type.partition(";")[0].strip())
        if read is None or not body:
            return body, content_type
        try:
            return read(body), "application/json"
        except ValueError as error:
            raise status_errors.bad_request(f"cannot read a body of {content_type}: {error}") from error

    def _send_fault(self, fault: Fault, record: RequestRecord) -> web.StreamResponse:
        error = fault.error()
        record.finish(fault.code)
        if fault.plain:
            response = web.Response(status=fault.code, text=error.message + "\n")
        else:
            response = wire.response(wire.refusal(error), "", [])
        if fault.retry_after is not None:
            response.headers["Retry-After"] = str(fault.retry_after)
        return response

    async def _send(
        self,
        request: web.BaseRequest,
        answer: wire.Response,
        warnings: list[str],
        record: RequestRecord,
        fault: Fault | None,
    ) -> web.StreamResponse:
        if fault is not None and fault.kind is FaultKind.LOSE_ANSWER:
            return _cut(request, record)
        response = wire.response(answer, request.headers.get("Accept-Encoding", ""), warnings)
        record.finish(answer.code)
        if fault is not None and fault.kind is FaultKind.TRUNCATE and request.method != "HEAD":
            return await _truncate(request, response)
        return response

    async def _watch(
        self, request: web.BaseRequest, call: Call, record: RequestRecord, fault: Fault | None
    ) -> web.StreamResponse:
        info = call.info
        resource = self._api.resource(info)
        options = watching.read_options(call.query, resource, call.shape)
        namespace = info.namespace if resource.namespaced else ""
        name = options.filter.single_name
        watch = Watch(self._api.store, resource, (namespace, name), options)
        self._watches.add(watch)
        patience = fault.seconds if fault is not None and fault.kind is FaultKind.CUT_WATCH else None
        out = web.StreamResponse(headers={"Content-Type": "application/json", "Cache-Control": "no-cache, private"})
        out.enable_chunked_encoding()
        record.status = 200
        try:
            await out.prepare(request)
            await watch.run(out, self._clock, self._bookmark_seconds, patience)
            if patience is not None and request.transport is not None:
                request.transport.abort()
        except ConnectionError:
            pass
        finally:
            watch.close()
            self._watches.discard(watch)
            record.finish(200)
        return out


def _cut(request: web.BaseRequest, record: RequestRecord) -> web.StreamResponse:
    record.finish(0)
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


async def _truncate(request: web.BaseRequest, whole: web.Response) -> web.StreamResponse:
    body = whole.body if isinstance(whole.body, bytes) else b""
    out = web.StreamResponse(status=whole.status, headers=whole.headers)
    out.content_length = len(body)
    with suppress(ConnectionError):
        await out.prepare(request)
        await out.write(body[: len(body) // 2])
        if request.transport is not None:
            # close, not abort: what was written still arrives.
            request.transport.close()
    return out
