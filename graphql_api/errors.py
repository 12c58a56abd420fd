"""Failures as clients see them: members of result unions, or top-level errors with a code.

What a client can act on keeps its message. All else is logged under its request's id and
answered with that id alone.
"""

import re
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import strawberry
import structlog
from graphql import GraphQLError
from starlette.responses import JSONResponse, Response
from strawberry.schema.exception_handlers import ExceptionHandler

from db.errors import DatabaseUnavailable
from graphql_api.context import Context
from graphql_api.types.errors import (
    IdConflict,
    InvalidInput,
    NotFound,
    QuotaExceeded,
    ReplyInProgress,
)
from resolvers import errors

RETRY_AFTER_SECONDS = 1

_SUGGESTION = re.compile(r" Did you mean [^?]*\?")
"How graphql-core names what the client did not know."

log = structlog.get_logger(__name__)


@strawberry.enum(
    description="The codes of top-level errors (`extensions.code`). UNAVAILABLE can be retried."
)
class ErrorCode(Enum):
    UNAUTHENTICATED = strawberry.enum_value(
        "UNAUTHENTICATED", description="The request does not say who asks, or not credibly."
    )
    BAD_USER_INPUT = strawberry.enum_value(
        "BAD_USER_INPUT", description="An argument, a variable or a cursor can't be taken."
    )
    NOT_FOUND = strawberry.enum_value("NOT_FOUND", description="There is nothing of yours there.")
    QUERY_TOO_COMPLEX = strawberry.enum_value(
        "QUERY_TOO_COMPLEX", description="The operation asks for more than the server allows."
    )
    RATE_LIMITED = strawberry.enum_value(
        "RATE_LIMITED", description="Too many requests; Retry-After says when to go on."
    )
    TIMEOUT = strawberry.enum_value("TIMEOUT", description="The operation took too long.")
    UNAVAILABLE = strawberry.enum_value(
        "UNAVAILABLE", description="The server can't at the moment; trying again may help."
    )
    PERSISTED_QUERY_NOT_FOUND = strawberry.enum_value(
        "PERSISTED_QUERY_NOT_FOUND", description="Send the operation's text along once."
    )
    GRAPHQL_PARSE_FAILED = strawberry.enum_value(
        "GRAPHQL_PARSE_FAILED", description="The document is no GraphQL."
    )
    GRAPHQL_VALIDATION_FAILED = strawberry.enum_value(
        "GRAPHQL_VALIDATION_FAILED", description="The document does not fit the schema."
    )
    INTERNAL = strawberry.enum_value(
        "INTERNAL", description="A fault of the server; `requestId` names it in the log."
    )


class QuotaExceededHandler(ExceptionHandler[errors.QuotaExceeded, QuotaExceeded]):
    def handle(self, exception: errors.QuotaExceeded, **_: Any) -> QuotaExceeded:
        return QuotaExceeded.of(exception)


class NotFoundHandler(ExceptionHandler[errors.NotFound, NotFound]):
    def handle(self, exception: errors.NotFound, **_: Any) -> NotFound:
        return NotFound.of(exception)


class InvalidInputHandler(ExceptionHandler[errors.InvalidInput, InvalidInput]):
    def handle(self, exception: errors.InvalidInput, **_: Any) -> InvalidInput:
        return InvalidInput.of(exception)


class IdConflictHandler(ExceptionHandler[errors.IdConflict, IdConflict]):
    def handle(self, exception: errors.IdConflict, **_: Any) -> IdConflict:
        return IdConflict.of(exception)


class ReplyInProgressHandler(ExceptionHandler[errors.ReplyInProgress, ReplyInProgress]):
    def handle(self, exception: errors.ReplyInProgress, **_: Any) -> ReplyInProgress:
        return ReplyInProgress.of(exception)


UNION_MEMBERS = (
    NotFoundHandler(),
    InvalidInputHandler(),
    IdConflictHandler(),
    ReplyInProgressHandler(),
    QuotaExceededHandler(),
)


def show(failures: Sequence[GraphQLError], context: Context | None) -> None:
    """Give each error its code, and hide what is not the client's business. Works in place."""
    for failure in failures:
        if context is not None and context.hides_suggestions:
            failure.message = _SUGGESTION.sub("", failure.message)
        if failure.extensions and "code" in failure.extensions:
            continue
        code = _code(failure)
        failure.extensions = {"code": code.value}
        if code is ErrorCode.UNAVAILABLE:
            failure.message = "The server can't do this at the moment. Try again soon."
            _answer_unavailable(context)
        if code is ErrorCode.INTERNAL:
            request_id = context.request_id if context else None
            log.error(
                "graphql.failed",
                request_id=request_id,
                path=failure.path,
                exc_info=failure.original_error or failure,
            )
            failure.message = "Something went wrong on our side."
            failure.extensions["requestId"] = request_id


def refusal(
    status: int,
    code: ErrorCode,
    message: str,
    headers: Mapping[str, str] | None = None,
    extensions: Mapping[str, object] | None = None,
) -> JSONResponse:
    """Answer a request that no operation of is executed."""
    error = {"message": message, "extensions": {"code": code.value, **(extensions or {})}}
    return JSONResponse({"errors": [error]}, status, headers)


def _answer_unavailable(context: Context | None) -> None:
    """Let the HTTP response say 503 and when to try again; a socket or stream has no status."""
    response = context.response if context else None
    if isinstance(response, Response):
        response.status_code = 503
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)


def is_fault(failure: GraphQLError) -> bool:
    """Tell whether a value could not be read because something of ours broke.

    What was wrong with the value itself has no cause but errors of GraphQL's own.
    """
    cause = failure.original_error
    while isinstance(cause, GraphQLError):
        cause = cause.original_error
    return cause is not None


def _code(failure: GraphQLError) -> ErrorCode:
    match failure.original_error:
        case errors.Unauthenticated():
            return ErrorCode.UNAUTHENTICATED
        case errors.NotFound():
            return ErrorCode.NOT_FOUND
        case errors.BadRequest() | errors.InvalidInput():
            return ErrorCode.BAD_USER_INPUT
        case errors.Unavailable() | DatabaseUnavailable():
            return ErrorCode.UNAVAILABLE
        case _ if is_fault(failure):
            return ErrorCode.INTERNAL
        case None if failure.path is None:  # a variable
            return ErrorCode.BAD_USER_INPUT
        case GraphQLError():
            return ErrorCode.BAD_USER_INPUT
        case _:
            return ErrorCode.INTERNAL
