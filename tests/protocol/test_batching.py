"""Several operations in one request: off by default, few where it is on, each by itself."""

import json
from collections.abc import AsyncGenerator
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from graphql_api.auth import anonymous_viewer
from graphql_api.settings import Settings
from tests.factories import make_message, make_session
from tests.protocol.exchange import GRAPHQL, JSON, Answer, check_refused, exchange
from tests.protocol.forms import ADDED, UPLOAD, Form, form, part
from tests.streaming.scripted import statements_of
from tests.streaming.wire import MULTIPART, Served, another

pytestmark = [
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.usefixtures("unharmed"),
]

ASK = {"query": "{ viewer { isAnonymous } }"}
ASKED = {"data": {"viewer": {"isAnonymous": True}}}
CREATE = {"query": 'mutation { createSession(input: {title: "x"}) { __typename } }'}
COUNT = {"query": "{ sessions { totalCount } }"}


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def batching(server: Served) -> AsyncGenerator[Served]:
    async with another(server, max_batch_operations=3) as batching:
        yield batching


async def batch(server: Served, *operations: Any, accept: str = JSON, key: str = "") -> Answer:
    headers = {"Accept": accept, "X-Session-ID": key or str(uuid4())}
    return await exchange(server.port, headers=headers, body=json.dumps(operations).encode())


async def test_it_is_off_by_default(server: Served):
    assert Settings.model_construct().max_batch_operations == 1
    check_refused(await batch(server, ASK), 400, "BAD_USER_INPUT")


@pytest.mark.parametrize("accept", [JSON, GRAPHQL])
async def test_a_list_is_answered_by_a_list_in_its_order(batching: Served, accept: str):
    queries = [{"query": f"{{ {name}: __typename }}"} for name in ("a", "b", "c")]
    answer = await batch(batching, *queries, accept=accept)
    assert (answer.status, answer.media_type) == (200, accept)
    assert answer.json == [{"data": {name: "Query"}} for name in ("a", "b", "c")]


async def test_a_list_of_one_is_answered_by_a_list(batching: Served):
    assert (await batch(batching, ASK)).json == [ASKED]


async def test_one_alone_is_answered_alone(batching: Served):
    answer = await exchange(batching.port, body=json.dumps(ASK).encode())
    assert answer.json == ASKED


async def test_one_too_many_is_refused_and_nothing_is_done(batching: Served, key: str):
    check_refused(await batch(batching, *[CREATE] * 4, key=key), 400, "BAD_USER_INPUT")
    [counted] = (await batch(batching, COUNT, key=key)).json
    assert counted == {"data": {"sessions": {"totalCount": 0}}}


@pytest.mark.parametrize("wrong", [None, 1, "x", [ASK], {"query": 1}], ids=repr)
async def test_what_is_no_operation_refuses_them_all(batching: Served, key: str, wrong: Any):
    answer = await batch(batching, CREATE, wrong, key=key)
    check_refused(answer, 400, "BAD_USER_INPUT")
    [counted] = (await batch(batching, COUNT, key=key)).json
    assert counted == {"data": {"sessions": {"totalCount": 0}}}


async def test_an_empty_list_is_refused(batching: Served):
    check_refused(await batch(batching), 400, "BAD_USER_INPUT")


@pytest.mark.parametrize("accept", ["text/event-stream", MULTIPART.partition(",")[0]])
async def test_a_batch_is_not_streamed(batching: Served, accept: str):
    check_refused(await batch(batching, ASK, ASK, accept=accept), 406, "BAD_USER_INPUT")


async def test_the_mistake_of_one_is_not_the_others(batching: Served):
    wrong: list[tuple[dict[str, str], str]] = [
        ({}, "BAD_USER_INPUT"),
        ({"query": "{ viewer"}, "GRAPHQL_PARSE_FAILED"),
        ({"query": "{ nothing }"}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": "{ __typename }", "operationName": "none"}, "BAD_USER_INPUT"),
        ({"query": "{" + " __typename" * 3_000 + "}"}, "QUERY_TOO_COMPLEX"),
        ({"query": '{ sessions(after: "x") { totalCount } }'}, "BAD_USER_INPUT"),
    ]
    for operation, code in wrong:
        first, second, third = (await batch(batching, ASK, operation, ASK)).json
        assert first == third == ASKED
        assert [error["extensions"]["code"] for error in second["errors"]] == [code]


async def test_a_subscription_is_refused_and_the_others_are_answered(batching: Served):
    subscription = {"query": "subscription { reply(messageId: 0) { __typename } }"}
    first, second = (await batch(batching, ASK, subscription)).json
    assert first == ASKED
    assert [error["extensions"]["code"] for error in second["errors"]] == ["BAD_USER_INPUT"]
    assert "data" not in second


async def test_each_has_variables_and_a_name_of_its_own(batching: Served):
    query = (
        "query A($a: Boolean!) { a: __typename @include(if: $a) b: __typename }"
        " query B { __typename }"
    )
    answer = await batch(
        batching,
        {"query": query, "operationName": "A", "variables": {"a": True}},
        {"query": query, "operationName": "A", "variables": {"a": False}},
        {"query": query, "operationName": "B"},
    )
    assert answer.json == [
        {"data": {"a": "Query", "b": "Query"}},
        {"data": {"b": "Query"}},
        {"data": {"__typename": "Query"}},
    ]


async def test_each_reads_for_itself(batching: Served, key: str):
    """Loaders that were shared would tell one what the other has read before a change."""
    viewer = anonymous_viewer(key)
    for _ in range(3):
        session = await make_session(batching.database, owner=viewer)
        await make_message(batching.database, owner=viewer, session=session)
    nested = {"query": "{ sessions { edges { node { lastMessage { content } } } } }"}
    with statements_of(batching.database) as alone:
        await batch(batching, nested, key=key)
    with statements_of(batching.database) as three:
        answer = await batch(batching, nested, nested, nested, key=key)
    assert len(three) == 3 * len(alone)
    assert len({json.dumps(each) for each in answer.json}) == 1


async def test_the_costs_are_told_of_each(batching: Served, key: str):
    few, many = (
        {"query": f"{{ sessions(first: {n}) {{ totalCount edges {{ cursor }} }} }}"}
        for n in (1, 50)
    )
    headers = {"X-Session-ID": key, "X-GraphQL-Cost": "1"}
    answer = await exchange(batching.port, headers=headers, body=json.dumps([few, many]).encode())
    less, more = (each["extensions"]["cost"]["requested"] for each in answer.json)
    assert less < more


async def test_a_form_may_bring_files_to_several_operations(batching: Served):
    operation = {"query": UPLOAD, "variables": {"file": None}}
    operations = part("operations", json.dumps([operation, ASK, operation]))
    places = part("map", '{"0": ["0.variables.file"], "1": ["2.variables.file"]}')
    files = [part("0", "Text.", "a.txt"), part("1", "Other.", "b.txt")]
    body = form(operations, places, *files)
    answer = await exchange(batching.port, headers=Form("batch").headers, body=body)
    assert answer.json == [ADDED, ASKED, ADDED]


@pytest.mark.parametrize("accept", [f"text/event-stream, {JSON};q=0.9", MULTIPART])
async def test_who_takes_plain_answers_too_gets_them(batching: Served, accept: str):
    answer = await batch(batching, ASK, ASK, accept=accept)
    assert (answer.media_type, answer.json) == (JSON, [ASKED, ASKED])
