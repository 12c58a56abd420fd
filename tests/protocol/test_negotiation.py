"""Which media type an answer has, and which status, by what its request accepts."""

import json
from typing import Any

import pytest

from tests.protocol.exchange import GRAPHQL, JSON, Answer, check_refused, exchange, get, post
from tests.streaming.wire import MULTIPART, Served

pytestmark = pytest.mark.asyncio(loop_scope="package")

ASK = "{ viewer { isAnonymous } }"
ASKED = {"data": {"viewer": {"isAnonymous": True}}}
CHROME = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,"
    "*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"
)
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
URQL = (
    "application/graphql-response+json, application/graphql+json, application/json,"
    " text/event-stream, multipart/mixed"
)
APOLLO = "application/graphql-response+json,application/json;q=0.9"
APOLLO_SUBSCRIPTION = f"multipart/mixed;boundary=graphql;subscriptionSpec=1.0,{APOLLO}"
APOLLO_DEFER = f'multipart/mixed;boundary="graphql";deferSpec=20220824,{APOLLO}'
APOLLO_3_SUBSCRIPTION = "multipart/mixed;boundary=graphql;subscriptionSpec=1.0,application/json"

ACCEPTED: list[tuple[str | None, str]] = [
    # what is asked for
    (None, JSON),
    ("", JSON),
    ("*/*", JSON),
    ("application/*", JSON),
    (JSON, JSON),
    (GRAPHQL, GRAPHQL),
    ("Application/GraphQL-Response+JSON", GRAPHQL),
    (f"{JSON}; charset=utf-8", JSON),
    (f"{GRAPHQL};charset=utf-8", GRAPHQL),
    # the order of equals
    (f"{JSON}, {GRAPHQL}", JSON),
    (f"{GRAPHQL}, {JSON}", GRAPHQL),
    (f"{GRAPHQL}; charset=utf-8, {JSON}; charset=utf-8", GRAPHQL),
    (f"{GRAPHQL},,{JSON},", GRAPHQL),
    (f"{GRAPHQL}\r\nAccept: {JSON}", GRAPHQL),
    (f"text/html\r\nAccept: {JSON}", JSON),
    # q-values
    (f"{JSON};q=0.9, {GRAPHQL}", GRAPHQL),
    (f"{GRAPHQL};q=0.9, {JSON}", JSON),
    (f"{JSON};q=0.5, {GRAPHQL};q=0.501", GRAPHQL),
    (f"{JSON} ; Q=0.5 , {GRAPHQL}", GRAPHQL),
    (f"{GRAPHQL};q=0, {JSON}", JSON),
    (f"*/*;q=0.1, {GRAPHQL}", GRAPHQL),
    (f"{JSON};q=0, */*", GRAPHQL),
    (f"{JSON};q=0, {GRAPHQL};q=0.1", GRAPHQL),
    (f"{GRAPHQL}, */*;q=0", GRAPHQL),
    # what means it most precisely
    (f"{JSON};q=0.1, */*", GRAPHQL),
    (f"application/*, {JSON};q=0.5", GRAPHQL),
    (f"{JSON};q=0.5, {GRAPHQL};q=0.4, */*;q=0.9", JSON),
    ("*/*;q=0, application/*", JSON),
    # what is unknown is passed over
    (f"text/html, {JSON};q=0.1", JSON),
    (f"application/graphql+json, {GRAPHQL};q=0.5", GRAPHQL),
    (f"image/png, text/plain, {GRAPHQL}", GRAPHQL),
    # what real clients send with their queries
    (URQL, GRAPHQL),
    (APOLLO, GRAPHQL),
    (APOLLO_DEFER, GRAPHQL),
    (f"{JSON}, text/event-stream", JSON),
    ("application/json, text/plain, */*", JSON),  # axios
    (CHROME, JSON),
    (FIREFOX, JSON),
]
UNACCEPTED = [
    "text/html",
    "text/*",
    "text/plain, image/png",
    "application/xml",
    "application/graphql+json",
    "application/jsonx",
    f"{JSON};q=0",
    f"{JSON};q=0, {GRAPHQL};q=0.0",
    "*/*;q=0",
    "application/*;q=0, */*",
    "nonsense",
    "/",
    ";q=1",
    "multipart/mixed",
]


