"""What goes wrong inside is said to nobody outside: not in any layer, nor on any transport.

Every fault happens to several viewers at once. Each hears of an id, under which the log has it.
"""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from graphql.validation import ScalarLeafsRule

from db.engine import Database
from db.urls import parse_url
from db.viewer import Viewer
from graphql_api import queries, subscriptions
from graphql_api.auth import Identities
from graphql_api.operations import PreparedExtension
from graphql_api.schema import schema
from resolvers.documents import Library
from resolvers.events import Delta
from tests.conftest import cloned
from tests.factories import make_document, make_session, make_turn
from tests.protocol.exchange import GRAPHQL, JSON, exchange
from tests.streaming.scripted import sql
from tests.streaming.wire import MULTIPART, Served, Socket, opened, served

pytestmark = pytest.mark.asyncio(loop_scope="package")

SECRET = "hunter2"
"What every fault says. The database's own says `documents`."
AT_ONCE = 4

Patch = pytest.MonkeyPatch


# --- faults ---------------------------------------------------------------------------


def _fail(*_: Any, **__: Any) -> Any:
    raise RuntimeError(f"password={SECRET}")


def _meeting() -> Callable[..., Any]:
    """Make a function that fails once all who call it have come. Then none has failed alone."""
    all_here = asyncio.Barrier(AT_ONCE)

    async def failing(*_: Any, **__: Any) -> Any:
        await all_here.wait()
        _fail()

    return failing


def in_a_resolver(patch: Patch) -> None:
    patch.setattr(queries, "viewer_profile", _meeting())


def in_a_loader(patch: Patch) -> None:
    patch.setattr("resolvers.loaders.Loaders._histories", _meeting())


def in_the_reading(patch: Patch) -> None:
    patch.setattr("db.messages.message", _meeting())


def in_the_parser(patch: Patch) -> None:
    patch.setattr("graphql_api.operations.parse", _fail)


def in_a_rule(patch: Patch) -> None:
    patch.setattr(ScalarLeafsRule, "enter_field", _fail)


def in_the_cost(patch: Patch) -> None:
    patch.setattr("graphql_api.operations.cost_of", _fail)


def in_an_extension(patch: Patch) -> None:
    def on_execute(_: Any) -> Any:
        _fail()
        yield

    patch.setattr(PreparedExtension, "on_execute", on_execute)


def in_an_extension_before(patch: Patch) -> None:
    def on_operation(_: Any) -> Any:
        _fail()
        yield

    patch.setattr(PreparedExtension, "on_operation", on_operation)


def in_a_variable(patch: Patch) -> None:
    _patch_scalar(patch, "ID", ("parse_value", "coerce_input_value"))


def in_a_literal(patch: Patch) -> None:
    _patch_scalar(patch, "ID", ("parse_literal", "coerce_input_literal"))


def in_a_result(patch: Patch) -> None:
    _patch_scalar(patch, "ID", ("serialize", "coerce_output_value"))


def _patch_scalar(patch: Patch, name: str, functions: tuple[str, ...]) -> None:
    scalar = schema._schema.type_map[name]
    for function in functions:
        patch.setattr(scalar, function, _fail, raising=False)


def in_a_generator(patch: Patch) -> None:
    patch.setattr(Library, "progress", _fail)


def midway(patch: Patch) -> None:
    """Fail with the second event, which a reply's first text is."""
    shown = subscriptions.shown_event

    def failing(event: Any) -> Any:
        return _fail() if isinstance(event, Delta) else shown(event)

    patch.setattr(subscriptions, "shown_event", failing)


@dataclass(frozen=True)
class Fault:
    """Where it goes wrong, and what has to be asked to get there."""

    cause: Callable[[Patch], None]
    query: str
    is_stream: bool = False


VIEWER = "query { viewer { id } }"
WORDS = "Document contains more than, but encountered error"
"Of graphql-core's own, in the mouth of a client."
HISTORY = "query { sessions { edges { node { messages { edges { cursor } } } } } }"
BY_VARIABLE = "query ($id: ID!) { session(id: $id) { title } }"
PROGRESS = "subscription ($id: ID!) { documentProgress(documentId: $id) { id status } }"
REPLY = """subscription ($id: ID!) { reply(messageId: $id) {
  __typename ... on ReplyStarted { reply { status } } } }"""
