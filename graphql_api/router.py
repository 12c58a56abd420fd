"""The GraphQL endpoint: Strawberry's router, with an HTTP side of our own (GraphQL over HTTP)."""

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from datetime import timedelta
from http import HTTPStatus
from typing import Any, TypeVar, cast

import orjson
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, Response
from strawberry.exceptions import ConnectionRejectionError
from strawberry.fastapi import GraphQLRouter
from strawberry.http import process_result
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.types.execution import ExecutionResult
from strawberry.types.graphql import OperationType
from strawberry.types.unset import UNSET, UnsetType

from db.viewer import Viewer
from graphql_api.auth import IDENTITY_HEADERS
from graphql_api.context import Context
from graphql_api.errors import ErrorCode
from graphql_api.graphiql import graphiql_headers, graphiql_page
from graphql_api.negotiation import Media, accepted_media
from graphql_api.operations import Operations, ran_nothing
from graphql_api.payloads import Payload, payloads
from graphql_api.prepared import Prepared
from graphql_api.refusals import Refused
from graphql_api.request_bodies import BodyLimits
from graphql_api.requests import CLIENT_GONE
from graphql_api.schema import schema
from graphql_api.sockets import SocketHandler, decode_message, headers_of
from graphql_api.transports import STREAM_TRANSPORTS, EventStream, with_heartbeats
from resolvers.errors import Unauthenticated

CONNECTION_INIT_SECONDS = 10
"How long a new socket may stay silent."
OPERATIONS_PER_SOCKET = 100
COST_HEADER = "X-GraphQL-Cost"

ALL = frozenset(OperationType)
QUERIES = frozenset({OperationType.QUERY})

Identify = Callable[[Mapping[str, str]], Awaitable[Viewer | None]]
ResultT = TypeVar("ResultT")


