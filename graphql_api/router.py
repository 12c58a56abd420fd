"""The GraphQL endpoint: Strawberry's router, with our schema, transports and GraphiQL."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from datetime import timedelta
from typing import Any, cast

from cross_web import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, Response
from strawberry.exceptions import ConnectionRejectionError
from strawberry.fastapi import GraphQLRouter
from strawberry.http.streaming import HTTPStreamTransport
from strawberry.subscriptions import (
    GRAPHQL_SSE_PROTOCOL,
    GRAPHQL_TRANSPORT_WS_PROTOCOL,
    MULTIPART_SUBSCRIPTION_PROTOCOL,
)
from strawberry.types.unset import UNSET, UnsetType

from db.viewer import Viewer
from graphql_api.context import Context
from graphql_api.graphiql import graphiql_page
from graphql_api.schema import schema
from graphql_api.sockets import SocketHandler, headers_of
from graphql_api.transports import (
    STREAM_TRANSPORTS,
    EventStream,
    wanted_transport,
    with_heartbeats,
)
from resolvers.errors import Unauthenticated

CONNECTION_INIT_SECONDS = 10
"How long a new socket may stay silent."
OPERATIONS_PER_SOCKET = 100

Identify = Callable[[Mapping[str, str]], Awaitable[Viewer | None]]


class ParleyRouter(GraphQLRouter[Context, None]):
    """`/graphql`, over HTTP, WebSocket, Server-Sent Events and multipart subscriptions.

    Uploads follow the GraphQL multipart request specification.
    """

    graphql_transport_ws_handler_class = SocketHandler
    stream_transport_classes_by_protocol = STREAM_TRANSPORTS

    def __init__(
        self,
        context: Callable[[HTTPConnection], Awaitable[Context]],
        identify: Identify,
        *,
        graphiql: bool,
        allowed_origins: frozenset[str],
    ) -> None:
        super().__init__(
            schema,
            context_getter=context,
            graphql_ide="graphiql" if graphiql else None,
            multipart_uploads_enabled=True,
            subscription_protocols=(
                GRAPHQL_TRANSPORT_WS_PROTOCOL,
                GRAPHQL_SSE_PROTOCOL,
                MULTIPART_SUBSCRIPTION_PROTOCOL,
            ),
            connection_init_wait_timeout=timedelta(seconds=CONNECTION_INIT_SECONDS),
            max_subscriptions_per_connection=OPERATIONS_PER_SOCKET,
            allowed_origins=sorted(allowed_origins),
        )
        self._identify = identify

    async def on_ws_connect(self, context: Context) -> UnsetType | dict[str, object] | None:
        """Take the identity from the first message, else from the handshake's headers."""
        connection = cast("HTTPConnection", context.request)
        headers = headers_of(context.connection_params) or connection.headers
        try:
            context.identify(await self._identify(headers))
        except Unauthenticated as error:
            raise ConnectionRejectionError from error
        return UNSET

    async def run(self, request: Request, *args: Any, **kwargs: Any) -> Any:
        """Answer a request or a socket, and let go of the files that it brought."""
        try:
            return await super().run(request, *args, **kwargs)
        finally:
            if request.scope["type"] == "http":
                await request.close()

    def parse_json(self, data: str | bytes) -> Any:
        """Read a body. What is no JSON, or no object or list of them, is the client's mistake."""
        try:
            parsed = super().parse_json(data)
        except (ValueError, RecursionError) as error:
            raise HTTPException(400, "Unable to parse request body as JSON") from error
        if not isinstance(parsed, dict | list):
            raise HTTPException(400, "The request body is a JSON object.")
        return cast("dict[str, Any] | list[Any]", parsed)

    def _get_stream_transport_from_headers(
        self, headers: Mapping[str, str]
    ) -> HTTPStreamTransport | None:
        return wanted_transport(headers.get("accept", ""), self._stream_transport_map)

    def _stream_result(
        self, request: Request, result: AsyncIterator[Any], transport: HTTPStreamTransport
    ) -> Callable[[], AsyncGenerator[str]]:
        async def messages() -> AsyncGenerator[str]:
            # What Strawberry gives is a generator, whatever it promises.
            async with aclosing(cast("AsyncGenerator[Any]", result)) as values:
                if transport.send_initial_heartbeat:
                    yield transport.heartbeat_message(self.encode_json_string)
                async for value in values:
                    response, _ = await self._process_stream_result(request, value, [])
                    yield transport.encode_next(response, self.encode_json_string)
            yield transport.encode_complete()

        def heartbeat() -> str:
            return transport.heartbeat_message(self.encode_json_string)

        return lambda: with_heartbeats(messages(), heartbeat, transport.heartbeat_interval)

    async def create_streaming_response(
        self,
        request: Request,
        stream: Callable[[], Any],
        sub_response: Response,
        headers: Mapping[str, str],
    ) -> Response:
        return EventStream(
            stream(),
            status_code=sub_response.status_code or 200,
            headers={**sub_response.headers, **headers},
        )

    async def render_graphql_ide(self, request: Request) -> HTMLResponse:
        return HTMLResponse(await asyncio.to_thread(graphiql_page))
