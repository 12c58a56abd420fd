"""The same streams over a socket, Server-Sent Events and multipart, on the wire."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from websockets.exceptions import ConnectionClosed, InvalidStatus

from db import documents
from db.engine import Database
from db.models import IngestionStatus, MessageStatus
from db.urls import parse_url
from graphql_api import router
from graphql_api.auth import anonymous_viewer
from graphql_api.settings import Settings
from graphql_api.transports import HEARTBEAT_SECONDS, with_heartbeats
from resolvers.events import StreamEvent
from resolvers.streams import ReplyStream
from tests.conftest import cloned
from tests.factories import make_document
from tests.operations import PATIENCE_SECONDS, until
from tests.streaming.scripted import ScriptedModel, settled
from tests.streaming.wire import (
    FOLLOW,
    MULTIPART,
    PROGRESS,
    SEND,
    Http,
    Served,
    another,
    opened,
    served,
)

SEND_BY_MUTATION = """mutation ($input: SendMessageInput!) {
  event: sendMessage(input: $input) { ... on SendMessageSuccess { reply { id content status } } }
}"""
KINDS = ["socket", "sse", "multipart"]
ELSEWHERE = "https://elsewhere.example"


class Live:
    """How many generators are following some stream."""

    def __init__(self) -> None:
        self.count = 0


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(
    postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Served]:
    """One server for all of these tests; each has viewers of its own."""
    settings = Settings.model_construct(
        data_dir=tmp_path_factory.mktemp("transports") / "data",
        allowed_origins=frozenset({ELSEWHERE}),
        shutdown_grace_seconds=0.1,
    )
    async with cloned(postgres_url) as url:
        database = Database(parse_url(url))
        async with served(settings, database) as server:
            yield server
        await database.close()


@pytest_asyncio.fixture(loop_scope="module")
async def voices(server: Served) -> AsyncGenerator[ScriptedModel]:
    """The server's model, silent at first, and with nothing to say in the end."""
    server.model.voices.clear()
    yield server.model
    for run in server.services.running._runs.values():
        run.stop(MessageStatus.STOPPED)
    await until(lambda: not server.services.running._runs)


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> Live:
    live, follow = Live(), ReplyStream.follow

    async def counted(stream: ReplyStream, offset: int) -> AsyncGenerator[StreamEvent]:
        live.count += 1
        try:
            async with aclosing(follow(stream, offset)) as events:
                async for event in events:
                    yield event
        finally:
            live.count -= 1

    monkeypatch.setattr(ReplyStream, "follow", counted)
    return live


@pytest.fixture
def key() -> str:
    return str(uuid4())


def message(content: str = "Question", **more: str) -> dict[str, str]:
    return {"messageId": str(uuid4()), "content": content, **more}


async def ended(server: Served, key: str, voices: ScriptedModel, text: str = "Done.") -> str:
    """Have a reply written, and give its id."""
    voices["Ended"].finish(text)
    stream = await Http.ask(server.port, key, SEND, input=message("Ended"))
    return (await stream.rest())[-1]["reply"]["id"]


# --- the same on each -----------------------------------------------------------------


async def all_of(
    kind: str, server: Served, key: str, query: str, **variables: Any
) -> list[dict[str, Any]]:
    """Subscribe, and give all payloads."""
    if kind == "socket":
        async with opened(server.port) as socket:
            await socket.init(sessionId=key)
            await socket.subscribe("1", query, **variables)
            payloads: list[dict[str, Any]] = []
            while (said := await socket.receive())["type"] == "next":
                payloads.append(said["payload"])
            if said["type"] == "error":
                payloads.append({"errors": said["payload"]})
            return payloads
    if kind == "sse":
        stream = await Http.ask(server.port, key, query, **variables)
        assert stream.headers["content-type"].startswith("text/event-stream")
        events = [event async for event in _events(stream)]
        assert events[-1][0] == "complete"
        return [data for kind, data in events if kind == "next"]
    stream = await Http.ask(server.port, key, query, accept=MULTIPART, **variables)
    assert stream.headers["content-type"].startswith("multipart/mixed")
    parts = await parts_of(stream)
    return [part["payload"] for part in parts if part.get("payload")]


