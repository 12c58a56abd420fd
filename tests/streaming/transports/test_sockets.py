"""Sockets: who speaks, what closes them, and what does not."""

from typing import Any
from uuid import uuid4

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from graphql_api import router
from tests.operations import until
from tests.streaming.scripted import ScriptedModel
from tests.streaming.transports.asking import ELSEWHERE, ended, message
from tests.streaming.transports.conftest import Live
from tests.streaming.wire import (
    FOLLOW,
    SEND,
    Served,
    another,
    opened,
)

pytestmark = pytest.mark.asyncio(loop_scope="package")


@pytest.mark.parametrize("name", ["sessionId", "X-Session-ID", "x-session-id"])
async def test_a_socket_says_who_it_is_in_its_first_message(
    server: Served, key: str, voices: ScriptedModel, name: str
):
    id = await ended(server, key, voices)
    async with opened(server.port) as socket:
        await socket.init(**{name: key})
        await socket.subscribe("1", FOLLOW, id=id)
        assert (await socket.rest())[-1]["__typename"] == "ReplyEnded"


@pytest.mark.parametrize(
    "payload", [{}, {"payload": None}, {"payload": {}}, {"payload": {"authorization": None}}]
)
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
