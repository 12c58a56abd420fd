"""Failures as REST clients see them: RFC 9457 problems, each with a code.

What a client can act on keeps its message. All else is logged under its request's id and
answered with that id alone.
"""

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from http import HTTPStatus
from math import ceil
from typing import Any

import structlog
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from db.errors import DatabaseUnavailable
from graphql_api.auth import SESSION_HEADER
from graphql_api.errors import RETRY_AFTER_SECONDS
from graphql_api.refusals import Refused
from graphql_api.request_bodies import BodyLimits
from graphql_api.requests import request_id
from graphql_api.rest.bodies import ChatAnswer, Problem
from resolvers import errors

MEDIA_TYPE = "application/problem+json"

FIELDS = {
    "content": "message",
    "selectedText": "selected_text",
    "sessionId": "session_id",
    "messageId": "Idempotency-Key",
    "source.url": "url",
    "source.text": "text",
    "source.file": "file",
}
"What the resolvers call a field, and what REST does; the others have one name."

_CODES = {
    400: "BAD_USER_INPUT",
    404: "NOT_FOUND",
    405: "BAD_USER_INPUT",
    413: "BAD_USER_INPUT",
    503: "UNAVAILABLE",
}
"Of failures that the framework raises by their status."

log = structlog.get_logger(__name__)


class ReplyFailed(Exception):
    """The reply has failed: `error` is what its row says, `answer` what there is of it."""

    def __init__(self, error: dict[str, Any], answer: ChatAnswer) -> None:
        super().__init__(error["code"])
        self.error = error
        self.answer = answer


def problem_of(failure: Exception, request_id: str) -> Problem:
    """Say what went wrong. What is our fault is logged, and only the request's id is told."""

    def problem(status: int, code: str, detail: str, **more: Any) -> Problem:
        title = HTTPStatus(status).phrase
        return Problem(
            title=title, status=status, detail=detail, code=code, request_id=request_id, **more
        )

    match failure:
        case errors.Unauthenticated():
            return problem(401, "UNAUTHENTICATED", failure.message)
        case errors.NotFound():
            return problem(404, "NOT_FOUND", failure.message)
        case errors.InvalidInput(field=field):
            named = None if field is None else FIELDS.get(field, field)
            return problem(400, "INVALID_INPUT", failure.message, field=named)
        case errors.BadRequest():
            return problem(400, "BAD_USER_INPUT", failure.message)
        case errors.IdConflict():
            return problem(409, "ID_CONFLICT", failure.message)
        case errors.ReplyInProgress(reply=reply):
            return problem(409, "REPLY_IN_PROGRESS", failure.message, message_id=str(reply.id))
        case errors.QuotaExceeded(resets_at=resets_at):
            shown = resets_at.isoformat()
            return problem(429, "QUOTA_EXCEEDED", failure.message, resets_at=shown)
        case errors.RateLimited():
            return problem(429, "RATE_LIMITED", failure.message)
        case errors.Unavailable():
            return problem(503, "UNAVAILABLE", failure.message)
        case DatabaseUnavailable():
            return problem(503, "UNAVAILABLE", "The database can't be reached. Try again soon.")
        case ReplyFailed(error=error):
            there_is = failure.answer.model_dump(mode="json", exclude={"status"})
            status = 503 if error["retryable"] else 502
            return problem(status, error["code"], error["message"], **there_is)
        case Refused(status=status, errors=[refused, *_]):
            return problem(status or 400, _CODES[400], refused.message)
        case RequestValidationError():
            field, detail = _first_fault(failure)
            return problem(400, "INVALID_INPUT", detail, field=field)
        case HTTPException():
            code = _CODES.get(failure.status_code, "BAD_USER_INPUT")
            return problem(failure.status_code, code, failure.detail)
        case _:
            log.error("rest.failed", request_id=request_id, exc_info=failure)
            return problem(500, "INTERNAL", "Something went wrong on our side.")


def refusal(failure: Exception, id: str) -> Response:
    """Answer with what went wrong."""
    problem = problem_of(failure, id)
    headers = dict(failure.headers or {}) if isinstance(failure, HTTPException) else {}
    if problem.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if problem.status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        headers["Retry-After"] = str(_retry_after_seconds(failure))
    return JSONResponse(problem.shown(), problem.status, headers, media_type=MEDIA_TYPE)


class ProblemRoute(APIRoute):
    """A route whose failures are problems, those of its dependencies and of its input too.

    `methods_of_path` is what all routes of its path know together; each has its own.
    """

    methods_of_path: set[str]

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                response = await handle(_bounded(request))
            except RequestValidationError as failure:
                graver = await _not_believed(request)
                response = refusal(graver or failure, request_id(request.scope))
            except Exception as failure:
                response = refusal(failure, request_id(request.scope))
            # Who asks is said by a header, which caches don't look at.
            response.headers.setdefault("Cache-Control", "no-store")
            if key := getattr(request.state, "made_key", None):
                response.headers[SESSION_HEADER] = key
            return response

        return answered

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, with a problem too where no route of this path knows the method."""
        try:
            await super().handle(scope, receive, send)
        except HTTPException as failure:
            if failure.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
                failure.headers = {"Allow": ", ".join(sorted(self.methods_of_path))}
            await refusal(failure, request_id(scope))(scope, receive, send)


async def _not_believed(request: Request) -> Exception | None:
    """Find out whether who asks is not to be believed, which comes before all else that is wrong.

    FastAPI reads a body before it asks who sent it.
    """
    try:
        await request.app.state.identities.viewer(request.headers)
    except (errors.Unauthenticated, errors.Unavailable) as failure:
        return failure
    return None


def _bounded(request: Request) -> Request:
    """Give the same request, whose body is refused as soon as it is too large to be taken."""
    limits: BodyLimits = request.app.state.body_limits
    is_form = "multipart/form-data" in request.headers.get("content-type", "")
    most = limits.body_bytes + (limits.upload_bytes if is_form else 0)
    size = 0

    async def receive() -> Message:
        nonlocal size
        message = await request.receive()
        size += len(message.get("body", b""))
        if size > most:
            raise HTTPException(413, f"The body is larger than {most:,} bytes.")
        return message

    return Request(request.scope, receive)


def _retry_after_seconds(failure: Exception) -> int:
    match failure:
        case errors.Unavailable(retry_after_seconds=seconds):
            return seconds
        case errors.RateLimited(retry_after_seconds=seconds):
            return seconds
        case errors.QuotaExceeded(resets_at=resets_at):
            return max(1, ceil((resets_at - datetime.now(UTC)).total_seconds()))
        case _:
            return RETRY_AFTER_SECONDS


def _first_fault(failure: RequestValidationError) -> tuple[str | None, str]:
    """Name the first field that can't be taken, and say why."""
    fault = failure.errors()[0]
    place, *path = fault["loc"]
    if fault["type"] == "json_invalid":
        return None, "The body is no JSON."
    if not path:
        if place != "body":
            return None, fault["msg"]
        return None, "The body is a JSON object, sent as application/json."
    return ".".join(str(each) for each in path), f"{fault['msg']}."
