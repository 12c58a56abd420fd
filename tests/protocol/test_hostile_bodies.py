"""Requests that no honest client sends: each is refused in GraphQL's own form, and that is all."""

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pytest

from tests.protocol.exchange import GRAPHQL, JSON, Exchange, Headers, check_refused, exchange
from tests.streaming.wire import Served

pytestmark = [
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.usefixtures("unharmed"),
]

INPUT = "BAD_USER_INPUT"
NO_GRAPHQL = "GRAPHQL_PARSE_FAILED"
INVALID = "GRAPHQL_VALIDATION_FAILED"
COMPLEX = "QUERY_TOO_COMPLEX"
ASK = "{ __typename }"
BY_ID = "query ($id: ID!) { session(id: $id) { id } }"
FIRST = "query ($first: Int) { sessions(first: $first) { totalCount } }"
HUGE = "9" * 5_000
"Python refuses to read an integer of more than 4,300 digits."
DEEP = 50_000
"Python's own readers of JSON give up at less."


@dataclass(frozen=True)
class Refused:
    """What is sent, and how it is refused. Without `code`: as any mistake of the client's."""

    name: str
    body: bytes = b""
    status: int = 400
    code: str | None = INPUT
    headers: Headers = field(default_factory=dict[str, str | None])
    method: str = "POST"
    target: str = "/graphql"


def asking(name: str, code: str | None = INPUT, /, **members: Any) -> Refused:
    """Make a request of some members; with GraphQL's own type, so that the status is 400."""
    body = json.dumps({"query": ASK} | members).encode()
    return Refused(name, body, code=code, headers={"Accept": GRAPHQL})


def document(name: str, code: str | None, query: str) -> Refused:
    return asking(name, code, query=query)


def typed(content_type: str | None) -> Refused:
    body = json.dumps({"query": ASK}).encode()
    return Refused(f"as {content_type}", body, 415, headers={"Content-Type": content_type})


def by_get(name: str, parameters: str, code: str | None = INPUT) -> Refused:
    target = f"/graphql?{parameters}"
    return Refused(name, code=code, headers={"Accept": GRAPHQL}, method="GET", target=target)


BODIES = [
    Refused("nothing"),
    Refused("white space", b" \n "),
    Refused("null", b"null"),
    Refused("a number", b"1"),
    Refused("a string", b'"{ __typename }"'),
    Refused("true", b"true"),
    Refused("an empty object", b"{}"),
    Refused("an empty list", b"[]"),
    Refused("a list, where batching is off", b'[{"query": "{ __typename }"}]'),
    Refused("truncated", b'{"query": "{ __typena'),
    Refused("something after it", b'{"query": "{ __typename }"} {}'),
    Refused("no JSON", b"{ __typename }"),
    Refused("bad UTF-8", b'{"query": "{ __typename } # \xff"}'),
    Refused("half of a UTF-8 sequence", b'{"query": "{ __typename } # \xf0\x9f"}'),
    Refused("UTF-16", json.dumps({"query": ASK}).encode("utf-16")),
    Refused("UTF-32", json.dumps({"query": ASK}).encode("utf-32-be")),
    Refused("NaN", b'{"query": "{ __typename }", "variables": {"x": NaN}}'),
    Refused("Infinity", b'{"query": "{ __typename }", "variables": {"x": -Infinity}}'),
    Refused("lists in lists", b"[" * DEEP),
    Refused("objects in objects", b'{"a":' * DEEP),
    Refused(
        "deep variables",
        b'{"query": "{ __typename }", "variables": {"x": ' + b"[" * DEEP + b"]" * DEEP + b"}}",
    ),
    Refused("an integer of 5,000 digits", HUGE.encode()),
    Refused(
        "a variable of 5,000 digits",
        b'{"query": "{ __typename }", "variables": {"x": %s}}' % HUGE.encode(),
    ),
]

MEMBERS = [
    *(
        asking(f"query is {value!r}", query=value)
        for value in (None, 1, True, ["{ __typename }"], {"a": "{ __typename }"})
    ),
    *(asking(f"variables is {value!r}", variables=value) for value in ("x", 1, False, [1])),
    *(asking(f"operationName is {value!r}", operationName=value) for value in (1, True, ["x"])),
    asking("operationName is an object", operationName={}),
    *(asking(f"extensions is {value!r}", extensions=value) for value in ("x", 1, False, [1])),
    asking("an operation that is not there", operationName="Nowhere"),
    asking("a name of half a surrogate pair", operationName="\ud800"),
    asking("which of two", query="query A { __typename } query B { __typename }"),
    asking("no variable", query=BY_ID),
    asking("a variable of another type", query=BY_ID, variables={"id": ["x"]}),
    asking("a variable of half a surrogate pair", query=BY_ID, variables={"id": {"\ud800": 1}}),
    asking("a variable past 32 bits", query=FIRST, variables={"first": 2**31}),
    asking("a variable past any bits", query=FIRST, variables={"first": 1e308}),
]