@pytest.mark.parametrize(("accept", "expected"), ACCEPTED)
async def test_an_answer_has_the_type_that_is_preferred(
    server: Served, accept: str | None, expected: str
):
    for answer in (
        await post(server.port, ASK, {"Accept": accept}),
        await get(server.port, ASK, {"Accept": accept}),
    ):
        assert answer.status == 200
        assert answer.headers["content-type"].replace(" ", "") == f"{expected};charset=utf-8"
        assert answer.json == ASKED


@pytest.mark.parametrize("accept", UNACCEPTED)
async def test_what_nobody_can_answer_is_406(server: Served, accept: str):
    check_refused(await post(server.port, ASK, {"Accept": accept}), 406, "BAD_USER_INPUT")


async def test_what_is_406_is_not_done(server: Served, key: str):
    query = 'mutation { createSession(input: {title: "x"}) { __typename } }'
    await post(server.port, query, {"Accept": "text/html", "X-Session-ID": key})
    answer = await post(server.port, "{ sessions { totalCount } }", {"X-Session-ID": key})
    assert answer.json == {"data": {"sessions": {"totalCount": 0}}}


async def test_caches_are_told_what_an_answer_depends_on(server: Served):
    answer = await get(server.port, ASK, {"Accept": GRAPHQL})
    assert "accept" in answer.headers.get("vary", "").lower()


# --- who navigates here ---------------------------------------------------------------


@pytest.mark.parametrize("accept", [CHROME, FIREFOX])
async def test_a_browser_is_shown_graphiql(server: Served, accept: str):
    answer = await exchange(server.port, method="GET", headers={"Accept": accept})
    assert (answer.status, answer.media_type) == (200, "text/html")


@pytest.mark.parametrize("accept", [None, "*/*", JSON, GRAPHQL])
async def test_others_who_ask_nothing_are_refused(server: Served, accept: str | None):
    answer = await exchange(server.port, method="GET", headers={"Accept": accept})
    check_refused(answer, 400, "BAD_USER_INPUT")


# --- statuses -------------------------------------------------------------------------


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("{ viewer", {}, "GRAPHQL_PARSE_FAILED"),
    ("{ nothing }", {}, "GRAPHQL_VALIDATION_FAILED"),
    ("{ session { id } }", {}, "GRAPHQL_VALIDATION_FAILED"),
    ("query ($id: ID!) { session(id: $id) { id } }", {}, "BAD_USER_INPUT"),
    ("query ($id: ID!) { session(id: $id) { id } }", {"variables": {"id": []}}, "BAD_USER_INPUT"),
    ("query A { __typename }", {"operationName": "B"}, "BAD_USER_INPUT"),
    ("query A { __typename } query B { __typename }", {}, "BAD_USER_INPUT"),
    ("{" + " __typename" * 5_000 + "}", {}, "QUERY_TOO_COMPLEX"),
]
NAMES = ["syntax", "field", "argument", "variable", "value", "name", "no name", "tokens"]


def told(answer: Answer, code: str) -> None:
    assert answer.codes == [code]
    assert "data" not in answer.json


@pytest.mark.parametrize(("query", "more", "code"), MISTAKES, ids=NAMES)
async def test_what_is_not_executed_is_400_where_the_type_is_graphqls_own(
    server: Served, query: str, more: dict[str, Any], code: str
):
    answer = await post(server.port, query, {"Accept": GRAPHQL}, **more)
    assert (answer.status, answer.media_type) == (400, GRAPHQL)
    told(answer, code)


@pytest.mark.parametrize(("query", "more", "code"), MISTAKES, ids=NAMES)
async def test_what_is_not_executed_is_200_where_the_type_is_json(
    server: Served, query: str, more: dict[str, Any], code: str
):
    """Older clients take another status for a failure of the network."""
    answer = await post(server.port, query, {"Accept": JSON}, **more)
    assert (answer.status, answer.media_type) == (200, JSON)
    told(answer, code)


