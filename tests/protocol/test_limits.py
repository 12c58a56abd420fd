"""What one operation may ask for: more is refused before anything is asked of the database."""

import re
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager
from functools import partial
from inspect import signature
from typing import Any
from uuid import uuid4

import psutil
import pytest
import pytest_asyncio
from graphql import get_introspection_query

from graphql_api.graphiql import EXAMPLE
from graphql_api.settings import Settings
from tests.protocol.excesses import COMPLEX, FOUND, HEAVY, asking_nothing, refused, taken
from tests.protocol.exchange import GRAPHQL, Answer, get, post
from tests.streaming.wire import MULTIPART, Served, another, opened

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_the_defaults_are_as_documented():
    settings: Any = Settings.model_construct()
    assert (settings.max_query_tokens, settings.max_query_cost) == (2_000, 50_000)
    assert settings.max_query_depth == 15
    assert (settings.max_query_aliases, settings.max_query_directives) == (30, 30)


# --- tokens ---------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def terse(server: Served) -> AsyncGenerator[Served]:
    async with another(server, max_query_tokens=10) as terse:
        yield terse


async def test_as_many_tokens_as_are_allowed_are_taken(terse: Served):
    await taken(terse, "{" + " __typename" * 8 + " }")


async def test_a_token_more_is_refused(terse: Served):
    message, said = await refused(terse, "{" + " __typename" * 9 + " }")
    assert "token" in message
    assert 10 in said


async def test_tokens_of_all_definitions_count(terse: Served):
    query = "query A { __typename } query B { __typename } query C { __typename }"
    assert "token" in (await refused(terse, query))[0]


# --- depth ----------------------------------------------------------------------------


def written_out(depth: int) -> str:
    inner = "{ replyTo " * (depth - 2) + "{ id }" + " }" * (depth - 2)
    return f'{{ message(id: "x") {inner} }}'


def in_inline_fragments(depth: int) -> str:
    inner = (
        "{ ... on ChatMessage { replyTo " * (depth - 2) + "{ ... { id } }" + " } }" * (depth - 2)
    )
    return f'{{ ... {{ message(id: "x") {inner} }} }}'


def in_named_fragments(depth: int) -> str:
    """Each level is a fragment that spreads the next."""
    names = [f"F{number}" for number in range(depth - 2)]
    fragments = [
        f"fragment {name} on ChatMessage {{ replyTo {{ ...{following} }} }}"
        for name, following in zip(names, [*names[1:], "Last"], strict=True)
    ]
    last = "fragment Last on ChatMessage { id }"
    return " ".join(['{ message(id: "x") { ...F0 } }', *fragments, last])


def in_one_fragment(depth: int) -> str:
    """The fragment is defined before what spreads it, and spread at two depths."""
    half = depth // 2
    inner = "{ replyTo " * (depth - half - 2) + "{ id }" + " }" * (depth - half - 2)
    outer = "{ replyTo " * half + "{ ...Half }" + " }" * half
    return (
        f"fragment Half on ChatMessage {inner}"
        f' query {{ shallow: message(id: "x") {{ ...Half }} message(id: "x") {outer} }}'
    )


DEPTHS = [written_out, in_inline_fragments, in_named_fragments, in_one_fragment]


@pytest.mark.parametrize("write", DEPTHS)
async def test_as_deep_as_is_allowed_is_taken(server: Served, write: Callable[[int], str]):
    await taken(server, write(15))


@pytest.mark.parametrize("write", DEPTHS)
async def test_a_level_more_is_refused(server: Served, write: Callable[[int], str]):
    message, said = await refused(server, write(16))
    assert "depth" in message
    assert {15, 16} <= said


# --- aliases and directives -----------------------------------------------------------


def aliases(count: int) -> str:
    return " ".join(f"a{number}: __typename" for number in range(count))


def directives(count: int) -> str:
    return "__typename @include(if: true) " * count


def spread(fields: Callable[[int], str]) -> list[tuple[str, Callable[[int], str]]]:
    """Give ways to ask for as many fields of a kind."""

    def named(count: int) -> str:
        return f"{{ ...A }} fragment A on Query {{ {fields(count)} }}"

    def inline(count: int) -> str:
        return f"{{ {fields(count - 1)} ... {{ ... on Query {{ {fields(1)} }} }} }}"

    def nested(count: int) -> str:
        inner = f"fragment B on Query {{ {fields(count - 2)} }}"
        return f"{{ {fields(1)} ...A }} fragment A on Query {{ {fields(1)} ...B }} {inner}"

    def twice(count: int) -> str:
        fragment = f"fragment A on User {{ {fields(count // 2)} }}"
        return f"{{ viewer {{ ...A }} ... {{ viewer {{ ...A }} {fields(count % 2)} }} }} {fragment}"

    def below(count: int) -> str:
        return f"{{ viewer {{ {fields(count)} }} }}"

    def plain(count: int) -> str:
        return f"{{ {fields(count)} }}"

    return [(write.__name__, write) for write in (plain, below, inline, named, nested, twice)]