DOCUMENTS = [
    document("an empty document", NO_GRAPHQL, ""),
    document("a document of comments", NO_GRAPHQL, "# nothing"),
    document("a document that breaks off", NO_GRAPHQL, "{ sessions"),
    document("half a surrogate pair", NO_GRAPHQL, "{ \ud800 }"),
    document("half a surrogate pair in a string", NO_GRAPHQL, '{ session(id: "\\ud800") { id } }'),
    document("a null character", NO_GRAPHQL, "{ \0 }"),
    document("only a fragment", None, "fragment A on Query { __typename }"),
    document("a definition of a type", None, "type Query { a: Int }"),
    document("no such field", INVALID, "{ nothing }"),
    document("no such fragment", INVALID, "{ ...A }"),
    document("a fragment that spreads itself", INVALID, "{ ...A } fragment A on Query { ...A }"),
    document(
        "fragments that spread each other",
        INVALID,
        "{ ...A } fragment A on Query { ...B } fragment B on Query { viewer { id } ...A }",
    ),
    document(
        "an integer of 5,000 digits in it", None, f"{{ sessions(first: {HUGE}) {{ totalCount }} }}"
    ),
    document("braces in braces", None, "{a" * 900 + "}" * 900),
    document("inline fragments in each other", None, "{ ..." * 600 + "}" * 600),
    document("brackets in brackets", None, "{ session(id: " + "[" * 900 + "]" * 900 + ") { id } }"),
    document(
        "inputs in inputs", None, "{ session(id: " + "{a:" * 600 + "1" + "}" * 600 + ") { id } }"
    ),
    document(
        "a type in brackets", None, "query ($a: " + "[" * 900 + "Int" + "]" * 900 + ") { id }"
    ),
    document("too many tokens", COMPLEX, "{ " + "__typename " * 5_000 + "}"),
]

TYPES = [
    typed(None),
    typed("text/plain"),
    typed("text/plain;charset=UTF-8"),
    typed("application/x-www-form-urlencoded"),
    typed("application/graphql"),
    typed("application/jsonx"),
    typed("application"),
    typed(""),
    typed("application/json; charset=utf-16"),
    typed("application/json; charset=latin-1"),
    typed("application/json; charset=nonsense"),
]

BY_GET = [
    by_get("nothing by GET", ""),
    by_get("only variables by GET", "variables={}"),
    by_get("variables that are no JSON", f"query={quote(ASK)}&variables=x"),
    by_get("variables that are a list", f"query={quote(ASK)}&variables=[]"),
    by_get("variables of 5,000 digits", f"query={quote(ASK)}&variables=%7B%22x%22:{HUGE}%7D"),
    by_get("deep variables by GET", f"query={quote(ASK)}&variables={'%5B' * 5_000}"),
    by_get("extensions that are no JSON", f"query={quote(ASK)}&extensions=x"),
    by_get("no such operation by GET", f"query={quote(ASK)}&operationName=Nowhere"),
    by_get("bad UTF-8 by GET", "query=%FF", None),
    by_get("no GraphQL by GET", "query={", NO_GRAPHQL),
]

METHODS = [
    Refused(f"{method}", body=b"{}", status=405, headers={"Content-Length": "2"}, method=method)
    for method in ("PUT", "PATCH", "DELETE")
]


ALL = [*BODIES, *MEMBERS, *DOCUMENTS, *TYPES, *BY_GET, *METHODS]


@pytest.mark.parametrize("row", ALL, ids=[row.name for row in ALL])
async def test_what_is_no_request_is_refused(server: Served, row: Refused):
    answer = await exchange(
        server.port, method=row.method, target=row.target, headers=row.headers, body=row.body
    )
    check_refused(answer, row.status, row.code)


@pytest.mark.parametrize(
    "content_type",
    [
        JSON,
        "application/json;charset=utf-8",
        'Application/JSON; Charset="UTF-8"',
        "application/json; charset=utf8",
    ],
)
async def test_json_may_say_that_it_is_utf8(server: Served, content_type: str):
    body = json.dumps({"query": ASK}).encode()
    answer = await exchange(server.port, headers={"Content-Type": content_type}, body=body)
    assert answer.json == {"data": {"__typename": "Query"}}


async def test_mutations_by_get_are_refused_and_post_is_named(server: Served):
    query = quote('mutation { createSession(input: {title: "x"}) { __typename } }')
    answer = await exchange(server.port, method="GET", target=f"/graphql?query={query}")
    check_refused(answer, 405, INPUT)
    assert answer.headers["allow"] == "POST"


async def test_the_operation_that_is_named_says_whether_it_is_a_mutation(server: Served):
    both = quote("query A { __typename } mutation B { createSession(input: {}) { __typename } }")
    target = f"/graphql?query={both}&operationName="
    read = await exchange(server.port, method="GET", target=f"{target}A")
    assert read.json == {"data": {"__typename": "Query"}}
    written = await exchange(server.port, method="GET", target=f"{target}B")
    check_refused(written, 405, INPUT)


async def test_another_method_is_told_which_there_are(server: Served):
    answer = await exchange(server.port, method="PUT", headers={"Content-Length": "0"})
    check_refused(answer, 405, INPUT)
    assert {"GET", "POST"} <= set(answer.headers["allow"].replace(" ", "").split(","))


async def test_who_leaves_in_the_middle_of_a_body_does_no_harm(server: Served):
    headers = {"Content-Type": JSON, "Content-Length": "1000"}
    request = await Exchange.begin(server.port, headers=headers)
    request.send(b'{"query": "{ ')
    await request.writer.drain()
    request.abort()
