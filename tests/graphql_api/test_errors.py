"""What goes wrong at the edge: who asks, what is hidden, and which codes say so."""

import asyncio
from typing import Any
from uuid import uuid1, uuid4

import pytest

from db.errors import DatabaseUnavailable
from tests.people import Parley, Person

SESSIONS = "{ sessions { totalCount } }"


async def post(parley: Parley, query: str, key: str | None) -> Any:
    headers = {} if key is None else {"X-Session-ID": key}
    return await parley.http.post("/graphql", json={"query": query}, headers=headers)


# --- who asks -------------------------------------------------------------------------


async def test_without_a_key_the_schema_is_open(parley: Parley):
    answer = await post(parley, "{ __typename __schema { queryType { name } } }", None)
    expected = {"__typename": "Query", "__schema": {"queryType": {"name": "Query"}}}
    assert answer.json() == {"data": expected}


OPERATIONS = [
    SESSIONS,
    "{ viewer { id } }",
    '{ node(id: "x") { id } }',
    '{ searchDocuments(query: "x") { title } }',
    "mutation { createSession(input: {}) { __typename } }",
    'mutation { sendMessage(input: {content: "x"}) { __typename } }',
]


async def test_without_a_key_nothing_else_is(parley: Parley):
    for operation in OPERATIONS:
        answer = await post(parley, operation, None)
        assert answer.status_code == 200
        [error] = answer.json()["errors"]
        assert error["extensions"] == {"code": "UNAUTHENTICATED"}
        assert "X-Session-ID" in error["message"]


NO_KEYS = [
    "",
    "garbage",
    str(uuid1()),
    "00000000-0000-0000-0000-000000000000",
    "'; DROP TABLE users",
]


async def test_a_key_that_is_no_random_uuid_is_refused(parley: Parley):
    for key in NO_KEYS:
        answer = await post(parley, "{ __typename }", key)
        assert answer.status_code == 401
        [error] = answer.json()["errors"]
        assert error["extensions"] == {"code": "UNAUTHENTICATED"}
        assert "version 4" in error["message"]


async def test_a_key_written_otherwise_is_the_same_viewer(alice: Person, parley: Parley):
    spelt = (alice.key, alice.key.upper(), f"{{{alice.key}}}", alice.key.replace("-", ""))
    answers = [await post(parley, "{ viewer { id } }", key) for key in spelt]
    assert len({answer.text for answer in answers}) == 1
    assert answers[0].json()["data"]["viewer"]["id"] == str(alice.viewer.user_id)


# --- what is hidden -------------------------------------------------------------------


def fail(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    async def failing(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr("db.sessions.session_count", failing)


async def test_a_fault_of_the_server_says_nothing_of_its_cause(
    alice: Person, monkeypatch: pytest.MonkeyPatch
):
    fail(monkeypatch, RuntimeError("password=hunter2"))
    answer = await alice.post(SESSIONS)
    [error] = answer["errors"]
    assert error["message"] == "Something went wrong on our side."
    assert error["extensions"].keys() == {"code", "requestId"}
    assert error["extensions"]["code"] == "INTERNAL"
    assert "hunter2" not in str(answer)


async def test_a_fault_is_logged_under_its_request(
    alice: Person, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    fail(monkeypatch, RuntimeError("the cause"))
    [error] = (await alice.post(SESSIONS))["errors"]
    logged = capsys.readouterr().out
    assert error["extensions"]["requestId"] in logged
    assert "the cause" in logged


async def test_faults_that_overlap_are_hidden_each(
    alice: Person, bob: Person, monkeypatch: pytest.MonkeyPatch
):
    both = asyncio.Barrier(2)

    async def failing(*_: Any) -> None:
        await both.wait()
        raise RuntimeError("password=hunter2")

    monkeypatch.setattr("db.sessions.session_count", failing)
    answers = await asyncio.gather(alice.post(SESSIONS), bob.post(SESSIONS))
    assert "hunter2" not in str(answers)
    ids = {answer["errors"][0]["extensions"]["requestId"] for answer in answers}
    assert len(ids) == 2


async def test_one_field_that_fails_leaves_the_others(
    alice: Person, monkeypatch: pytest.MonkeyPatch
):
    async def failing(*_: Any) -> None:
        raise RuntimeError("password=hunter2")

    monkeypatch.setattr("db.documents.document", failing)
    answer = await alice.post('{ document(id: "%s") { id } viewer { name } }' % uuid4())  # noqa: UP031
    assert answer["data"] == {"document": None, "viewer": {"name": None}}
    assert [error["extensions"]["code"] for error in answer["errors"]] == ["INTERNAL"]


async def test_a_database_that_is_away_is_unavailable(
    alice: Person, parley: Parley, monkeypatch: pytest.MonkeyPatch
):
    fail(monkeypatch, DatabaseUnavailable("ConnectionRefusedError at 10.0.0.1"))
    answer = await post(parley, SESSIONS, alice.key)
    [error] = answer.json()["errors"]
    assert error["extensions"]["code"] == "UNAVAILABLE"
    assert "10.0.0.1" not in answer.text


# --- codes ----------------------------------------------------------------------------


BY_ID = "query ($id: ID!) { session(id: $id) { id } }"
MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("{ sessions", {}, "GRAPHQL_PARSE_FAILED"),
    ("{ nothing }", {}, "GRAPHQL_VALIDATION_FAILED"),
    ("{ session { id } }", {}, "GRAPHQL_VALIDATION_FAILED"),
    (BY_ID, {}, "BAD_USER_INPUT"),
    (BY_ID, {"id": [1]}, "BAD_USER_INPUT"),
    (BY_ID, {"id": None}, "BAD_USER_INPUT"),
    ("{ sessions(first: -1) { totalCount } }", {}, "BAD_USER_INPUT"),
]


async def test_a_mistake_of_the_clients_has_a_code(parley: Parley, alice: Person):
    headers = {"X-Session-ID": alice.key}
    for query, variables, code in MISTAKES:
        body = {"query": query, "variables": variables}
        answer = await parley.http.post("/graphql", json=body, headers=headers)
        codes = [error["extensions"]["code"] for error in answer.json()["errors"]]
        assert codes == [code], (query, variables)


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"1", b'"x"', b"\xff", b"{", b"[" * 50_000, b"9" * 5_000],
    ids=lambda body: repr(body[:8]),
)
async def test_a_body_that_is_no_request_is_a_bad_request(
    body: bytes, parley: Parley, alice: Person
):
    headers = {"X-Session-ID": alice.key, "Content-Type": "application/json"}
    answer = await parley.http.post("/graphql", content=body, headers=headers)
    assert answer.status_code == 400