class ParleyRouter(GraphQLRouter[Context, None]):
    """`/graphql`, over HTTP, WebSocket, Server-Sent Events and multipart subscriptions."""

    graphql_transport_ws_handler_class = SocketHandler

    def __init__(
        self,
        context: Callable[[HTTPConnection], Awaitable[Context]],
        identify: Identify,
        operations: Operations,
        *,
        body_limits: BodyLimits,
        graphiql: bool,
        takes_keys: bool,
        allowed_origins: frozenset[str],
    ) -> None:
        super().__init__(
            schema,
            context_getter=context,
            graphql_ide="graphiql" if graphiql else None,
            subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL,),
            connection_init_wait_timeout=timedelta(seconds=CONNECTION_INIT_SECONDS),
            max_subscriptions_per_connection=OPERATIONS_PER_SOCKET,
            allowed_origins=sorted(allowed_origins),
        )
        self.operations = operations
        self._identify = identify
        self._body_limits = body_limits
        self._takes_keys = takes_keys

    async def on_ws_connect(self, context: Context) -> UnsetType | dict[str, object] | None:
        """Take the identity from the first message, and what that leaves out from the handshake."""
        handshake = cast("HTTPConnection", context.request).headers
        try:
            known = {name: handshake[name] for name in IDENTITY_HEADERS if name in handshake}
            said = headers_of(context.connection_params)
            context.identify(await self._identify(known | said))
        except Unauthenticated as error:
            raise ConnectionRejectionError from error
        return UNSET

    def encode_json(self, data: object) -> str:
        try:
            return orjson.dumps(data, default=str).decode()
        except TypeError:  # half of a surrogate pair, which only a client can have sent
            return json.dumps(data, default=str, separators=(",", ":"))

    def decode_json(self, data: str | bytes) -> object:
        """Read a socket's message; bodies are read by `payloads`."""
        return decode_message(data)

    async def run(self, request: Any, context: Any = UNSET, root_value: Any = UNSET) -> Any:
        """Answer a request, or serve a socket until it closes."""
        if request.scope["type"] == "websocket":
            return cast("Any", await super().run(request, context, root_value))
        accepted = accepted_media(request.headers.getlist("accept"))
        try:
            return await self._answer(request, context, accepted)
        except Refused as refused:
            if refused.status is None and accepted[0].is_stream:
                return self._refused_stream(refused, accepted[0])
            return self._refusal(refused, accepted)

    async def _answer(self, request: Request, context: Context, accepted: list[Media]) -> Response:
        asks_for_page = request.method == "GET" and not request.query_params
        if asks_for_page and accepted and accepted[0] is Media.HTML:
            return await self._page()
        accepted = [each for each in accepted if each is not Media.HTML]
        if not accepted:
            raise Refused(
                ErrorCode.BAD_USER_INPUT,
                "An answer is application/graphql-response+json, application/json,"
                " text/event-stream, or multipart/mixed with a subscriptionSpec.",
                406,
            )
        context.tells_cost = request.headers.get(COST_HEADER, "0") not in ("", "0")
        async with AsyncExitStack() as stack:
            asked = await stack.enter_async_context(payloads(request, self._body_limits))
            if isinstance(asked, list):
                return await self._answer_batch(request, context, asked, accepted)
            operation = await self.operations.prepare(context, asked, _allowed(request, accepted))
            media = _chosen(operation, accepted)
            if media.is_stream:
                files = stack.pop_all()  # they are needed for as long as the stream lasts
                return self._stream(context, operation, media, files)
            result = await self._executed(request, context, operation)
            return self._result(result, context, media)

    async def _answer_batch(
        self, request: Request, context: Context, asked: list[Payload], accepted: list[Media]
    ) -> Response:
        plain = [each for each in accepted if not each.is_stream]
        if not plain:
            raise Refused(ErrorCode.BAD_USER_INPUT, "A batch can't be streamed.", 406)
        too_many: list[Refused] = []

        async def answer(payload: Payload) -> dict[str, Any]:
            own = context.for_operation()
            try:
                operation = await self.operations.prepare(own, payload, _allowed(request, ()))
            except Refused as refused:
                if refused.status == HTTPStatus.TOO_MANY_REQUESTS:
                    too_many.append(refused)
                return _refused(refused)
            return _shown(await self._executed(request, own, operation))

        answers = await asyncio.gather(*map(answer, asked))
        if len(too_many) == len(asked):
            status, headers = HTTPStatus.TOO_MANY_REQUESTS, too_many[0].headers
            return _json_response(self.encode_json(answers), plain[0], status, headers)
        return self._json(answers, plain[0], 200, context)

    async def _executed(
        self, request: Request, context: Context, operation: Prepared
    ) -> ExecutionResult:
        """Run an operation; a query only for as long as somebody waits for it."""
        execution = self.operations.execute(context, operation)
        if operation.kind is not OperationType.QUERY:
            return await execution
        return await _while_connected(request, execution)

    def _result(self, result: ExecutionResult, context: Context, media: Media) -> Response:
        shown = _shown(result)
        status = (context.response.status_code if context.response else None) or 200
        if status == 200 and "data" not in shown and media is Media.RESPONSE:
            status = 400
        codes = {error["extensions"].get("code") for error in shown.get("errors", ())}
        if ErrorCode.TIMEOUT.value in codes:
            status = 504
        return self._json(shown, media, status, context)

    def _json(self, data: object, media: Media, status: int, context: Context) -> Response:
        headers = dict(context.response.headers) if context.response else {}
        return _json_response(self.encode_json(data), media, status, headers)

    def _refusal(self, refused: Refused, accepted: list[Media]) -> Response:
        plain = [each for each in accepted if each in (Media.JSON, Media.RESPONSE)]
        media = plain[0] if plain else Media.JSON
        status = refused.status or (400 if media is Media.RESPONSE else 200)
        body = self.encode_json(_refused(refused))
        return _json_response(body, media, status, refused.headers)

    def _stream(
        self, context: Context, operation: Prepared, media: Media, files: AsyncExitStack
    ) -> Response:
        transport = STREAM_TRANSPORTS[media]()

        async def messages() -> AsyncGenerator[str]:
            async with files, aclosing(self.operations.stream(context, operation)) as results:
                if transport.opening:
                    yield transport.opening
                if transport.send_initial_heartbeat:
                    yield transport.heartbeat_message(self.encode_json)
                async for result in results:
                    yield transport.encode_next(cast("Any", _shown(result)), self.encode_json)
            yield transport.encode_complete()

        body = with_heartbeats(
            messages(),
            lambda: transport.heartbeat_message(self.encode_json),
            transport.heartbeat_interval,
        )
        return EventStream(body, headers=dict(transport.headers))

    def _refused_stream(self, refused: Refused, media: Media) -> Response:
        """Tell what is wrong with a document in the stream itself, where clients look for it."""
        transport = STREAM_TRANSPORTS[media]()
        shown = transport.encode_next(cast("Any", _refused(refused)), self.encode_json)
        body = transport.opening + shown + transport.encode_complete()
        return Response(body, headers=dict(transport.headers))

    async def _page(self) -> Response:
        if self.graphql_ide is None:
            raise Refused(ErrorCode.NOT_FOUND, "There is no GraphiQL here.", 404)
        nonce = secrets.token_urlsafe(16)
        page = await asyncio.to_thread(graphiql_page, nonce, takes_keys=self._takes_keys)
        return HTMLResponse(page, headers=graphiql_headers(nonce))


def _allowed(request: Request, accepted: list[Media] | tuple[()]) -> frozenset[OperationType]:
    """Say what a request may do: GET does not write, and what streams has to be asked for so."""
    allowed = QUERIES if request.method == "GET" else QUERIES | {OperationType.MUTATION}
    if any(each.is_stream for each in accepted):
        allowed |= {OperationType.SUBSCRIPTION}
    return allowed


def _chosen(operation: Prepared, accepted: list[Media]) -> Media:
    """Choose how to answer; a subscription only fits a stream, if the client takes one at all."""
    if operation.kind is OperationType.SUBSCRIPTION:
        return next(each for each in accepted if each.is_stream)
    return accepted[0]


def _refused(refused: Refused) -> dict[str, Any]:
    """Give a refusal as it goes over the wire."""
    shown: dict[str, Any] = {"errors": [error.formatted for error in refused.errors]}
    return shown | ({"extensions": refused.extensions} if refused.extensions else {})


def _shown(result: ExecutionResult) -> dict[str, Any]:
    """Give a result as it goes over the wire: no `data` where nothing was executed."""
    shown = cast("dict[str, Any]", process_result(cast("Any", result)))
    if ran_nothing(result):
        del shown["data"]
    return shown


def _json_response(body: str, media: Media, status: int, headers: Mapping[str, str]) -> Response:
    headers = {**headers, "Vary": "Accept"}
    return Response(body, status, headers, media_type=f"{media.value}; charset=utf-8")


async def _while_connected(request: Request, work: Awaitable[ResultT]) -> ResultT:
    """Wait for work that is done for the client alone. Raises `Refused` once that has gone."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_has_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Refused(ErrorCode.UNAVAILABLE, "The client has gone.", CLIENT_GONE)
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _has_left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
