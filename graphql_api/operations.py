"""Operations, from what a client asks to what it is answered, over any transport.

    payload ─► rate ─► document ─► shape ─► validation ─► cost ─► execution ─► errors shown
               └───────────────── refused before any SQL ──────┘

Strawberry executes; what stands before it is ours, so that there is one way in.
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Collection, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import structlog
from graphql import (
    DocumentNode,
    GraphQLError,
    IntValueNode,
    NoSchemaIntrospectionCustomRule,
    OperationDefinitionNode,
    Visitor,
    parse,
    specified_rules,
    validate,
    visit,
)
from strawberry.extensions import SchemaExtension
from strawberry.schema import Schema
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule
from strawberry.types.execution import ExecutionResult
from strawberry.types.graphql import OperationType

from graphql_api.context import Context
from graphql_api.errors import ErrorCode, is_fault, show
from graphql_api.limits import Limits, PageTooLong, TooComplex, check_shape, cost_of
from graphql_api.payloads import Payload
from graphql_api.persisted import MAX_REMEMBERED_LENGTH, PersistedDocuments
from graphql_api.prepared import Prepared
from graphql_api.rates import Meter
from graphql_api.refusals import Refused
from resolvers.errors import RateLimited

MAX_DOCUMENT_LENGTH = 250_000
"Characters. A long message may stand in a document, though it should be a variable."
MAX_DIGITS = 400
"Of a number: a Float has at most 309 before its point."
CHECKED = 512
"Documents whose check is remembered: a frontend has some hundred."

_TOO_MANY_TOKENS = "Syntax Error: Document contains more than"
"How graphql-core says so; elsewhere in a message it may be the client's own words."
_LONG_NUMBER = re.compile(rf"\d{{{MAX_DIGITS}}}")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Policy:
    """What operations may do here. Seconds are of queries alone."""

    limits: Limits
    timeout_seconds: float
    slow_seconds: float
    introspection: bool


class PreparedExtension(SchemaExtension):
    """Hands Strawberry what was parsed and validated already."""

    def on_parse(self) -> Iterator[None]:
        prepared = _prepared(self.execution_context.context)
        if prepared is not None:
            self.execution_context.graphql_document = prepared.document
        yield

    def on_validate(self) -> Iterator[None]:
        if _prepared(self.execution_context.context) is not None:
            self.execution_context.pre_execution_errors = []
        yield


def _prepared(context: object) -> Prepared | None:
    return context.operation if isinstance(context, Context) else None


class Operations:
    """Runs operations on one schema, under one policy."""

    def __init__(
        self, schema: Schema, policy: Policy, persisted: PersistedDocuments, meter: Meter
    ) -> None:
        self._schema = schema
        self._policy = policy
        self._persisted = persisted
        self._meter = meter
        self._writing: set[asyncio.Task[ExecutionResult]] = set()
        self._checked = lru_cache(CHECKED)(self._check)

    async def prepare(
        self, context: Context, payload: Payload, allowed: Collection[OperationType]
    ) -> Prepared:
        """Find out what is asked, and whether it may be. Raises `Refused`."""
        try:
            await self._count(context)
            text = self._persisted.text_of(payload)
            is_short = len(text) <= MAX_REMEMBERED_LENGTH
            document = self._checked(text) if is_short else self._check(text)
            operation = _chosen(document, payload.operation_name)
            kind = OperationType(operation.operation.value)
            if kind not in allowed:
                raise _not_allowed(kind)
            cost = cost_of(self._schema._schema, document, operation, payload.variables)
            self._refuse_too_dear(cost, context)
        except TooComplex as error:
            raise Refused(ErrorCode.QUERY_TOO_COMPLEX, str(error)) from None
        except PageTooLong as error:
            raise Refused(ErrorCode.BAD_USER_INPUT, str(error)) from None
        except RecursionError:
            raise Refused(
                ErrorCode.QUERY_TOO_COMPLEX, "The operation nests too deeply to be read."
            ) from None
        except Refused as refused:
            show(refused.errors, context)
            raise
        except Exception as failure:
            errors = [GraphQLError("", original_error=failure)]
            show(errors, context)
            raise Refused.because_of(errors, 500) from failure
        self._persisted.remember(payload)
        name = payload.operation_name or (operation.name.value if operation.name else None)
        return Prepared(document, text, kind, name, payload.variables, cost)

    async def execute(self, context: Context, operation: Prepared) -> ExecutionResult:
        """Run a query or a mutation. A query has so much time and no more.

        A mutation goes on when whoever waits for it is cancelled.
        """
        if operation.kind is not OperationType.MUTATION:
            return await self._execute(context, operation)
        writing = asyncio.create_task(self._execute(context, operation))
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)
        return await asyncio.shield(writing)

    async def _execute(self, context: Context, operation: Prepared) -> ExecutionResult:
        context.operation = operation
        is_query = operation.kind is OperationType.QUERY
        began = time.monotonic()
        limit = asyncio.timeout(self._policy.timeout_seconds if is_query else None)
        try:
            async with limit:
                result = await self._schema.execute(
                    operation.text,
                    variable_values=operation.variables,
                    context_value=context,
                    operation_name=operation.name,
                )
        except TimeoutError:
            if not limit.expired():
                raise
            result = self._timed_out()
        seconds = time.monotonic() - began
        if is_query and seconds > self._policy.slow_seconds:
            milliseconds = round(seconds * 1000)
            log.warning("graphql.slow", operation=operation.name, milliseconds=milliseconds)
        self._tell_cost(result, context, operation.cost)
        return result

    async def stream(
        self, context: Context, operation: Prepared
    ) -> AsyncGenerator[ExecutionResult]:
        """Run any operation, and give its results as they come."""
        if operation.kind is not OperationType.SUBSCRIPTION:
            yield await self.execute(context, operation)
            return
        context.operation = operation
        try:
            results = await self._schema.stream(
                operation.text,
                variable_values=operation.variables,
                context_value=context,
                operation_name=operation.name,
            )
            # What Strawberry gives is a generator, whatever it promises.
            async with aclosing(cast("AsyncGenerator[ExecutionResult]", results)) as source:
                is_told = False
                async for result in source:
                    if not is_told:
                        self._tell_cost(result, context, operation.cost)
                    is_told = True
                    yield result
        except Exception as failure:  # of an extension, which Strawberry lets through
            errors = [GraphQLError("", original_error=failure)]
            show(errors, context)
            yield ExecutionResult(data=None, errors=errors)

    def _cost_told(self, cost: int) -> dict[str, Any]:
        return {"cost": {"requested": cost, "maximum": self._policy.limits.cost}}

    def _tell_cost(self, result: ExecutionResult, context: Context, cost: int) -> None:
        """Say in an answer what it cost, where that is asked for."""
        if context.tells_cost:
            result.extensions = {**(result.extensions or {}), **self._cost_told(cost)}

    def _refuse_too_dear(self, cost: int, context: Context) -> None:
        """Raise `Refused` where an operation costs more than it may."""
        most = self._policy.limits.cost
        if cost > most:
            message = f"The operation's cost is {cost:,}; at most {most:,} is allowed."
            refused = Refused(ErrorCode.QUERY_TOO_COMPLEX, message)
            refused.extensions = self._cost_told(cost) if context.tells_cost else {}
            raise refused

    async def _count(self, context: Context) -> None:
        """Count the request, if anybody is known to ask: who is nobody gets nothing anyway."""
        if context.known_viewer is None:
            return
        try:
            await self._meter.count_request(context.known_viewer)
        except RateLimited as error:
            seconds = error.retry_after_seconds
            headers = {"Retry-After": str(seconds)}
            refused = Refused(ErrorCode.RATE_LIMITED, error.message, 429, headers)
            # A socket has no headers.
            told = {"code": ErrorCode.RATE_LIMITED.value, "retryAfterSeconds": seconds}
            refused.errors[0].extensions = told
            raise refused from None

    def _check(self, text: str) -> DocumentNode:
        """Parse and validate. What is refused is not remembered."""
        limits = self._policy.limits
        if len(text) > MAX_DOCUMENT_LENGTH:
            raise TooComplex(f"The document has more than {MAX_DOCUMENT_LENGTH:,} characters.")
        try:
            document = parse(text, max_tokens=limits.tokens)
        except GraphQLError as error:
            if error.message.startswith(_TOO_MANY_TOKENS):
                raise TooComplex(f"The document has more than {limits.tokens:,} tokens.") from None
            raise _refused([error], ErrorCode.GRAPHQL_PARSE_FAILED) from None
        if _LONG_NUMBER.search(text):
            visit(document, _Numbers())
        check_shape(document, limits)
        errors = validate(self._schema._schema, document, self._rules())
        if errors:
            raise _refused(errors, ErrorCode.GRAPHQL_VALIDATION_FAILED)
        return document

    def _rules(self) -> list[Any]:
        rules = [*specified_rules, MaybeNullValidationRule, OneOfInputValidationRule]
        return rules if self._policy.introspection else [*rules, NoSchemaIntrospectionCustomRule]

    def _timed_out(self) -> ExecutionResult:
        message = f"The query took longer than {self._policy.timeout_seconds:g} seconds."
        error = GraphQLError(message, extensions={"code": ErrorCode.TIMEOUT.value})
        return ExecutionResult(data=None, errors=[error])


def ran_nothing(result: ExecutionResult) -> bool:
    """Tell whether a result is that of an operation that was refused: no field was asked."""
    errors = result.errors or ()
    return result.data is None and bool(errors) and all(each.path is None for each in errors)


class _Numbers(Visitor):
    """Refuses numbers that Python would not read: they fit no type of GraphQL's."""

    def enter_int_value(self, node: IntValueNode, *_: object) -> None:
        if len(node.value) > MAX_DIGITS:
            message = f"A number has more than {MAX_DIGITS} digits."
            raise Refused(ErrorCode.GRAPHQL_VALIDATION_FAILED, message)


