"""Documents that are sent once and named by their hash then (Apollo's persisted queries)."""

import json
from typing import Any

import pytest

from tests.protocol.exchange import GRAPHQL, JSON, check_refused, exchange, get
from tests.protocol.persisted import FOLLOW, REJECTED, VIEWER, ask, get_named, hash_of, named
from tests.streaming.wire import Served, opened

pytestmark = [
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.usefixtures("unharmed"),
]

UNKNOWN = "PERSISTED_QUERY_NOT_FOUND"
INPUT = "BAD_USER_INPUT"


def unique(key: str, keyword: str = "query", fields: str = "viewer { isAnonymous }") -> str:
    """Write an operation that nobody has sent yet."""
    return f"{keyword} Once_{key.replace('-', '_')} {{ {fields} }}"


def a_subscription(key: str) -> str:
    return FOLLOW.replace("subscription", f"subscription Once_{key.replace('-', '_')}")


async def test_a_document_is_sent_once_and_then_named(server: Served, key: str):
    query = unique(key)
    unknown = await ask(server, extensions=named(query))
    check_refused(unknown, 200, UNKNOWN)
    assert unknown.json["errors"][0]["message"] == "PersistedQueryNotFound"
    assert (await ask(server, query=query, extensions=named(query))).json == VIEWER
    assert (await ask(server, extensions=named(query))).json == VIEWER
    assert (await ask(server, query=None, extensions=named(query))).json == VIEWER


async def test_a_document_that_is_known_serves_every_viewer(server: Served, key: str):
    """Each exchange is a stranger's: what is remembered is the text, never an answer."""
    query = unique(key, fields="viewer { id }")
    first = await ask(server, query=query, extensions=named(query))
    second = await ask(server, extensions=named(query))
    assert first.json["data"]["viewer"]["id"] != second.json["data"]["viewer"]["id"]


@pytest.mark.parametrize(("accept", "status"), [(JSON, 200), (GRAPHQL, 400)])
async def test_an_unknown_hash_has_the_status_of_what_was_not_executed(
    server: Served, key: str, accept: str, status: int
):
    """Clients that would stumble over a 400 (Apollo's before 4) do not ask for the newer type."""
    body = json.dumps({"extensions": named(unique(key))}).encode()
    answer = await exchange(server.port, headers={"Accept": accept}, body=body)
    check_refused(answer, status, UNKNOWN)


async def test_a_hash_of_something_else_is_refused_and_not_remembered(server: Served, key: str):
    query, other = unique(key), "{ __typename }"
    check_refused(await ask(server, query=other, extensions=named(query)), 400, INPUT)
    check_refused(await ask(server, extensions=named(query)), 200, UNKNOWN)


@pytest.mark.parametrize(
    "persisted",
    [
        1,
        "x",
        [],
        {},
        {"version": 1},
        {"sha256Hash": hash_of("{ __typename }")},
        {"version": 2, "sha256Hash": hash_of("{ __typename }")},
        {"version": "1", "sha256Hash": hash_of("{ __typename }")},
        {"version": 1, "sha256Hash": 1},
        {"version": 1, "sha256Hash": None},
        {"version": 1, "sha256Hash": ["x"]},
    ],
    ids=str,
)
async def test_what_names_no_document_is_refused(server: Served, persisted: Any):
    extensions = {"persistedQuery": persisted}
    answer = await ask(server, query="{ __typename }", extensions=extensions)
    check_refused(answer, 400, INPUT)


@pytest.mark.parametrize("query", ["{ viewer", "{ nothing }", "{" + " __typename" * 3_000 + "}"])
async def test_what_is_invalid_is_not_remembered(server: Served, query: str):
    assert (await ask(server, query=query, extensions=named(query))).codes != [UNKNOWN]
    check_refused(await ask(server, extensions=named(query)), 200, UNKNOWN)


async def test_a_document_is_named_by_get(server: Served, key: str):
    """The reason for it all: such requests can be cached."""
    query = unique(key)
    check_refused(await get_named(server, query), 200, UNKNOWN)
    assert (await get(server.port, query, extensions=named(query))).json == VIEWER
    assert (await get_named(server, query)).json == VIEWER


async def test_a_mutation_that_is_named_is_not_done_by_get(server: Served, key: str):
    mutation = unique(key, "mutation", "createSession(input: {}) { __typename }")
    await ask(server, query=mutation, extensions=named(mutation))
    check_refused(await get_named(server, mutation), 405, INPUT)


async def test_a_document_is_named_in_an_event_stream(server: Served, key: str):
    query = a_subscription(key)
    headers = {"Accept": "text/event-stream"}
    body = {"variables": {"id": "none"}, "extensions": named(query)}
    unknown = await exchange(server.port, headers=headers, body=json.dumps(body).encode())
    assert unknown.codes == [UNKNOWN] if unknown.media_type == JSON else UNKNOWN in unknown.text
    for request in ({**body, "query": query}, body):
        answer = await exchange(server.port, headers=headers, body=json.dumps(request).encode())
        assert answer.text.startswith('event: next\ndata: {"data":{"event":')


async def test_a_document_is_named_on_a_socket(server: Served, key: str):
    query = a_subscription(key)
    payload = {"variables": {"id": "none"}, "extensions": named(query)}
    async with opened(server.port) as socket:
        await socket.init(sessionId=key)
        await socket.send({"type": "subscribe", "id": "1", "payload": payload})
        said = await socket.receive()
        assert said["type"] == "error"
        assert [error["extensions"]["code"] for error in said["payload"]] == [UNKNOWN]
        for each in ({**payload, "query": query}, payload):
            await socket.send({"type": "subscribe", "id": "1", "payload": each})
            assert await socket.rest() == [REJECTED]


async def test_the_limits_hold_for_what_is_named(server: Served, key: str):
    """The variables are new each time."""
    query = "query ($n: Int) { sessions(first: $n) { edges { node { id } } } }"
    assert (await ask(server, query=query, variables={"n": 1}, extensions=named(query))).codes == []
    assert (await ask(server, variables={"n": 101}, extensions=named(query))).codes == [INPUT]