RENAMED = [pytest.param(write, id=name) for name, write in spread(aliases)]
ANNOTATED = [pytest.param(write, id=name) for name, write in spread(directives)]


@pytest.mark.parametrize("write", [*RENAMED, *ANNOTATED])
async def test_as_many_as_are_allowed_are_taken(server: Served, write: Callable[[int], str]):
    await taken(server, write(30))


@pytest.mark.parametrize("write", RENAMED)
async def test_an_alias_more_is_refused(server: Served, write: Callable[[int], str]):
    message, said = await refused(server, write(31))
    assert "alias" in message
    assert {30, 31} <= said


@pytest.mark.parametrize("write", ANNOTATED)
async def test_a_directive_more_is_refused(server: Served, write: Callable[[int], str]):
    message, said = await refused(server, write(31))
    assert "directive" in message
    assert {30, 31} <= said


@pytest.mark.parametrize(
    "query",
    [
        "{ __typename" + " @none" * 500 + " }",
        "query" + " @none" * 500 + " { __typename }",
        "{ ..." + " @include(if: true)" * 31 + " { __typename } }",
        "{ ...A" + " @include(if: true)" * 31 + " } fragment A on Query { __typename }",
        "{ ...A } fragment A on Query" + " @none" * 500 + " { __typename }",
    ],
    ids=["unknown", "operation", "inline", "spread", "fragment"],
)
async def test_directives_are_counted_wherever_they_stand(server: Served, query: str):
    """Before the document is validated, which takes the longer the more there are."""
    await refused(server, query)


# --- pages ----------------------------------------------------------------------------


PAGES = {
    "first": "{ sessions(first: 101) FOUND }",
    "last": "{ sessions(last: 101) FOUND }",
    "messages": '{ messages(sessionId: "x", first: 101) FOUND }',
    "documents": "{ documents(first: 101) FOUND }",
    "audit log": "{ viewer { auditLog(first: 101) FOUND } }",
    "count alone": "{ sessions(first: 101) { totalCount } }",
    "nested": '{ session(id: "x") { messages(first: 101) FOUND } }',
    "of a node": '{ node(id: "x") { ... on ChatSession { messages(last: 101) FOUND } } }',
    "nested twice": "{ sessions(first: 1) { edges { node { messages(first: 101) FOUND } } } }",
    "inline fragment": "{ ... { sessions(first: 101) FOUND } }",
    "fragment": "{ ...A } fragment A on Query { sessions(first: 101) FOUND }",
    "nested fragments": "{ sessions { ...A } }"
    " fragment A on ChatSessionConnection { edges { node { ...B } } }"
    " fragment B on ChatSession { messages(first: 101) FOUND }",
    "default": "query ($n: Int = 101) { sessions(first: $n) FOUND }",
    "after a mutation": "mutation { createSession(input: {}) {"
    " ... on CreateSessionSuccess { session { messages(first: 101) FOUND } } } }",
}


@pytest.mark.parametrize("query", PAGES.values(), ids=list(PAGES))
async def test_too_long_a_page_is_refused(server: Served, query: str):
    _, said = await refused(server, query.replace("FOUND", FOUND), "BAD_USER_INPUT")
    assert {100, 101} <= said


async def test_too_long_a_page_in_a_variable_is_refused(server: Served):
    query = f"query ($n: Int = 1) {{ sessions(first: $n) {FOUND} }}"
    _, said = await refused(server, query, "BAD_USER_INPUT", n=101)
    assert {100, 101} <= said


async def test_the_longest_page_is_taken(server: Served):
    await taken(server, f"{{ sessions(first: 100) {FOUND} }}")


# --- what must pass -------------------------------------------------------------------


async def test_graphiqls_introspection_passes(server: Served):
    options = {
        name: True
        for name, option in signature(get_introspection_query).parameters.items()
        if isinstance(option.default, bool)
    }
    data = await taken(server, get_introspection_query(**options))
    assert len(data["__schema"]["types"]) > 50


@pytest.mark.parametrize("operation", ["History", "Documents"])
async def test_graphiqls_example_passes(server: Served, operation: str):
    answer = await post(server.port, EXAMPLE, operationName=operation)
    assert answer.codes == []


# --- everywhere -----------------------------------------------------------------------


async def by_socket(server: Served, query: str) -> list[str]:
    async with opened(server.port) as socket:
        await socket.init(sessionId=str(uuid4()))
        await socket.subscribe("1", query)
        said = await socket.receive()
        assert said["type"] == "error"
        return [error["extensions"]["code"] for error in said["payload"]]


async def by_http(ask: Callable[..., Any], accept: str, server: Served, query: str) -> list[str]:
    answer: Answer = await ask(server.port, query, {"Accept": accept})
    assert '"data"' not in answer.text
    return re.findall(r'"code": ?"(\w+)"', answer.text)


WAYS = {
    "post": partial(by_http, post, GRAPHQL),
    "get": partial(by_http, get, GRAPHQL),
    "event stream": partial(by_http, post, "text/event-stream"),
    "event stream by get": partial(by_http, get, "text/event-stream"),
    "multipart": partial(by_http, post, MULTIPART),
    "socket": by_socket,
}
EXCESSES = {
    "tokens": "{" + " __typename" * 2_100 + " }",
    "depth": written_out(16),
    "aliases": f"{{ {aliases(31)} }}",
    "directives": f"{{ {directives(31)} }}",
    "cost": f"{{ {HEAVY} }}",
}