FAULTS = [
    Fault(in_a_resolver, VIEWER),
    Fault(in_a_loader, HISTORY),
    Fault(in_the_reading, "query ($id: ID!) { message(id: $id) { role } }"),
    Fault(in_the_parser, VIEWER),
    Fault(in_a_rule, VIEWER),
    Fault(in_the_cost, VIEWER),
    Fault(in_an_extension, VIEWER),
    Fault(in_an_extension_before, VIEWER),
    Fault(in_a_variable, BY_VARIABLE),
    Fault(in_a_literal, 'query { session(id: "x") { title } }'),
    Fault(in_a_result, VIEWER),
    Fault(in_a_generator, PROGRESS, is_stream=True),
    Fault(midway, REPLY, is_stream=True),
    Fault(in_a_rule, PROGRESS, is_stream=True),
    Fault(in_the_cost, PROGRESS, is_stream=True),
    Fault(in_an_extension_before, PROGRESS, is_stream=True),
    Fault(in_a_variable, PROGRESS, is_stream=True),
    Fault(in_a_result, PROGRESS, is_stream=True),
]


# --- ways of asking -------------------------------------------------------------------


async def by_http(accept: str, server: Served, key: str, query: str, id: str) -> str:
    body = json.dumps({"query": query, "variables": {"id": id}}).encode()
    headers = {"Accept": accept, "X-Session-ID": key}
    return (await exchange(server.port, headers=headers, body=body)).text


async def by_socket(server: Served, key: str, query: str, id: str) -> str:
    """Give all messages up to the operation's last."""
    async with opened(server.port) as socket:
        await socket.init(sessionId=key)
        await socket.subscribe("1", query, id=id)
        return await told(socket)


async def told(socket: Socket) -> str:
    texts: list[str] = []
    while True:
        said = await socket.receive()
        texts.append(json.dumps(said))
        if said["type"] in ("complete", "error"):
            return "".join(texts)


WAYS = {
    "json": partial(by_http, JSON),
    "graphql-response": partial(by_http, GRAPHQL),
    "event stream": partial(by_http, "text/event-stream"),
    "multipart": partial(by_http, MULTIPART),
    "socket": by_socket,
}
STREAMS = ["event stream", "multipart", "socket"]
CASES = [
    pytest.param(fault, way, id=f"{fault.cause.__name__}-{fault.query.split()[0]}-{way}")
    for fault in FAULTS
    for way in (STREAMS if fault.is_stream else WAYS)
]


@pytest.mark.parametrize(("fault", "way"), CASES)
async def test_a_fault_is_an_id_to_the_client_and_a_traceback_in_the_log(
    server: Served, logged: list[Any], monkeypatch: Patch, fault: Fault, way: str
):
    keys = [str(uuid4()) for _ in range(AT_ONCE)]
    viewers = [Identities(server.settings, None).anonymous(key) for key in keys]
    ids = [str(await make_named(server, viewer, fault.query)) for viewer in viewers]
    # A document that nobody has sent yet is parsed and validated.
    query = re.sub(r"^(\w+)", rf"\1 A_{uuid4().hex}", fault.query)
    fault.cause(monkeypatch)
    asked = (WAYS[way](server, key, query, id) for key, id in zip(keys, ids, strict=True))
    answers = await asyncio.gather(*asked)
    monkeypatch.undo()
    check_masked(answers, logged, SECRET)


async def make_named(server: Served, viewer: Viewer, query: str) -> UUID:
    """Make what the query's id names, and a session so that there is one to be read."""
    session = await make_session(server.database, owner=viewer)
    if query is REPLY:
        return (await make_turn(server.database, owner=viewer, session=session))[1]
    return await make_document(server.database, owner=viewer)


def check_masked(answers: list[str], logged: list[Any], secret: str) -> None:
    """See that each names an id of its own under which the log has what happened."""
    ids: set[str] = set()
    for answer in answers:
        assert secret not in answer
        assert "Error" not in answer.replace("ReplyError", "")
        assert set(re.findall(r'"code": ?"(\w+)"', answer)) == {"INTERNAL"}
        assert re.findall(r'"message": ?"([^"]+)"', answer)
        [id] = set(re.findall(r'"requestId": ?"([^"]+)"', answer))
        ids.add(id)
    assert len(ids) == len(answers)
    failed = [entry for entry in logged if entry["event"] == "graphql.failed"]
    for id in ids:
        [cause] = {entry["exc_info"] for entry in failed if entry["request_id"] == id}
        assert secret in str(cause)
        assert cause.__traceback__ is not None