async def _events(stream: Http) -> AsyncGenerator[tuple[str, Any]]:
    while event := await stream.sse():
        yield event
    stream.abort()


async def parts_of(stream: Http) -> list[dict[str, Any]]:
    """Read the parts of a multipart answer, as Apollo Client frames them."""
    body = (await stream.body()).decode()
    boundary = stream.headers["content-type"].split("boundary=")[1].split(";")[0].strip('"')
    *parts, tail = body.split(f"--{boundary}")
    assert tail == "--\r\n"
    contents: list[dict[str, Any]] = []
    for part in filter(str.strip, parts):
        fields, _, content = part.strip("\r\n").partition("\r\n\r\n")
        assert "application/json" in fields.lower()
        contents.append(json.loads(content))
    return contents


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


# --- Server-Sent Events ---------------------------------------------------------------


async def test_pieces_are_sent_as_they_come(server: Served, key: str, voices: ScriptedModel):
    stream = await Http.ask(server.port, key, SEND, input=message())
    await stream.next()
    for piece in ("One", ", two", ", three"):
        voices["Question"].say(piece)
        assert (await stream.next())["text"] == piece
    voices["Question"].finish()
    assert (await stream.rest())[-1]["__typename"] == "ReplyEnded"


async def test_events_are_framed_by_line_feeds_and_not_compressed(
    server: Served, key: str, voices: ScriptedModel
):
    voices["Question"].finish("Text.")
    stream = await Http.ask(
        server.port, key, SEND, input=message(), headers={"Accept-Encoding": "gzip, br"}
    )
    assert "content-encoding" not in stream.headers
    body = await stream.body()
    assert b"\r" not in body
    assert body.endswith(b"event: complete\ndata: \n\n")


@pytest.mark.parametrize("query", [FOLLOW, PROGRESS])
async def test_following_by_get(server: Served, key: str, voices: ScriptedModel, query: str):
    id = await ended(server, key, voices)
    if query == PROGRESS:
        id = str(await make_document(server.database, owner=anonymous_viewer(key)))
    stream = await Http.ask(server.port, key, query, method="GET", id=id)
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert await stream.rest()


async def test_sending_by_get_is_refused(server: Served, key: str, voices: ScriptedModel):
    stream = await Http.ask(server.port, key, SEND, method="GET", input=message())
    [event] = await stream.rest()
    assert [error["extensions"]["code"] for error in event["errors"]] == ["BAD_USER_INPUT"]
    assert not voices["Question"].calls


@pytest.mark.parametrize(
    "accept",
    [
        "application/json, text/event-stream",
        "application/graphql-response+json, application/graphql+json, application/json,"
        " text/event-stream, multipart/mixed",  # urql
        "text/event-stream;q=0.5, application/json",
        "*/*",
        "",
    ],
)
async def test_queries_are_answered_as_their_client_prefers(server: Served, key: str, accept: str):
    answer = await Http.ask(server.port, key, "{ viewer { isAnonymous } }", accept=accept)
    assert "json" in answer.headers["content-type"]
    assert (await answer.json())["data"] == {"viewer": {"isAnonymous": True}}


async def test_a_silent_stream_has_heartbeats(
    server: Served, key: str, voices: ScriptedModel, monkeypatch: pytest.MonkeyPatch
):
    def quick(messages: Any, heartbeat: Any, _: float) -> AsyncGenerator[str]:
        return with_heartbeats(messages, heartbeat, 0.02)

    monkeypatch.setattr(router, "with_heartbeats", quick)
    stream = await Http.ask(server.port, key, SEND, input=message())
    await stream.next()
    for _ in range(3):
        kind, _ = await stream.sse() or ("", None)
        assert kind == ":"
    voices["Question"].finish("Text.")
    assert (await stream.rest())[-1]["__typename"] == "ReplyEnded"


