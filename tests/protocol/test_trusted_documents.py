"""A manifest of documents: no others are run, however they are asked for."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from graphql_api.settings import SettingsInvalid
from tests.protocol.excesses import asking_nothing
from tests.protocol.exchange import GRAPHQL, check_refused, exchange, post
from tests.protocol.persisted import FOLLOW, REJECTED, VIEWER, ask, get_named, hash_of, named
from tests.streaming.wire import Http, Served, another, opened

pytestmark = [
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.usefixtures("unharmed"),
]

INPUT = "BAD_USER_INPUT"
UNKNOWN = "PERSISTED_QUERY_NOT_FOUND"
QUERY = "query Viewer { viewer { isAnonymous } }"
COUNT = "query Count { sessions { totalCount } }"
CREATE = "mutation Create { createSession(input: {}) { __typename } }"
TEXTS = (QUERY, COUNT, CREATE, FOLLOW)
STRANGE = "{ viewer { id } }"


def relay() -> Any:
    return {f"relay-{number}": text for number, text in enumerate(TEXTS)}


def codegen() -> Any:
    return {hash_of(text): text for text in TEXTS}


def apollo() -> Any:
    operations = [
        {"id": hash_of(text), "body": text, "name": text.split()[1], "type": text.split()[0]}
        for text in TEXTS
    ]
    return {"format": "apollo-persisted-query-manifest", "version": 1, "operations": operations}


@asynccontextmanager
async def trusting(server: Served, folder: Path, manifest: Any) -> AsyncGenerator[Served]:
    path = folder / "manifest.json"
    path.write_text(json.dumps(manifest))
    async with another(server, trusted_documents=path) as trusting:
        yield trusting


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def closed(
    server: Served, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Served]:
    """A server that runs the documents of a manifest, and none else."""
    async with trusting(server, tmp_path_factory.mktemp("trusted"), codegen()) as closed:
        yield closed


@pytest.mark.parametrize(
    ("write", "id"),
    [(relay, "relay-0"), (apollo, hash_of(QUERY)), (codegen, hash_of(QUERY))],
    ids=["Relay", "Apollo", "codegen"],
)
async def test_a_manifest_is_read_as_its_maker_writes_it(
    server: Served, tmp_path: Path, write: Callable[[], Any], id: str
):
    async with trusting(server, tmp_path, write()) as closed:
        assert (await ask(closed, documentId=id)).json == VIEWER
        assert (await ask(closed, query=QUERY)).json == VIEWER
        check_refused(await ask(closed, query=STRANGE), 400, INPUT)


@pytest.mark.parametrize(
    "members",
    [
        {"documentId": hash_of(QUERY)},
        {"id": hash_of(QUERY)},
        {"extensions": named(QUERY)},
        {"query": QUERY},
        {"query": QUERY, "extensions": named(QUERY)},
        {"query": None, "documentId": hash_of(QUERY), "operationName": "Viewer"},
    ],
    ids=["documentId", "id", "extensions", "text", "text and hash", "null text"],
)
async def test_a_trusted_document_is_run_however_it_is_named(
    closed: Served, members: dict[str, Any]
):
    assert (await ask(closed, **members)).json == VIEWER


async def test_a_trusted_document_is_run_by_get(closed: Served):
    for name in ("documentId", "id"):
        target = f"/graphql?{name}={hash_of(QUERY)}"
        assert (await exchange(closed.port, method="GET", target=target)).json == VIEWER
    assert (await get_named(closed, QUERY)).json == VIEWER


async def test_a_trusted_document_is_run_in_an_event_stream(closed: Served, key: str):
    stream = await Http.ask(closed.port, key, FOLLOW, id="none")
    assert await stream.rest() == [REJECTED]


@pytest.mark.parametrize(
    "names",
    [{"documentId": hash_of(FOLLOW)}, {"extensions": named(FOLLOW)}, {"query": FOLLOW}],
    ids=["documentId", "extensions", "text"],
)
async def test_a_trusted_document_is_run_on_a_socket(
    closed: Served, key: str, names: dict[str, Any]
):
    async with opened(closed.port) as socket:
        await socket.init(sessionId=key)
        payload = {"variables": {"id": "none"}, **names}
        await socket.send({"type": "subscribe", "id": "1", "payload": payload})
        assert await socket.rest() == [REJECTED]


@pytest.mark.parametrize(
    "members",
    [
        {"query": STRANGE},
        {"query": QUERY + " "},
        {"query": "{ __typename }"},
        {"query": STRANGE, "extensions": named(STRANGE)},
        {"documentId": hash_of(STRANGE)},
        {"documentId": QUERY},
        {"id": ""},
    ],
    ids=str,
)
async def test_no_other_document_is_run(closed: Served, members: dict[str, Any]):
    async with asking_nothing(closed):
        check_refused(await ask(closed, **members), 400, INPUT)


async def test_of_an_unknown_hash_the_text_is_asked_for(closed: Served):
    """It may be that of a document of the manifest, which names it in another way."""
    async with asking_nothing(closed):
        check_refused(await ask(closed, extensions=named(STRANGE)), 200, UNKNOWN)


async def test_a_hash_is_known_whatever_the_manifest_calls_its_document(
    server: Served, tmp_path: Path
):
    """Relay's names are MD5 sums."""
    manifest = {"0cc175b9c0f1b6a831c399e269772661": QUERY}
    async with trusting(server, tmp_path, manifest) as closed:
        for name in (hash_of(QUERY), f"sha256:{hash_of(QUERY).upper()}"):
            assert (await ask(closed, documentId=name)).json == VIEWER
        assert (await ask(closed, extensions=named(QUERY))).json == VIEWER


