"""What every request has: an id, a line in the log, and an answer even where we fail.

The log names routes and parameters, never their values: ids in paths and queries may be
secrets (an anonymous key that serves as the name of a conversation), and GraphQL by GET
carries what people say.
"""

import re
import time
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import parse_qsl

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from db.ids import new_id
from graphql_api.errors import ErrorCode, refusal

REQUEST_ID_HEADER = "X-Request-ID"
CLIENT_GONE = 499
"What nginx writes into its log; nobody is there to read it."
QUIET = ("/health", "/graphql/assets")
"Asked for all the time, and of no interest."

_GOOD_ID = re.compile(r"[A-Za-z0-9._:+/=-]{1,128}")
"What others' tracing puts there; anything else could forge lines of the log."
_NAME = re.compile(r"[A-Za-z_]\w{0,31}", re.ASCII)
"What parameters are called; anything else may be something that somebody said."
_SECRET = re.compile(r"[0-9a-fA-F-]{16,}|[^/]{40,}")

log = structlog.get_logger(__name__)


def request_id(scope: MutableMapping[str, Any]) -> str:
    """Give the id of the request that a scope belongs to."""
    return scope["parley.request_id"]


class Requests:
    """ASGI middleware, the outermost: ids in and out, one line each, and no bare failure."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        id = given if _GOOD_ID.fullmatch(given) else str(new_id())
        scope["parley.request_id"] = id
        status: int | None = None

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.accept"):
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = id
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "websocket.close":
                status = message.get("code", 1000)
            await send(message)

        began = time.monotonic()
        with structlog.contextvars.bound_contextvars(request_id=id):
            try:
                await self._app(scope, receive, send_with_id)
            except ClientDisconnect:
                status = CLIENT_GONE
            except Exception:
                log.exception("request.failed", **_described(scope))
                if scope["type"] == "http" and status is None:
                    await _failed(id)(scope, receive, send_with_id)
            finally:
                if not scope["path"].startswith(QUIET):
                    milliseconds = round((time.monotonic() - began) * 1000)
                    log.info(
                        "request", **_described(scope), status=status, milliseconds=milliseconds
                    )


def _failed(id: str) -> ASGIApp:
    extensions = {"requestId": id}
    return refusal(
        500, ErrorCode.INTERNAL, "Something went wrong on our side.", extensions=extensions
    )


def _described(scope: Scope) -> dict[str, Any]:
    """Say what was asked for, without anything that may be a secret or content."""
    route = scope.get("route")
    path = getattr(route, "path_format", None) or _without_secrets(scope["path"])
    query = parse_qsl(scope["query_string"].decode("latin-1"))
    names = [name if _NAME.fullmatch(name) else "…" for name, _ in query[:20]]
    described: dict[str, Any] = {"method": scope.get("method", "WEBSOCKET"), "path": path}
    return described | ({"parameters": names} if names else {})


def _without_secrets(text: str) -> str:
    return _SECRET.sub("…", text[:200])