async def test_heartbeats_come_often_enough():
    assert HEARTBEAT_SECONDS <= 15


@pytest.mark.parametrize("accept", ["text/event-stream", MULTIPART])
async def test_readers_that_vanish_leave_nothing_behind(
    server: Served, key: str, voices: ScriptedModel, live: Live, accept: str
):
    input = message()
    streams = await asyncio.gather(
        *(Http.ask(server.port, key, SEND, accept=accept, input=input) for _ in range(20))
    )
    voices["Question"].say("Text")
    for stream in streams:
        assert await stream.until(b"Text") is not None
    assert live.count == 20
    for stream in streams:
        stream.abort()
    await until(lambda: live.count == 0)
    voices["Question"].finish(", to the end")
    last = await Http.ask(server.port, key, SEND, input=input)
    assert (await last.rest())[-1]["reply"]["content"] == "Text, to the end"


async def test_a_reader_that_vanishes_while_the_server_is_sending_leaves_nothing_behind(
    server: Served, key: str, voices: ScriptedModel, live: Live
):
    """It never read: the server waits for room in the socket's buffer."""
    stream = await Http.ask(server.port, key, SEND, input=message())
    stream.writer.transport.pause_reading()  # type: ignore[attr-defined]
    for _ in range(64):
        voices["Question"].say("a" * 2**18)
    await until(lambda: not voices["Question"].said.qsize())
    assert live.count == 1
    stream.abort()
    await until(lambda: live.count == 0)


async def test_a_stalled_reader_slows_nobody_and_gets_all_in_the_end(
    server: Served, key: str, voices: ScriptedModel
):
    input = message()
    stalled = await Http.ask(server.port, key, SEND, input=input)
    await stalled.next()
    stalled.writer.transport.pause_reading()  # type: ignore[attr-defined]
    quick = await Http.ask(server.port, key, SEND, input=input)
    await quick.next()
    text = "a" * 2**18
    for _ in range(32):
        voices["Question"].say(text)
    voices["Question"].finish("b")
    whole = 32 * text + "b"
    for reader in (quick, stalled):
        if reader is stalled:
            stalled.writer.transport.resume_reading()  # type: ignore[attr-defined]
        events = await reader.rest()
        assert "".join(event.get("text", "") for event in events) == whole
        assert events[-1]["reply"]["status"] == "COMPLETE"


