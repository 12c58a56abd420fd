"""The OpenAPI document: what it says of the whole, and how routes show examples."""

from http import HTTPStatus
from importlib.metadata import version
from typing import Any, cast

from fastapi import FastAPI

from graphql_api.rest.bodies import Problem
from graphql_api.rest.problems import MEDIA_TYPE

REQUEST_ID = "01994f6e-7c1a-7c3e-9d8e-3a1b2c4d5e6f"

DESCRIPTION = """\
REST for frontends that exist already, over the same resolvers as GraphQL, which has more \
(`/graphql`).

Say who you are by a bearer token, or by a random UUID (version 4) of your own in `X-Session-ID`. \
Failures are problems (RFC 9457) with a `code`. docs/rest.md says how it all hangs together."""

TAGS = [
    {"name": "chat", "description": "Asking the agent, and what was said before."},
    {"name": "sessions", "description": "Conversations."},
    {"name": "documents", "description": "What the agent can search."},
    {"name": "health", "description": "For whoever runs it."},
]

_PROBLEMS = {
    400: ("A value can't be taken.", "INVALID_INPUT", "It must not be empty."),
    401: ("Nobody says who asks, or not credibly.", "UNAUTHENTICATED", "Say who you are."),
    404: ("Not there, or not yours.", "NOT_FOUND", "There is nothing of yours by this id."),
    409: (
        "Another reply is being written there, or the id names something else already.",
        "REPLY_IN_PROGRESS",
        "Another reply is being written in this session.",
    ),
    413: ("It is too large.", "BAD_USER_INPUT", "A file is larger than 20,971,520 bytes."),
    429: ("More than is allowed, for now.", "QUOTA_EXCEEDED", "You have used up what you may."),
    502: (
        "The reply failed, and would fail again.",
        "MODEL_REFUSED",
        "The model declined to answer.",
    ),
    503: (
        "Not at the moment; `Retry-After` says when to try again.",
        "UNAVAILABLE",
        "The database can't be reached. Try again soon.",
    ),
    500: ("A fault of the server's.", "INTERNAL", "Something went wrong on our side."),
}
"What each status means here, and the code and detail of an example."

_NULL = "(null)"
"Stands for null in examples, from which FastAPI drops it."

Response = dict[str, Any]


def example(description: str, value: object) -> Response:
    """Describe an answer, and show one."""
    shown = _exchanged(value, None, _NULL)
    return {"description": description, "content": {"application/json": {"example": shown}}}


def examples(description: str, **values: tuple[str, object]) -> Response:
    """Describe an answer, and show some, each with a summary."""
    shown = {
        name: {"summary": summary, "value": _exchanged(value, None, _NULL)}
        for name, (summary, value) in values.items()
    }
    return {"description": description, "content": {"application/json": {"examples": shown}}}


def problems(*statuses: int) -> dict[int | str, Response]:
    """Describe the problems that a route answers with; there may always be a fault of ours."""
    return {**{each: _problem(each) for each in statuses}, "default": _problem(500)}


def describe(app: FastAPI) -> None:
    """Say in the application's OpenAPI document what it is, and what a problem is."""
    app.title, app.version, app.description = "Parley", version("parley"), DESCRIPTION
    app.openapi_tags = TAGS
    routes = app.openapi

    def openapi() -> dict[str, Any]:
        document = app.openapi_schema
        if document is None:
            document = routes()
            document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
            document = app.openapi_schema = _exchanged(document, _NULL, None)
        return document

    app.openapi = openapi


def _exchanged(value: Any, this: object, that: object) -> Any:
    """Put that for this, however deep it lies."""
    match value:
        case dict():
            items = cast("dict[str, Any]", value).items()
            return {name: _exchanged(each, this, that) for name, each in items}
        case list():
            return [_exchanged(each, this, that) for each in cast("list[Any]", value)]
        case _:
            return that if value == this else value


def _problem(status: int) -> Response:
    description, code, detail = _PROBLEMS[status]
    title = HTTPStatus(status).phrase
    shown = Problem(title=title, status=status, detail=detail, code=code, request_id=REQUEST_ID)
    content = {"schema": {"$ref": "#/components/schemas/Problem"}, "example": shown.shown()}
    return {"description": description, "content": {MEDIA_TYPE: content}}