@pytest.mark.parametrize("excess", EXCESSES)
@pytest.mark.parametrize("way", WAYS)
async def test_the_limits_hold_however_one_asks(server: Served, way: str, excess: str):
    async with asking_nothing(server):
        assert await WAYS[way](server, EXCESSES[excess]) == [COMPLEX]


@pytest.mark.parametrize("way", ["post", "socket"])
async def test_nothing_of_a_mutation_is_done(server: Served, way: str):
    query = " ".join(f"a{n}: createSession(input: {{}}) {{ __typename }}" for n in range(31))
    async with asking_nothing(server):
        assert await WAYS[way](server, f"mutation {{ {query} }}") == [COMPLEX]


@pytest.mark.parametrize("way", ["event stream", "multipart", "socket"])
async def test_nothing_of_a_subscription_is_done(server: Served, way: str):
    messages = "messages(first: 100) { edges { node { %s } } }"
    fields = messages % "id role content createdAt status"
    inner = "reply { session { %s } }" % (messages % f"session {{ {fields} }}")
    input = f'{{messageId: "{uuid4()}", content: "x"}}'
    query = f"subscription {{ sendMessage(input: {input}) {{ ... on ReplyEnded {{ {inner} }} }} }}"
    async with asking_nothing(server):
        assert await WAYS[way](server, query) == [COMPLEX]


# --- how long it takes ----------------------------------------------------------------


def bomb(levels: int) -> str:
    """Write fragments that spread the next one twice each."""
    fragments = [
        f"fragment F{n} on Query {{ ...F{n + 1} ... {{ ...F{n + 1} }} }}" for n in range(levels)
    ]
    return " ".join(["{ ...F0 }", *fragments, f"fragment F{levels} on Query {{ __typename }}"])


def long_comment(number: int) -> str:
    """Write a document of four tokens and as many bytes as a body may have, nearly."""
    return f"{{ __typename }} # {number} {'x' * 3 * 2**20}"


SLOW = {
    "a long comment": long_comment(0),
    "a long string": '{ session(id: "' + "x" * 3 * 2**20 + '") { id } }',
    "a long name": "{ " + "x" * 3 * 2**20 + " }",
    "much white space": "{" + " " * 3 * 2**20 + "__typename }",
    "the same field": "{" + " __typename" * 1_900 + " }",
    "the same object": "{" + " viewer { id }" * 490 + " }",
    "the same list": "{" + " sessions { edges { node { id } } }" * 190 + " }",
    "the same inline fragment": "{" + " ... { viewer { id } }" * 280 + " }",
    "the same object in many inline fragments": "{"
    + (" ... {" + " viewer { id }" * 20 + " }") * 20
    + " }",
    "the same object in many fragments": "{"
    + "".join(f" ...F{n}" for n in range(20))
    + " }"
    + "".join(f" fragment F{n} on Query {{{' viewer { id }' * 20}}}" for n in range(20)),
    "the same fragment": "{" + " ...A" * 900 + " } fragment A on Query { viewer { id } }",
    "a bomb of fragments": bomb(100),
    "a fragment that nobody spreads": "{ __typename } fragment F on Query {"
    + " viewer { id }" * 480
    + " }",
    "the schema again and again": "{"
    + " ".join(f"a{n}: __schema {{ ...S }}" for n in range(30))
    + " } fragment S on __Schema { types { name fields { name type { ...T } args { name } } } }"
    + " fragment T on __Type { kind name ofType { kind name ofType { kind name } } }",
    "unknown fields": "{" + " ".join(f"session{n}" for n in range(1_900)) + " }",
    "variables": "query (" + " ".join(f"$a{n}: Int" for n in range(490)) + ") { __typename }",
}


MOST_CALLS = 1_000_000
"Of functions: about a sixth of a second. A document of as many tokens as may be takes half of it."


@contextmanager
def counted_calls() -> Generator[list[int]]:
    """Count the calls of functions that are made in this thread, where the server runs too.

    They are the same on a busy machine as on an idle one.
    """
    calls = [0]

    def count(_: object, event: str, __: object) -> None:
        calls[0] += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("query", SLOW.values(), ids=list(SLOW))
async def test_no_document_keeps_the_server_busy_for_long(server: Served, query: str):
    """Rules of validation that compare each with each are slow; meanwhile nobody is served."""
    with counted_calls() as calls:
        await post(server.port, query)
    assert 0 < calls[0] < MOST_CALLS


# --- what it keeps --------------------------------------------------------------------


async def test_long_documents_are_not_kept(server: Served):
    """What has been checked is remembered; it must not be possible to fill the memory with it."""
    process = psutil.Process()
    await post(server.port, long_comment(0))
    held = process.memory_info().rss
    for number in range(1, 20):
        await post(server.port, long_comment(number))
    assert process.memory_info().rss - held < 30 * 2**20