async def test_a_reader_that_vanishes_before_the_first_event_leaves_nothing_behind(
    server: Served, key: str, voices: ScriptedModel, live: Live
):
    for _ in range(10):
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        body = json.dumps({"query": SEND, "variables": {"input": message()}}).encode()
        lines = [
            "POST /graphql HTTP/1.1",
            "Host: x",
            f"X-Session-ID: {key}",
            "Accept: text/event-stream",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()
        writer.transport.abort()
    await until(lambda: not server.services.running._runs or voices["Question"].calls > 0)
    await settled()
    await until(lambda: live.count == 0)


# --- sockets --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sessionId", "X-Session-ID", "x-session-id"])
async def test_a_socket_says_who_it_is_in_its_first_message(
    server: Served, key: str, voices: ScriptedModel, name: str
):
    id = await ended(server, key, voices)
    async with opened(server.port) as socket:
        await socket.init(**{name: key})
        await socket.subscribe("1", FOLLOW, id=id)
        assert (await socket.rest())[-1]["__typename"] == "ReplyEnded"


@pytest.mark.parametrize("payload", [{}, {"payload": None}, {"payload": {}}])
async def test_a_socket_may_say_nothing_of_itself(
    server: Served, key: str, voices: ScriptedModel, payload: dict[str, Any]
):
    id = await ended(server, key, voices)
    async with opened(server.port, headers={"X-Session-ID": key}) as socket:
        await socket.send({"type": "connection_init", **payload})
        assert (await socket.receive())["type"] == "connection_ack"
        await socket.subscribe("1", FOLLOW, id=id)
        assert (await socket.rest())[-1]["__typename"] == "ReplyEnded"


async def test_a_bad_key_is_4403(server: Served):
    async with opened(server.port) as socket:
        await socket.send({"type": "connection_init", "payload": {"sessionId": "not random"}})
        assert await socket.close_code() == 4403


async def test_subscribing_before_init_is_4401(server: Served):
    async with opened(server.port) as socket:
        await socket.subscribe("1", FOLLOW, id=str(uuid4()))
        assert await socket.close_code() == 4401


async def test_a_second_init_is_4429(server: Served, key: str):
    async with opened(server.port) as socket:
        await socket.init(sessionId=key)
        await socket.send({"type": "connection_init", "payload": {"sessionId": key}})
        assert await socket.close_code() == 4429


@pytest.mark.parametrize(
    "nonsense", ["[]", "1", '"x"', "null", "{", "{}", '{"type": "none"}', '{"type": ["subscribe"]}']
)
async def test_nonsense_is_4400(server: Served, key: str, nonsense: str):
    async with opened(server.port) as socket:
        await socket.init(sessionId=key)
        await socket.send(nonsense)
        assert await socket.close_code() == 4400


@pytest.mark.parametrize(
    "subscribe",
    [
        {"id": {}, "payload": {"query": "{ viewer { id } }"}},
        {"id": "2"},
        {"id": "2", "payload": None},
        {"id": "2", "payload": "{ viewer { id } }"},
        {"id": "2", "payload": {"query": 1}},
    ],
)
async def test_a_malformed_subscribe_is_4400_or_an_error(
    server: Served, key: str, subscribe: dict[str, Any]
):
    async with opened(server.port) as socket:
        await socket.init(sessionId=key)
        await socket.send({"type": "subscribe", **subscribe})
        try:
            said = await socket.receive()
        except ConnectionClosed as closed:
            code = closed.rcvd and closed.rcvd.code
        else:
            code = 4400 if said["type"] == "error" else None
        assert code == 4400


@pytest.mark.parametrize(
    "payload",
    [
        {"query": "subscription {"},
        {"query": "subscription { nothing }"},
        {"query": "query A { viewer { id } }", "operationName": "B"},
        {"query": ""},
        {"query": FOLLOW, "variables": {}},
        {"query": FOLLOW, "variables": {"id": "x", "offset": "y"}},
    ],
)
async def test_an_operations_error_leaves_the_socket_and_its_other_streams_alone(
    server: Served, key: str, voices: ScriptedModel, payload: dict[str, Any]
):
    async with opened(server.port) as socket:
        await socket.init(sessionId=key)
        await socket.subscribe("1", SEND, input=message())
        await socket.next()
        await socket.send({"type": "subscribe", "id": "2", "payload": payload})
        said = await socket.receive()
        assert said["id"] == "2"
        assert said["type"] == "error", said
        assert all("code" in error["extensions"] for error in said["payload"])
        voices["Question"].finish("Text.")
        assert (await socket.rest())[-1]["reply"]["content"] == "Text."
        await socket.subscribe("2", "query { event: viewer { isAnonymous } }")
        assert (await socket.rest("2")) == [{"isAnonymous": True}]


async def test_a_duplicate_id_is_4409(server: Served, key: str):
    async with opened(server.port) as socket:
        await socket.init(sessionId=key)
        for _ in range(2):
            await socket.subscribe("1", SEND, input=message())
        assert await socket.close_code() == 4409


async def test_an_id_may_be_used_again_after_its_end(
    server: Served, key: str, voices: ScriptedModel
):
    id = await ended(server, key, voices)
    async with opened(server.port) as socket:
        await socket.init(sessionId=key)
        for _ in range(3):
            await socket.subscribe("1", FOLLOW, id=id)
            assert (await socket.rest())[-1]["__typename"] == "ReplyEnded"


async def test_silence_is_4408(server: Served, monkeypatch: pytest.MonkeyPatch):
    assert router.CONNECTION_INIT_SECONDS <= 10
    monkeypatch.setattr(router, "CONNECTION_INIT_SECONDS", 0.1)
    async with another(server) as other, opened(other.port) as socket:
        assert await socket.close_code() == 4408


@pytest.mark.parametrize(
    ("origin", "is_taken"),
    [("own", True), (None, True), (ELSEWHERE, True), ("https://evil.example", False)],
)
async def test_pages_of_other_origins_are_refused(
    server: Served, key: str, origin: str | None, is_taken: bool
):
    origin = server.origin if origin == "own" else origin
    if is_taken:
        async with opened(server.port, origin=origin) as socket:
            await socket.init(sessionId=key)
    else:
        with pytest.raises(InvalidStatus):
            async with opened(server.port, origin=origin):
                pass


async def test_a_star_allows_every_origin(server: Served, key: str):
    async with (
        another(server, allowed_origins=frozenset({"*"})) as other,
        opened(other.port, origin="https://any.example") as socket,
    ):
        await socket.init(sessionId=key)


async def test_an_operation_too_many_is_an_error_and_the_others_go_on(
    server: Served, key: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(router, "OPERATIONS_PER_SOCKET", 2)
    async with another(server) as other, opened(other.port) as socket:
        await socket.init(sessionId=key)
        for id in ("1", "2"):
            await socket.subscribe(id, SEND, input=message(id))
            await socket.next(id)
        await socket.subscribe("3", SEND, input=message("3"))
        said = await socket.receive()
        assert (said["type"], said["id"]) == ("error", "3")
        assert not other.model["3"].calls
        other.model["1"].finish("Text.")
        assert (await socket.rest("1"))[-1]["reply"]["content"] == "Text."


async def test_completing_ends_the_following_and_not_the_reply(
    server: Served, key: str, voices: ScriptedModel, live: Live
):
    async with opened(server.port) as socket:
        await socket.init(sessionId=key)
        await socket.subscribe("1", SEND, input=message())
        id = (await socket.next())["reply"]["id"]
        await until(lambda: live.count == 1)
        await socket.send({"type": "complete", "id": "1"})
        await until(lambda: live.count == 0)
        voices["Question"].finish("Text.")
        await socket.subscribe("2", FOLLOW, id=id)
        assert (await socket.rest("2"))[-1]["reply"]["content"] == "Text."


async def test_a_socket_that_vanishes_leaves_nothing_behind(
    server: Served, key: str, voices: ScriptedModel, live: Live
):
    async with opened(server.port) as socket:
        await socket.init(sessionId=key)
        await socket.subscribe("1", SEND, input=message())
        voices["Question"].say("Text")
        await socket.next()
        await socket.has("Text")
        assert live.count == 1
        socket.connection.transport.abort()
        await until(lambda: live.count == 0)


async def test_each_event_of_a_socket_is_read_afresh(
    server: Served, key: str, voices: ScriptedModel
):
    """One socket has one context; what an earlier event had read is not told again."""
    query = """subscription ($input: SendMessageInput!) { event: sendMessage(input: $input) {
      ... on ReplyStarted { reply { session { activeReply { id } lastMessage { status } } } }
      ... on ReplyEnded { reply { session { activeReply { id } lastMessage { status } } } } } }"""
    async with opened(server.port) as socket:
        await socket.init(sessionId=key)
        await socket.subscribe("1", query, input=message())
        started = await socket.next()
        voices["Question"].finish("Text.")
        end = (await socket.rest())[-1]
    assert started["reply"]["session"]["activeReply"]
    assert started["reply"]["session"]["lastMessage"] == {"status": "STREAMING"}
    assert end["reply"]["session"] == {"activeReply": None, "lastMessage": {"status": "COMPLETE"}}