@pytest.mark.parametrize(
    "names", [{"documentId": hash_of(QUERY)}, {"extensions": named(QUERY)}], ids=str
)
async def test_a_strange_text_is_not_run_under_a_trusted_name(
    closed: Served, names: dict[str, Any]
):
    """It is refused, or the document of that name is run in its place."""
    answer = await ask(closed, query=STRANGE, **names)
    assert answer.json == VIEWER or answer.codes == [INPUT]


async def test_no_other_document_is_run_on_a_socket(closed: Served, key: str):
    async with opened(closed.port) as socket:
        await socket.init(sessionId=key)
        await socket.subscribe("1", STRANGE)
        said = await socket.receive()
        assert said["type"] == "error"
        assert [error["extensions"]["code"] for error in said["payload"]] == [INPUT]


async def test_a_trusted_mutation_is_not_done_by_get(closed: Served):
    target = f"/graphql?documentId={hash_of(CREATE)}"
    check_refused(await exchange(closed.port, method="GET", target=target), 405, INPUT)


@pytest.mark.parametrize(
    "text", [None, "{", "[]", "1", '{"a": 1}', '{"format": "apollo-persisted-query-manifest"}']
)
async def test_a_manifest_that_is_none_stops_the_server_at_once(
    server: Served, tmp_path: Path, text: str | None
):
    path = tmp_path / "manifest.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsInvalid, match="TRUSTED_DOCUMENTS"):
        async with another(server, trusted_documents=path):
            pass


# --- introspection --------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def secretive(server: Served) -> AsyncGenerator[Served]:
    async with another(server, introspection=False) as secretive:
        yield secretive


@pytest.mark.parametrize(
    "query",
    [
        "{ __schema { queryType { name } } }",
        '{ __type(name: "User") { name } }',
        "{ ...A } fragment A on Query { ... { __schema { queryType { name } } } }",
        'query A { __typename } query B { __type(name: "A") { name } }',
    ],
)
async def test_the_schema_is_not_told_where_it_must_not_be(secretive: Served, query: str):
    answer = await post(secretive.port, query, {"Accept": GRAPHQL}, operationName=None)
    check_refused(answer, 400, "GRAPHQL_VALIDATION_FAILED")


async def test_names_of_types_are_told_all_the_same(secretive: Served):
    """Clients' caches live by them."""
    answer = await post(secretive.port, "{ __typename viewer { __typename } }")
    assert answer.json == {"data": {"__typename": "Query", "viewer": {"__typename": "User"}}}
