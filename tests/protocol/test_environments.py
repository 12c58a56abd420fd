"""What a server in production keeps to itself, and one in development tells."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio

from tests.protocol.exchange import Answer, check_refused, exchange, post
from tests.streaming.wire import Served, another, opened

pytestmark = pytest.mark.asyncio(loop_scope="package")

MISTAKES = [
    "{ viewr { id } }",
    "{ viewer { nam } }",
    "{ session(idd: 1) { id } }",
    "{ documents(status: REDY) { totalCount } }",
    '{ node(id: "x") { ... on Documnt { title } } }',
    "mutation { createSession(input: {titel: 1}) { __typename } }",
    '{ node(id: "x") { title } }',
]
BROWSER = {"Accept": "text/html,*/*;q=0.8"}


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def production(server: Served) -> AsyncGenerator[Served]:
    async with another(server, environment="production") as production:
        yield production


def messages(answer: Answer) -> list[str]:
    return [error["message"] for error in answer.json["errors"]]


@pytest.mark.parametrize("query", MISTAKES)
async def test_names_are_suggested_in_development_alone(
    server: Served, production: Served, query: str
):
    suggested = messages(await post(server.port, query))
    assert any("Did you mean" in message for message in suggested)
    plain = messages(await post(production.port, query))
    assert len(plain) == len(suggested)
    assert "Did you mean" not in str(plain)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("IngestionStatus", "documents(status: $value) { totalCount }", "REDY"),
        ("DocumentSource!", "addDocument(input: {source: $value}) { __typename }", {"txt": "x"}),
        (
            "DocumentSource!",
            "addDocument(input: {source: $value}) { __typename }",
            {"ur": 1, "x": 2},
        ),
    ],
)
async def test_names_in_variables_are_suggested_in_development_alone(
    server: Served, production: Served, kind: str, field: str, value: Any
):
    keyword = "mutation" if "Document(" in field else "query"
    query, variables = f"{keyword} ($value: {kind}) {{ {field} }}", {"value": value}
    assert "Did you mean" in str(messages(await post(server.port, query, variables=variables)))
    plain = messages(await post(production.port, query, variables=variables))
    assert "Did you mean" not in str(plain)


async def test_nothing_is_suggested_on_a_socket_in_production(production: Served, key: str):
    async with opened(production.port) as socket:
        await socket.init(sessionId=key)
        await socket.subscribe("1", MISTAKES[0])
        said = await socket.receive()
        assert said["type"] == "error"
        assert "Did you mean" not in str(said)


async def test_there_is_no_graphiql_in_production(server: Served, production: Served):
    shown = await exchange(server.port, method="GET", headers=BROWSER)
    assert (shown.status, shown.media_type) == (200, "text/html")
    check_refused(await exchange(production.port, method="GET", headers=BROWSER), 404, "NOT_FOUND")


async def test_graphiql_may_be_turned_on_in_production(server: Served):
    async with another(server, environment="production", graphiql=True) as production:
        shown = await exchange(production.port, method="GET", headers=BROWSER)
        assert (shown.status, shown.media_type) == (200, "text/html")
