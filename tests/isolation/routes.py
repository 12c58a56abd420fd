"""By each parameter and body field of REST that names something, requests that try a name there.

The table is held against `/openapi.json`, like `operations` against the schema.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from tests.isolation.answers import Answer, sent
from tests.isolation.scenes import CLIENT_KEY
from tests.people import Person
from tests.streaming.wire import EVENT_STREAM

NAMELESS = {
    *("limit", "status", "visibility", "if_busy"),
    *("message", "title", "chapter", "selected_text", "url", "text", "file"),
}
"Numbers, choices, and what people say. Who adds one here says: it leads to nobody's things."


class Request(NamedTuple):
    """A request to a route, with the name that is tried in it."""

    method: str
    url: str
    more: dict[str, Any]


Try = Callable[[str], Request]


class Route(NamedTuple):
    """Requests that take a name; `opens` is what of Alice's they tell her about, or change."""

    opens: str
    tries: Sequence[Try]


def _get(url: str, name: str, **params: Any) -> Try:
    return lambda value: Request("GET", url, {"params": {**params, name: value}})


def _delete(url: str, name: str) -> Try:
    return lambda value: Request("DELETE", url, {"params": {name: value}})


def _post(url: str, name: str, accept: str = "application/json", **body: Any) -> Try:
    # A list takes a name among others.
    return lambda value: Request(
        "POST",
        url,
        {
            "json": {**body, name: [value] if name.endswith("s") else value},
            "headers": {"Accept": accept},
        },
    )


def _key(url: str, accept: str = "application/json") -> Try:
    return lambda value: Request(
        "POST",
        url,
        {"json": {"message": "Hello"}, "headers": {"Accept": accept, "Idempotency-Key": value}},
    )


def _path(method: str, **more: Any) -> Try:
    return lambda value: Request(method, f"/sessions/{quote(value)}", more)


def _asking(name: str) -> list[Try]:
    """Name something in a question to the agent, whose answer comes whole or as events."""
    ways = (("/chat/agent", "application/json"), ("/chat/agent", EVENT_STREAM))
    return [_post(url, name, accept, message="Hello") for url, accept in ways]


ROUTES = {
    "POST /chat session_id": Route("client key", [_post("/chat", "session_id", message="Hello")]),
    "POST /chat document_ids": Route("document", [_post("/chat", "document_ids", message="Hello")]),
    "POST /chat Idempotency-Key": Route("idempotency key", [_key("/chat")]),
    "POST /chat/agent session_id": Route("client key", _asking("session_id")),
    "POST /chat/agent document_ids": Route("document", _asking("document_ids")),
    "POST /chat/agent Idempotency-Key": Route(
        "idempotency key", [_key("/chat/agent"), _key("/chat/agent", EVENT_STREAM)]
    ),
    "GET /chat/history session_id": Route("client key", [_get("/chat/history", "session_id")]),
    "GET /chat/history before": Route(
        "cursor of messages",
        [
            _get("/chat/history", "before"),
            _get("/chat/history", "before", session_id=CLIENT_KEY),
        ],
    ),
    "GET /sessions cursor": Route("cursor of sessions", [_get("/sessions", "cursor")]),
    "POST /sessions session_id": Route(
        "client key", [_post("/sessions", "session_id", title="Mine")]
    ),
    "GET /sessions/{session_id} session_id": Route("client key", [_path("GET")]),
    "PATCH /sessions/{session_id} session_id": Route(
        "client key", [_path("PATCH", json={"title": "Mine"})]
    ),
    "GET /documents cursor": Route("cursor of documents", [_get("/documents", "cursor")]),
    # Last, so that all of these can be tried one after another.
    "DELETE /chat/history session_id": Route(
        "client key", [_delete("/chat/history", "session_id")]
    ),
    "DELETE /sessions/{session_id} session_id": Route("client key", [_path("DELETE")]),
}


def taken(document: Any) -> Generator[str]:
    """Walk the OpenAPI document for all that a client may give."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            names = {each["name"] for each in operation.get("parameters", ())}
            for content in operation.get("requestBody", {}).get("content", {}).values():
                names |= set(_properties(document, content["schema"]))
            # The name of a header is the same in all letters.
            shown = ("Idempotency-Key" if name == "idempotency-key" else name for name in names)
            yield from (f"{method.upper()} {path} {name}" for name in shown)


def _properties(document: Any, schema: Any) -> Generator[str]:
    """Give the names inside of a schema, however deep they lie."""
    if reference := schema.get("$ref"):
        schema = document["components"]["schemas"][reference.rpartition("/")[2]]
    for name, inner in schema.get("properties", {}).items():
        yield name
        yield from _properties(document, inner)
    inside = [*schema.get("anyOf", ()), *schema.get("allOf", ())]
    for inner in inside + ([schema["items"]] if "items" in schema else []):
        yield from _properties(document, inner)


def is_nameless(path: str) -> bool:
    return path.rpartition(" ")[2] in NAMELESS


async def tried(person: Person, request: Request) -> Answer:
    return await sent(person, request.method, request.url, **request.more)
