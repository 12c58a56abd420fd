"""GraphQL over WebSocket (graphql-transport-ws): one client's mistake never closes its streams.

Strawberry's handler, with what its users' clients need: what breaks the protocol closes the
socket with 4400, what is wrong with one operation is an `error` message of that operation.
Each operation is counted, checked and limited like a request of its own.
"""

import asyncio
import time
from contextlib import aclosing, suppress
from typing import Any, Protocol, cast

import structlog
from graphql import GraphQLError
from starlette.websockets import WebSocketDisconnected as SocketClosed
from strawberry.http.exceptions import NonJsonMessageReceived, WebSocketDisconnected
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import (
    BaseGraphQLTransportWSHandler,
    Operation,
)
from strawberry.subscriptions.protocols.graphql_transport_ws.types import (
    CompleteMessage,
    ConnectionInitMessage,
    Message,
    SubscribeMessage,
)
from strawberry.types.graphql import OperationType

from graphql_api.auth import SESSION_HEADER
from graphql_api.context import Context
from graphql_api.errors import ErrorCode, show
from graphql_api.operations import Operations, ran_nothing
from graphql_api.payloads import parse_json, read_payload
from graphql_api.refusals import Refused
from resolvers.errors import Unauthenticated, Unavailable

log = structlog.get_logger(__name__)

BURST = 300
"Messages that may come at once: a page that reconnects asks for everything that it shows."
MESSAGES_PER_SECOND = 50.0
"What may come for long."
TOO_MANY = 4429
TRY_AGAIN_LATER = 1013
INTERNAL = 1011
ALL = frozenset(OperationType)


class Endpoint(Protocol):
    """What a socket needs of the router that accepted it."""

    operations: Operations


class SocketHandler(BaseGraphQLTransportWSHandler[Context, None]):
    """One socket."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._flood = _Flood()

    async def handle_message(self, message: Message) -> None:
        if self._flood.rises():
            await self.websocket.close(code=TOO_MANY, reason="Too many messages")
            return
        fault = _fault(message)
        if fault is not None:
            await self.handle_invalid_message(fault)
            return
        await super().handle_message(message)

    async def handle_connection_init(self, message: ConnectionInitMessage) -> None:
        if message.get("payload", {}) is None:
            message = ConnectionInitMessage(type="connection_init")
        try:
            await super().handle_connection_init(message)
        except Unavailable:  # who it is can't be found out now: clients try again after this code
            await self.websocket.close(code=TRY_AGAIN_LATER, reason="Try again later")
        except Exception:
            log.exception("socket.failed", request_id=self.context.request_id)
            await self.websocket.close(code=INTERNAL, reason="Internal error")

    async def handle_subscribe(self, message: SubscribeMessage) -> None:
        """Begin an operation; what is asked is read when it runs, so that a mistake is its own."""
        if not self.connection_acknowledged:
            await self.websocket.close(code=4401, reason="Unauthorized")
            return
        id = message["id"]
        if id in self.operations:
            await self.websocket.close(code=4409, reason="There is an operation of this id")
            return
        operation = Operation(self, id, "", None, None)
        most = self.max_subscriptions_per_connection
        if most is not None and len(self.operations) >= most:
            code = ErrorCode.RATE_LIMITED
            refused = Refused(code, f"At most {most} operations may run on one socket.")
            await self.send_message(_error(id, refused))
            return
        self.operations[id] = operation
        operation.task = asyncio.create_task(self._run(operation, message["payload"]))

    async def send_message(self, message: Message) -> None:
        """Send a message. To a client that has gone, nothing: its operations are ended at once."""
        with suppress(WebSocketDisconnected, SocketClosed):
            await super().send_message(message)

    async def _run(self, operation: Operation[Context, None], payload: object) -> None:
        """See an operation through to its last message."""
        context = self.context.for_operation()
        operations = cast("Endpoint", self.view).operations
        try:
            prepared = await operations.prepare(context, read_payload(payload), ALL)
            async with aclosing(operations.stream(context, prepared)) as results:
                async for result in results:
                    if ran_nothing(result):
                        await operation.send_initial_errors(result.errors or [])
                        return
                    await operation.send_next(result)
        except Refused as refused:
            await operation.send_operation_message(_error(operation.id, refused))
        except Exception as failure:
            errors = [GraphQLError("", original_error=failure)]
            show(errors, context)
            await operation.send_initial_errors(errors)
        else:
            await operation.send_operation_message(
                CompleteMessage(id=operation.id, type="complete")
            )


class _Flood:
    """A bucket that messages fill faster than it runs dry."""

    def __init__(self) -> None:
        self._level = 0.0
        self._at = time.monotonic()

    def rises(self) -> bool:
        """Take note of a message; true where too many have come."""
        now = time.monotonic()
        self._level = max(0.0, self._level - (now - self._at) * MESSAGES_PER_SECOND) + 1
        self._at = now
        return self._level > BURST


def _error(id: str, refused: Refused) -> Message:
    payload = [error.formatted for error in refused.errors]
    return {"id": id, "type": "error", "payload": payload}


def _fault(message: object) -> str | None:
    """Say what is wrong with a message's form; null: nothing."""
    match message:
        case {"type": "subscribe", "id": str(id), "payload": object() as payload} if id:
            return _fault_of_payload(payload)
        case {"type": "subscribe"}:
            return "A subscribe message has an id and a payload."
        case {"type": "complete", "id": str()}:
            return None
        case {"type": "complete"}:
            return "A complete message has an id."
        case {"type": "ping" | "pong", "payload": str() | int() | float() | list()}:
            return "A payload is an object."
        case {"type": "ping" | "pong" | "connection_init"}:
            return None
        case _:
            return "A message is a JSON object with a type of graphql-transport-ws."


def _fault_of_payload(payload: object) -> str | None:
    try:
        asked = read_payload(payload)
    except Refused as refused:
        return refused.errors[0].message
    names_one = asked.document_id is not None or "persistedQuery" in asked.extensions
    return None if asked.query is not None or names_one else "A payload has a query."


def decode_message(text: str | bytes) -> object:
    """Read a message's JSON. Raises what Strawberry's handler closes the socket for."""
    try:
        return parse_json(text)
    except Refused as refused:
        raise NonJsonMessageReceived from refused


def headers_of(payload: object) -> dict[str, str]:
    """Read the identity in a connection_init payload as the headers that it stands for.

    `authorization`, and `sessionId` or `X-Session-ID`, in any case of letters. Raises
    `Unauthenticated` for one that is no text.
    """
    names = {"authorization": "Authorization", "sessionid": SESSION_HEADER}
    names[SESSION_HEADER.lower()] = SESSION_HEADER
    given = cast("dict[Any, Any]", payload) if isinstance(payload, dict) else {}
    said = {
        names[str(key).lower()]: value
        for key, value in given.items()
        if str(key).lower() in names and value is not None
    }
    if not all(isinstance(value, str) for value in said.values()):
        raise Unauthenticated("What says who you are is a text.")
    return said