def _chosen(document: DocumentNode, name: str | None) -> OperationDefinitionNode:
    """Give the operation that is meant. Raises `Refused`."""
    found = [each for each in document.definitions if isinstance(each, OperationDefinitionNode)]
    if name is not None:
        found = [each for each in found if each.name is not None and each.name.value == name]
        if not found:
            raise Refused(ErrorCode.BAD_USER_INPUT, "There is no operation of that name.")
    if len(found) > 1:
        raise Refused(ErrorCode.BAD_USER_INPUT, "Say which of the operations: operationName.")
    if not found:
        raise Refused(ErrorCode.BAD_USER_INPUT, "The document has no operation.")
    return found[0]


def _refused(errors: list[GraphQLError], code: ErrorCode) -> Refused:
    for error in errors:
        if not is_fault(error):
            error.extensions = {"code": code.value}
    return Refused.because_of(errors)


def _not_allowed(kind: OperationType) -> Refused:
    if kind is OperationType.SUBSCRIPTION:
        return Refused(
            ErrorCode.BAD_USER_INPUT,
            "A subscription comes as text/event-stream, as multipart/mixed with a"
            " subscriptionSpec, or over a WebSocket.",
            406,
        )
    return Refused(
        ErrorCode.BAD_USER_INPUT, f"A {kind.value} is sent by POST.", 405, {"Allow": "POST"}
    )
