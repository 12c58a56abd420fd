"""Server-Sent Events and multipart: framing, silence, and readers that vanish."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from graphql_api import router
from graphql_api.auth import anonymous_viewer
from graphql_api.transports import HEARTBEAT_SECONDS, with_heartbeats
from tests.factories import make_document
from tests.operations import until
from tests.streaming.scripted import ScriptedModel, settled
from tests.streaming.transports.asking import ended, message, parts_of
from tests.streaming.transports.conftest import Live
from tests.streaming.wire import (
    FOLLOW,
    MULTIPART,
    PROGRESS,
    SEND,
    Http,
    Served,
)

pytestmark = pytest.mark.asyncio(loop_scope="package")


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


async def test_a_refusal_is_a_part_like_any_other(server: Served, key: str):
    stream = await Http.ask(server.port, key, "subscription { nothing }", accept=MULTIPART)
    [part] = await parts_of(stream)
    [error] = part["payload"]["errors"]
    assert error["extensions"]["code"] == "GRAPHQL_VALIDATION_FAILED"


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
