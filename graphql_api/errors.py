"""Failures as clients see them: members of result unions, or top-level errors with a code.

What a client can act on keeps its message. All else is logged under its request's id and
answered with that id alone.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import strawberry
import structlog
from graphql import GraphQLError, GraphQLSyntaxError
from starlette.responses import JSONResponse, Response
from strawberry.schema.exception_handlers import ExceptionHandler
from strawberry.types.execution import ExecutionContext

from db.errors import DatabaseUnavailable
from graphql_api.context import Context
from graphql_api.types.errors import IdConflict, InvalidInput, NotFound, ReplyInProgress
from resolvers import errors

RETRY_AFTER_SECONDS = 1

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
)


def show(failures: Sequence[GraphQLError], execution: ExecutionContext | None) -> None:
    """Give each error its code, and hide what is not the client's business. Works in place."""
    executed = execution is None or execution.result is not None
    for failure in failures:
        if failure.extensions and "code" in failure.extensions:
            continue
        code = _code(failure, executed=executed)
        failure.extensions = {"code": code.value}
        if code is ErrorCode.UNAVAILABLE:
            failure.message = "The server can't do this at the moment. Try again soon."
            _answer_unavailable(execution)
        if code is ErrorCode.INTERNAL:
            context = execution.context if execution else None
            request_id = context.request_id if isinstance(context, Context) else None
            log.error(
                "graphql.failed",
                request_id=request_id,
                path=failure.path,
                exc_info=failure.original_error or failure,
            )
            failure.message = "Something went wrong on our side."
            failure.extensions["requestId"] = request_id


def refusal(
    status: int, code: ErrorCode, message: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Answer a request that no operation of is executed."""
    error = {"message": message, "extensions": {"code": code.value}}
    return JSONResponse({"errors": [error]}, status, headers)


def _answer_unavailable(execution: ExecutionContext | None) -> None:
    """Let the HTTP response say 503 and when to try again; a socket or stream has no status."""
    response = execution.context.response if execution else None
    if isinstance(response, Response):
        response.status_code = 503
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)


def _code(failure: GraphQLError, *, executed: bool) -> ErrorCode:
    match failure.original_error:
        case errors.Unauthenticated():
            return ErrorCode.UNAUTHENTICATED
        case errors.NotFound():
            return ErrorCode.NOT_FOUND
        case errors.BadRequest() | errors.InvalidInput():
            return ErrorCode.BAD_USER_INPUT
        case errors.Unavailable() | DatabaseUnavailable():
            return ErrorCode.UNAVAILABLE
        case None if isinstance(failure, GraphQLSyntaxError):
            return ErrorCode.GRAPHQL_PARSE_FAILED
        case None if not executed:
            return ErrorCode.GRAPHQL_VALIDATION_FAILED
        case None if failure.path is None:  # a variable, or the operation's name
            return ErrorCode.BAD_USER_INPUT
        case GraphQLError():
            return ErrorCode.BAD_USER_INPUT
        case _:
            return ErrorCode.INTERNAL