# --- the database's own errors --------------------------------------------------------


@pytest_asyncio.fixture(loop_scope="package")
async def broken(server: Served, postgres_url: str) -> AsyncGenerator[Served]:
    """A server whose database has lost a table."""
    folder = server.settings.data_dir.parent / uuid4().hex
    settings = server.settings.model_copy(update={"data_dir": folder})
    async with cloned(postgres_url) as url:
        database = Database(parse_url(url))
        async with served(settings, database) as broken:
            await sql(database, "DROP TABLE documents CASCADE")
            yield broken
        await database.close()


@pytest.mark.parametrize("way", WAYS)
async def test_no_statement_is_shown(broken: Served, logged: list[Any], way: str):
    query = "query { documents { totalCount } }"
    asked = (WAYS[way](broken, str(uuid4()), query, "x") for _ in range(AT_ONCE))
    answers = await asyncio.gather(*asked)
    assert not any("SELECT" in answer or "relation" in answer for answer in answers)
    check_masked(answers, logged, 'relation "documents"')


@pytest.mark.parametrize("way", STREAMS)
async def test_no_statement_is_shown_in_a_stream(broken: Served, logged: list[Any], way: str):
    asked = (WAYS[way](broken, str(uuid4()), PROGRESS, str(uuid4())) for _ in range(AT_ONCE))
    check_masked(await asyncio.gather(*asked), logged, 'relation "documents"')


# --- who asks -------------------------------------------------------------------------


@pytest.mark.parametrize("way", [JSON, GRAPHQL, "text/event-stream", MULTIPART])
async def test_a_fault_in_finding_out_who_asks_is_masked(
    server: Served, logged: list[Any], monkeypatch: Patch, way: str
):
    monkeypatch.setattr(Identities, "viewer", _meeting())
    asked = (exchange(server.port, headers={"Accept": way}, body=b"{}") for _ in range(AT_ONCE))
    answers = await asyncio.gather(*asked)
    for answer in answers:
        assert answer.status == 500
        assert SECRET not in answer.text
        [error] = answer.json["errors"]
        id = answer.headers["x-request-id"]
        assert error["extensions"] == {"code": "INTERNAL", "requestId": id}
        failed = [entry for entry in logged if entry["event"] == "request.failed"]
        assert id in {entry["request_id"] for entry in failed}


async def test_a_fault_in_finding_out_who_opens_a_socket_is_masked(
    server: Served, logged: list[Any], monkeypatch: Patch, key: str
):
    monkeypatch.setattr(Identities, "anonymous", _fail)
    async with opened(server.port) as socket:
        await socket.send({"type": "connection_init", "payload": {"sessionId": key}})
        assert await socket.close_code() in (1011, 1013)
        closed = socket.connection.close_reason or ""
    assert SECRET not in closed
    assert any(entry["event"].endswith(".failed") for entry in logged)


# --- what is no fault -----------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    [
        {"query": f'{{ sessions(first: "{WORDS}") {{ totalCount }} }}'},
        {"query": f'{{ "{WORDS}" }}'},
        {
            "query": "query ($f: Int) { sessions(first: $f) { totalCount } }",
            "variables": {"f": WORDS},
        },
        {
            "query": "mutation ($t: String) { createSession(input: {title: $t}) { __typename } }",
            "variables": {"t": {"x": WORDS}},
        },
    ],
    ids=["literal", "syntax", "variable", "input"],
)
async def test_a_client_that_talks_like_a_fault_has_made_a_mistake(
    server: Served, logged: list[Any], key: str, asked: dict[str, Any]
):
    """What is logged as a fault would hold what they say."""
    headers = {"Accept": GRAPHQL, "X-Session-ID": key}
    answer = await exchange(server.port, headers=headers, body=json.dumps(asked).encode())
    mistakes = {"BAD_USER_INPUT", "GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED"}
    assert (answer.status, set(answer.codes) <= mistakes) == (400, True), answer
    assert not [entry for entry in logged if entry["event"].endswith(".failed")]
