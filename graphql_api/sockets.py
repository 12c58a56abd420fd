"""GraphQL over WebSocket (graphql-transport-ws): one client's mistake never closes its socket.

Strawberry's handler, with what its users' clients need: a null connection_init payload is
taken, and an operation that can't be parsed or found is answered by an `error` message.
"""

from typing import Any, cast

from graphql import GraphQLError
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import (
    BaseGraphQLTransportWSHandler,
)
from strawberry.subscriptions.protocols.graphql_transport_ws.types import (
    ConnectionInitMessage,
    Message,
)

from graphql_api.auth import SESSION_HEADER
from graphql_api.context import Context
from resolvers.errors import Unavailable


class SocketHandler(BaseGraphQLTransportWSHandler[Context, None]):
    """One socket."""

    async def handle_message(self, message: Message) -> None:
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
            await self.websocket.close(code=1013, reason="Try Again Later")

    @staticmethod
    def _get_pre_execution_close_reason(error: GraphQLError) -> str | None:
        return None


def _fault(message: object) -> str | None:
    """Say what is wrong with a message's form; null: nothing."""
    match message:
        case {"type": "subscribe", "id": str(), "payload": {"query": str()}}:
            return None
        case {"type": "subscribe"}:
            return "A subscribe message has an id and a payload with a query."
        case {"type": "complete", "id": str()}:
            return None
        case {"type": "complete"}:
            return "A complete message has an id."
        case {"type": str()}:
            return None
        case _:
            return "A message is a JSON object with a type."


def headers_of(payload: object) -> dict[str, str]:
    """Read the identity in a connection_init payload as the headers that it stands for.

    `authorization`, and `sessionId` or `X-Session-ID`, in any case of letters.
    """
    names = {"authorization": "Authorization", "sessionid": SESSION_HEADER}
    names[SESSION_HEADER.lower()] = SESSION_HEADER
    given = cast("dict[Any, Any]", payload) if isinstance(payload, dict) else {}
    return {
        names[str(key).lower()]: value
        for key, value in given.items()
        if str(key).lower() in names and isinstance(value, str)
    }