@pytest.mark.parametrize("accept", [GRAPHQL, JSON])
async def test_what_is_executed_is_200_whatever_comes_of_it(server: Served, accept: str):
    answer = await post(server.port, '{ sessions(after: "x") { totalCount } }', {"Accept": accept})
    assert answer.status == 200
    assert answer.json["data"] is None
    assert answer.codes == ["BAD_USER_INPUT"]


@pytest.mark.parametrize("accept", [GRAPHQL, JSON])
async def test_who_is_not_believed_is_401(server: Served, accept: str):
    headers = {"Accept": accept, "X-Session-ID": "not random"}
    answer = await post(server.port, ASK, headers)
    check_refused(answer, 401, "UNAUTHENTICATED")


# --- streams --------------------------------------------------------------------------


SUBSCRIPTION = "subscription { reply(messageId: 0) { __typename } }"
STREAMED = [
    ("text/event-stream", "text/event-stream"),
    (f"text/event-stream, {JSON};q=0.5", "text/event-stream"),
    (f"{JSON};q=0.5, text/event-stream", "text/event-stream"),
    ("text/event-stream, multipart/mixed;subscriptionSpec=1.0;q=0.9", "text/event-stream"),
    (MULTIPART, "multipart/mixed"),
    (APOLLO_SUBSCRIPTION, "multipart/mixed"),
    (APOLLO_3_SUBSCRIPTION, "multipart/mixed"),
    (
        f'{JSON};q=0.9, multipart/mixed; boundary="graphql"; subscriptionSpec="1.0"',
        "multipart/mixed",
    ),
]


@pytest.mark.parametrize(("accept", "expected"), STREAMED)
async def test_a_subscription_comes_as_the_stream_that_is_preferred(
    server: Served, accept: str, expected: str
):
    answer = await post(server.port, SUBSCRIPTION, {"Accept": accept})
    assert (answer.status, answer.media_type) == (200, expected)
    assert "ReplyRejected" in answer.text


@pytest.mark.parametrize("accept", [URQL, f"{GRAPHQL}, text/event-stream;q=0.1"])
async def test_a_subscription_comes_as_a_stream_where_that_is_accepted_at_all(
    server: Served, accept: str
):
    """Urql lists all that it can read in one order for all that it asks."""
    answer = await post(server.port, SUBSCRIPTION, {"Accept": accept})
    assert (answer.status, answer.media_type) == (200, "text/event-stream")


@pytest.mark.parametrize("accept", [None, "*/*", JSON, GRAPHQL, CHROME])
async def test_a_subscription_without_a_stream_is_refused(server: Served, accept: str | None):
    answer = await post(server.port, SUBSCRIPTION, {"Accept": accept})
    assert answer.media_type in (JSON, GRAPHQL)
    assert answer.codes == ["BAD_USER_INPUT"]
    assert "data" not in answer.json


async def test_a_query_may_come_as_an_event_stream(server: Served):
    """What graphql-sse does, which asks for nothing else."""
    answer = await post(server.port, ASK, {"Accept": "text/event-stream"})
    assert answer.media_type == "text/event-stream"
    assert answer.text == (
        f"event: next\ndata: {json.dumps(ASKED, separators=(',', ':'))}\n\n"
        "event: complete\ndata: \n\n"
    )


@pytest.mark.parametrize("query", ["subscription {", "subscription { nothing }"])
async def test_a_stream_that_cannot_begin_says_why(server: Served, query: str):
    """The specification of GraphQL over SSE asks for an event, since a browser sees no body."""
    answer = await post(server.port, query, {"Accept": "text/event-stream"})
    assert (answer.status, answer.media_type) == (200, "text/event-stream")
    assert "GRAPHQL_" in answer.text
    assert answer.text.endswith("event: complete\ndata: \n\n")


async def test_an_empty_operation_name_is_none(server: Served):
    """As GraphQL over HTTP has it: some clients always send the parameter."""
    target = "/graphql?query={__typename}&operationName=&variables="
    answer = await exchange(server.port, method="GET", target=target)
    assert answer.json == {"data": {"__typename": "Query"}}
    assert (await post(server.port, "{ __typename }", operationName="")).status == 200
