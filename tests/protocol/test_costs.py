"""What an operation costs: its fields, times the rows of their pages."""

from typing import Any

import pytest
from graphql import get_introspection_query

from resolvers.cursors import DEFAULT_PAGE_SIZE
from tests.protocol.excesses import FOUND, HEAVY, refused, taken
from tests.protocol.exchange import post
from tests.streaming.wire import Http, Served, another

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def cost(server: Served, query: str, **variables: Any) -> int:
    """Ask what an operation costs."""
    answer = await post(server.port, query, {"X-GraphQL-Cost": "1"}, variables=variables)
    assert answer.json["extensions"]["cost"]["maximum"] == 50_000
    return answer.json["extensions"]["cost"]["requested"]


PAGE = "query ($n: Int%s) { sessions(%s: $n) { edges { node { id title } } } }"


def page(argument: str = "") -> str:
    return f"{{ sessions{argument} {{ edges {{ node {{ id title }} }} }} }}"


async def test_what_is_not_asked_is_not_told(server: Served):
    answer = await post(server.port, "{ viewer { id } }")
    assert "extensions" not in answer.json


async def test_the_cost_grows_with_the_page(server: Served):
    """However its size is said."""
    ten, fifty = await cost(server, page("(first: 10)")), await cost(server, page("(first: 50)"))
    assert ten * 3 < fifty
    spelt = [
        await cost(server, page("(last: 50)")),
        await cost(server, PAGE % ("", "first"), n=50),
        await cost(server, PAGE % ("", "last"), n=50),
        await cost(server, PAGE % (" = 1", "first"), n=50),
        await cost(server, PAGE % (" = 50", "first")),
        await cost(server, PAGE % (" = 50", "last")),
        await cost(server, PAGE % ("", "first"), n=50.0),  # which GraphQL takes for an Int
    ]
    assert spelt == [fifty] * 7


async def test_a_page_of_no_said_size_costs_as_much_as_it_is_long(server: Served):
    usual = await cost(server, page(f"(first: {DEFAULT_PAGE_SIZE})"))
    spelt = [
        await cost(server, page()),
        await cost(server, page("(first: null)")),
        await cost(server, PAGE % ("", "first")),
        await cost(server, PAGE % ("", "first"), n=None),
        await cost(server, PAGE % (" = 50", "first"), n=None),
    ]
    assert spelt == [usual] * 5


async def test_a_page_of_nothing_costs_less(server: Served):
    assert await cost(server, page("(first: 0)")) < await cost(server, page("(first: 1)"))


async def test_introspection_costs_something(server: Served):
    whole = await cost(server, get_introspection_query())
    assert 10_000 < whole < 25_000
    assert await cost(server, "{ __typename }") == 1


@pytest.mark.parametrize("digits", [11, 4_300])
async def test_a_number_that_is_no_int_is_a_mistake_like_any_other(server: Served, digits: int):
    query = 'query ($n: Int!) { searchDocuments(query: "x", limit: $n) { title score } }'
    answer = await post(server.port, query, variables={"n": int("9" * digits)})
    assert (answer.status < 500, answer.codes) == (True, ["BAD_USER_INPUT"])


async def test_a_refusal_tells_the_cost_too(server: Served):
    answer = await post(server.port, f"{{ {HEAVY} }}", {"X-GraphQL-Cost": "1"})
    assert answer.codes == ["QUERY_TOO_COMPLEX"]
    assert answer.json["extensions"]["cost"]["requested"] > 50_000


async def test_a_stream_tells_the_cost_once(server: Served, key: str):
    query = 'subscription { reply(messageId: "x") { __typename } }'
    stream = await Http.ask(server.port, key, query, headers={"X-GraphQL-Cost": "1"})
    _, first = await stream.sse() or ("", {})
    await stream.rest()
    assert first["extensions"]["cost"]["requested"] == 2


async def test_fragments_cost_what_they_would_cost_written_out(server: Served):
    fields = "edges { node { id messages(first: 7) { edges { node { id role } } } } }"
    written = f"{{ a: sessions(first: 3) {{ {fields} }} b: sessions(first: 9) {{ {fields} }} }}"
    fragment = f"fragment F on ChatSessionConnection {{ {fields} }}"
    spread = f"{{ a: sessions(first: 3) {{ ...F }} b: sessions(first: 9) {{ ...F }} }} {fragment}"
    nested = (
        "{ ...R } fragment R on Query { a: sessions(first: 3) { ...F } b: sessions(first: 9)"
        " { ... on ChatSessionConnection { ...F } } } fragment F on ChatSessionConnection"
        " { edges { node { ...S } } } fragment S on ChatSession"
        " { id messages(first: 7) { edges { node { id role } } } }"
    )
    expected = await cost(server, written)
    assert [await cost(server, query) for query in (spread, nested)] == [expected] * 2


async def test_what_is_asked_twice_costs_twice(server: Served):
    once = await cost(server, "{ a: sessions(first: 50) { edges { node { id } } } }")
    query = "{ %s: sessions(first: 50) { edges { node { id } } } }"
    both = (query % "a")[:-1] + (query % "b")[1:]
    assert await cost(server, both) == 2 * once


@pytest.mark.parametrize(
    "query",
    [
        f"{{ {HEAVY} }}",
        f"{{ ... on Query {{ {HEAVY} }} }}",
        f"{{ ...A }} fragment A on Query {{ {HEAVY} }}",
        f"{{ ...A }} fragment A on Query {{ ...B }} fragment B on Query {{ {HEAVY} }}",
        "query ($n: Int = 100) { " + HEAVY.replace("100", "$n") + " }",
        f"{{ {HEAVY.replace('first', 'last')} }}",
        f"{{ light: sessions(first: -2147483648) {FOUND} {HEAVY} }}",
        f'{{ light: searchDocuments(query: "x", limit: -2147483648) {{ title }} {HEAVY} }}',
    ],
    ids=["plain", "inline", "fragment", "nested", "default", "last", "less than none", "no limit"],
)
async def test_what_costs_too_much_is_refused(server: Served, query: str):
    message, said = await refused(server, query)
    assert "cost" in message
    assert 50_000 in said
    assert max(said) > 50_000


async def test_the_variables_of_what_costs_too_much_count(server: Served):
    query = "query ($n: Int = 1) { " + HEAVY.replace("100", "$n") + " }"
    await taken(server, query)
    await refused(server, query, n=100)


async def test_who_runs_the_server_says_how_much_is_too_much(server: Served):
    async with another(server, max_query_cost=30) as frugal:
        await taken(frugal, page("(first: 5)"))
        _, said = await refused(frugal, page("(first: 50)"))
        assert 30 in said
