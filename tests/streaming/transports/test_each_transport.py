"""The same streams over a socket, Server-Sent Events and multipart, on the wire."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest

from db import documents
from db.models import IngestionStatus
from graphql_api.auth import anonymous_viewer
from tests.factories import make_document
from tests.operations import PATIENCE_SECONDS, until
from tests.streaming.scripted import ScriptedModel
from tests.streaming.transports.asking import all_of, ended, message
from tests.streaming.wire import (
    FOLLOW,
    MULTIPART,
    PROGRESS,
    SEND,
    Http,
    Served,
    another,
    opened,
)

SEND_BY_MUTATION = """mutation ($input: SendMessageInput!) {
  event: sendMessage(input: $input) { ... on SendMessageSuccess { reply { id content status } } }
}"""
KINDS = ["socket", "sse", "multipart"]

pytestmark = pytest.mark.asyncio(loop_scope="package")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_turn_is_streamed(kind: str, server: Served, key: str, voices: ScriptedModel):
    voices["Question"].search("leases")
    voices["Question"].finish("One 😀", ", two")
    payloads = await all_of(kind, server, key, SEND, input=message())
    events = [payload["data"]["event"] for payload in payloads]
    assert [event["__typename"] for event in events] == [
        "ReplyStarted",
        "ReplySearched",
        "ReplyDelta",
        "ReplyDelta",
        "ReplyEnded",
    ]
    started, searched, one, two, end = events
    assert started["userMessage"]["content"] == "Question"
    assert searched["query"] == "leases"
    assert (one["offset"], one["text"]) == (0, "One 😀")
    assert (two["offset"], two["text"]) == (6, ", two")
    assert end["reply"] == {
        "id": started["reply"]["id"],
        "content": "One 😀, two",
        "status": "COMPLETE",
    }


@pytest.mark.parametrize("kind", KINDS)
async def test_a_reply_is_followed_from_an_offset(
    kind: str, server: Served, key: str, voices: ScriptedModel
):
    id = await ended(server, key, voices, "One 😀, two")
    payloads = await all_of(kind, server, key, FOLLOW, id=id, offset=6)
    texts = [payload["data"]["event"].get("text") for payload in payloads]
    assert texts == [None, ", two", None]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("query", "variables", "expected"),
    [
        (FOLLOW, {"id": str(uuid4())}, {"__typename": "NotFound"}),
        (FOLLOW, {"id": "none"}, {"__typename": "NotFound"}),
        (SEND, {"input": {"content": "Hi"}}, {"__typename": "InvalidInput", "field": "messageId"}),
        (SEND, {"input": message(""), "offset": 0}, {"field": "content"}),
        (SEND, {"input": message(), "offset": -1}, {"field": "offset"}),
    ],
)
async def test_what_is_refused_is_rejected_in_place_of_all_else(
    kind: str,
    server: Served,
    key: str,
    query: str,
    variables: dict[str, Any],
    expected: dict[str, str],
):
    [payload] = await all_of(kind, server, key, query, **variables)
    event = payload["data"]["event"]
    assert event["__typename"] == "ReplyRejected"
    assert expected.items() <= event["error"].items()


@pytest.mark.parametrize("kind", KINDS)
async def test_anothers_reply_is_not_found(
    kind: str, server: Served, key: str, voices: ScriptedModel
):
    id = await ended(server, key, voices)
    [payload] = await all_of(kind, server, str(uuid4()), FOLLOW, id=id)
    assert payload["data"]["event"]["error"]["__typename"] == "NotFound"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_document_is_followed_from_pending_to_ready(
    kind: str, server: Served, key: str, monkeypatch: pytest.MonkeyPatch
):
    is_read, document = asyncio.Event(), documents.document

    async def read(*arguments: Any) -> Any:
        row = await document(*arguments)
        is_read.set()
        return row

    monkeypatch.setattr(documents, "document", read)
    id = await make_document(
        server.database, owner=anonymous_viewer(key), status=IngestionStatus.PENDING
    )
    following = asyncio.create_task(all_of(kind, server, key, PROGRESS, id=str(id)))
    async with asyncio.timeout(PATIENCE_SECONDS):
        await is_read.wait()
    server.services.ingestion.take_up(id)
    events = [payload["data"]["event"] for payload in await following]
    states = [event["status"] for event in events]
    assert (states[0], states[-1]) == ("PENDING", "READY")
    assert states == sorted(states, key=["PENDING", "PROCESSING", "READY"].index)
    assert events[-1]["chunkCount"] > 0


@pytest.mark.parametrize("kind", KINDS)
async def test_anothers_document_is_an_error_not_found(kind: str, server: Served, key: str):
    id = await make_document(server.database, owner=anonymous_viewer(str(uuid4())))
    for each in (str(id), str(uuid4()), "none"):
        [payload] = await all_of(kind, server, key, PROGRESS, id=each)
        assert [error["extensions"]["code"] for error in payload["errors"]] == ["NOT_FOUND"]


@pytest.mark.parametrize("kind", KINDS)
async def test_who_has_not_said_who_they_are_gets_no_stream(kind: str, server: Served):
    if kind == "socket":
        async with opened(server.port) as socket:
            await socket.init()
            await socket.subscribe("1", FOLLOW, id=str(uuid4()))
            said = await socket.receive()
            errors = said["payload"] if said["type"] == "error" else said["payload"]["errors"]
    else:
        accept = "text/event-stream" if kind == "sse" else MULTIPART
        answer = await Http.ask(server.port, None, FOLLOW, accept=accept, id=str(uuid4()))
        body = await answer.body()
        errors = json.loads(body[body.index(b'{"') :].splitlines()[0])
        errors = errors.get("payload", errors)["errors"]
    assert [error["extensions"]["code"] for error in errors] == ["UNAUTHENTICATED"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_goes_down_takes_no_turn(
    kind: str, server: Served, key: str, voices: ScriptedModel, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(server.services.turns, "_is_refusing", True)
    [payload] = await all_of(kind, server, key, SEND, input=message())
    assert [error["extensions"]["code"] for error in payload["errors"]] == ["UNAVAILABLE"]
    assert not voices["Question"].calls


async def test_a_server_that_goes_down_answers_503_and_when_to_come_again(
    server: Served, key: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(server.services.turns, "_is_refusing", True)
    answer = await Http.ask(
        server.port, key, SEND_BY_MUTATION, accept="application/json", input=message()
    )
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) > 0
    assert (await answer.json())["errors"][0]["extensions"]["code"] == "UNAVAILABLE"


async def test_a_message_sent_many_times_in_all_ways_is_one_turn(
    server: Served, key: str, voices: ScriptedModel
):
    """Fifty at once: by mutation, socket and event stream, on two replicas."""
    input = message()
    async with another(server) as other:

        async def send(number: int) -> Any:
            where = (server, other)[number % 2]
            if number % 5 == 0:
                return (await all_of("socket", where, key, SEND, input=input))[-1]["data"]
            if number % 5 == 1:
                return (await all_of("sse", where, key, SEND, input=input))[-1]["data"]
            answer = await Http.ask(
                where.port, key, SEND_BY_MUTATION, accept="application/json", input=input
            )
            return (await answer.json())["data"]

        sending = asyncio.gather(*(send(number) for number in range(50)))
        await until(lambda: voices["Question"].calls > 0)
        voices["Question"].finish("The same.")
        replies = [answer["event"]["reply"] for answer in await sending]
    assert len({reply["id"] for reply in replies}) == 1
    assert {reply["content"] for reply in replies} == {"The same."}
    assert voices["Question"].calls == 1


async def test_subscribing_again_joins_what_is_under_way(
    server: Served, key: str, voices: ScriptedModel
):
    """What graphql-sse and graphql-ws do by themselves after a lost connection."""
    input = message()
    first = await Http.ask(server.port, key, SEND, input=input)
    voices["Question"].say("One, 😀")
    await first.has("😀")
    first.abort()
    again = await Http.ask(server.port, key, SEND, input=input, offset=7)
    await again.next()
    voices["Question"].finish(", two")
    events = await again.rest()
    assert [event.get("text") for event in events] == [", two", None]
    assert events[-1]["reply"]["content"] == "One, 😀, two"
    assert voices["Question"].calls == 1
