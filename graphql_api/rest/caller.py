"""Who asks over REST, and what they call their conversations."""

from collections.abc import Awaitable, Callable
from typing import Annotated
from uuid import UUID, uuid5

from fastapi import Depends, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.requests import HTTPConnection, Request

from db.ids import SessionId
from db.sessions import SessionRow
from db.viewer import Viewer
from graphql_api.auth import SESSION_HEADER, new_key
from graphql_api.context import Context
from resolvers.sessions import SessionName, session_name

GetContext = Callable[[HTTPConnection], Awaitable[Context]]
Count = Callable[[Viewer], Awaitable[None]]
GetVisitor = Callable[[str], Viewer]

_NAMESPACE = UUID("6d0c9f1e-2f7b-5d53-8f0e-5c1f1f7f1d42")
"Any fixed UUID; changing it would part visitors from their conversations."


def conversation_id(key: str) -> SessionId:
    """Give the id of a visitor's one lasting conversation, which their key stands for.

    The key is a secret and so is never stored: the id is made of it, and leads nobody back.
    """
    return SessionId(uuid5(_NAMESPACE, f"conversation\n{key}"))


def _key_in(text: str | None) -> str | None:
    """Read a key as `auth` does, which takes capitals and braces. Null: it is none."""
    try:
        return None if text is None else str(UUID(text))
    except ValueError:
        return None


class Caller:
    """A request's viewer, and for an anonymous one their key, as it is written.

    A signed-in user may show the key of the visitor that they were: it says nothing of who asks
    then, but must not be stored as the name of anything either.
    """

    def __init__(self, context: Context, key: str | None) -> None:
        self.context = context
        self.viewer = context.viewer
        self._shown_key = _key_in(key)
        self.key = self._shown_key if self.viewer.is_anonymous else None

    def named(self, session_id: str) -> SessionName:
        """Read what the caller calls a session.

        Their own key is their lasting conversation; to a user, so is that of a visitor whom they
        have claimed.
        """
        if self.is_own_key(session_id):
            return SessionName(conversation_id(str(self._shown_key)), None)
        name = session_name(session_id)
        if name.id is None or self.viewer.is_anonymous:
            return name
        return name._replace(visitors_id=conversation_id(str(name.id)))

    def is_own_key(self, text: str) -> bool:
        """Tell whether a text is the key that was sent along, however it is written."""
        return self._shown_key is not None and _key_in(text) == self._shown_key

    @property
    def lasting(self) -> SessionName | None:
        """The conversation that an anonymous caller need not name. Null: it has to be named."""
        return None if self.key is None else SessionName(conversation_id(self.key), None)

    def calls(self, session: SessionRow) -> str:
        """Say what the caller calls a session."""
        key = self._shown_key
        if key is not None and session.id == conversation_id(key):
            return key
        return session.session_id or str(session.id)


def identified_by(
    context: GetContext, visitor: GetVisitor, count: Count
) -> Callable[..., Awaitable[None]]:
    """Make the dependency that `Asking` and `Visiting` need to have run before them."""

    async def identify(request: Request, known: Annotated[Context, Depends(context)]) -> None:
        if known.known_viewer is not None:
            await count(known.known_viewer)
        request.state.context = known
        request.state.visitor = visitor

    return identify


_KEY = APIKeyHeader(
    name=SESSION_HEADER,
    scheme_name="Visitor",
    description="A random UUID (version 4) that the client made and keeps to itself.",
    auto_error=False,
)
_TOKEN = HTTPBearer(
    scheme_name="Token",
    bearerFormat="JWT",
    description="A token of the issuer that the server trusts. It comes before a key.",
    auto_error=False,
)


def _known(
    request: Request,
    key: Annotated[str | None, Security(_KEY)],
    _: Annotated[object, Security(_TOKEN)],
) -> Caller:
    return Caller(request.state.context, key)


def _anyone(
    request: Request,
    key: Annotated[str | None, Security(_KEY)],
    _: Annotated[object, Security(_TOKEN)],
) -> Caller:
    if key is None and "Authorization" not in request.headers:
        key = new_key()
        request.state.context.identify(request.state.visitor(key))
        request.state.made_key = key
    return Caller(request.state.context, key)


Asking = Annotated[Caller, Depends(_known)]
"The one who asks, who has said who they are. Raises `Unauthenticated`."

Visiting = Annotated[Caller, Depends(_anyone)]
"The same, or a new visitor whose key is told in the answer's header."
