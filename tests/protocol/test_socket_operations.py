"""What goes wrong with one operation of a socket is that operation's alone."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from resolvers.events import Delta, StreamEvent
from resolvers.streams import ReplyStream
from tests.operations import until
from tests.streaming.scripted import ScriptedModel
from tests.streaming.wire import FOLLOW, SEND, Served, Socket, opened

pytestmark = [
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.usefixtures("unharmed"),
]

ASK = "query { event: viewer { isAnonymous } }"
BY_ID = "query ($id: ID!) { session(id: $id) { id } }"
INPUT = "BAD_USER_INPUT"


@dataclass(frozen=True)
class Mistaken:
    """What is subscribed to, and the code that its `error` message has; null: any but INTERNAL."""

    name: str
    code: str | None
    payload: dict[str, Any]


def mistaken(name: str, code: str | None, query: str, **members: Any) -> Mistaken:
    return Mistaken(name, code, {"query": query, **members})


MISTAKES = [
    mistaken("no GraphQL", "GRAPHQL_PARSE_FAILED", "subscription {"),
    mistaken("an empty document", "GRAPHQL_PARSE_FAILED", ""),
    mistaken("half a surrogate pair", "GRAPHQL_PARSE_FAILED", "{ \ud800 }"),
    mistaken("no such field", "GRAPHQL_VALIDATION_FAILED", "subscription { nothing }"),
    mistaken(
        "two fields to follow",
        "GRAPHQL_VALIDATION_FAILED",
        FOLLOW.replace("event:", "a: reply(messageId: $id) { __typename } event:"),
    ),
    mistaken("only a fragment", None, "fragment A on Query { __typename }"),
    mistaken("no such operation", INPUT, "query A { __typename }", operationName="B"),
    mistaken("a name of half a surrogate pair", INPUT, "{ __typename }", operationName="\ud800"),
    mistaken("which of two", INPUT, "query A { __typename } query B { __typename }"),
    mistaken("no variable", INPUT, FOLLOW, variables={}),
    mistaken("a null variable", INPUT, FOLLOW, variables={"id": None}),
    mistaken("a variable of another type", INPUT, FOLLOW, variables={"id": "x", "offset": "y"}),
    mistaken("a variable past 32 bits", INPUT, FOLLOW, variables={"id": "x", "offset": 2**40}),
    mistaken("a variable of half a surrogate pair", INPUT, BY_ID, variables={"id": {"\ud800": 1}}),
    mistaken("too deep to be read", None, "{a" * 900 + "}" * 900),
    mistaken("too many tokens", "QUERY_TOO_COMPLEX", "{" + " __typename" * 5_000 + "}"),
    mistaken("too long a page", INPUT, "{ sessions(first: 101) { totalCount } }"),
]


@pytest.mark.parametrize("row", MISTAKES, ids=[row.name for row in MISTAKES])
async def test_a_mistaken_operation_harms_no_other(
    server: Served, key: str, voices: ScriptedModel, row: Mistaken
):
    async with opened(server.port) as socket:
        await socket.init(sessionId=key)
        await socket.subscribe("1", SEND, input={"messageId": str(uuid4()), "content": "Question"})
        await socket.next()
        await socket.send({"type": "subscribe", "id": "2", "payload": row.payload})
        said = await socket.receive()
        assert (said["type"], said["id"]) == ("error", "2")
        codes = {error["extensions"]["code"] for error in said["payload"]}
        assert codes == {row.code} if row.code else "INTERNAL" not in codes
        voices["Question"].finish("Text.")
        assert (await socket.rest())[-1]["reply"]["content"] == "Text."


async def test_the_members_of_a_payload_may_be_null(server: Served, key: str):
    async with opened(server.port) as socket:
        await socket.init(sessionId=key)
        payload = {"query": ASK, "variables": None, "operationName": None, "extensions": None}
        await socket.send({"type": "subscribe", "id": "2", "payload": payload})
        assert await socket.rest("2") == [{"isAnonymous": True}]


async def test_an_id_of_half_a_surrogate_pair_is_given_back(server: Served, key: str):
    async with opened(server.port) as socket:
        await socket.init(sessionId=key)
        await socket.subscribe("\ud800", ASK)
        assert await socket.rest("\ud800") == [{"isAnonymous": True}]


async def test_completing_what_is_not_there_is_ignored(server: Served, key: str):
    async with opened(server.port) as socket:
        await socket.init(sessionId=key)
        await socket.send({"type": "complete", "id": "none"})
        await socket.subscribe("1", ASK)
        assert await socket.rest() == [{"isAnonymous": True}]


@pytest.mark.parametrize("payload", [{}, {"payload": {"sent": 1}}])
@pytest.mark.parametrize("is_known", [True, False], ids=["after init", "before init"])
async def test_a_ping_is_answered(
    server: Served, key: str, payload: dict[str, Any], is_known: bool
):
    async with opened(server.port) as socket:
        if is_known:
            await socket.init(sessionId=key)
        await socket.send({"type": "ping", **payload})
        assert (await socket.receive())["type"] == "pong"


async def test_a_pong_is_taken(server: Served, key: str):
    async with opened(server.port) as socket:
        await socket.init(sessionId=key)
        await socket.send({"type": "pong"})
        await socket.subscribe("1", ASK)
        assert await socket.rest() == [{"isAnonymous": True}]


async def test_one_operation_too_many_is_an_error_and_the_others_go_on(
    server: Served, key: str, voices: ScriptedModel
):
    input = {"messageId": str(uuid4()), "content": "Question"}
    async with opened(server.port) as socket:
        await socket.init(sessionId=key)
        await socket.subscribe("0", SEND, input=input)
        await socket.next("0")
        for number in range(1, 201):
            await socket.subscribe(str(number), SEND, input=input)
            said = await socket.receive()
            if said["type"] == "error":
                break
        else:
            raise AssertionError("200 operations at once were taken.")
        assert said["id"] == str(number)
        voices["Question"].finish("Text.")
        ended: set[str] = set()
        while len(ended) < number:
            said = await socket.receive()
            if said["type"] == "complete":
                ended.add(said["id"])


@asynccontextmanager
async def listening(server: Served) -> AsyncGenerator[Socket]:
    """Open a socket that takes messages of any length."""
    url, protocols = f"ws://127.0.0.1:{server.port}/graphql", [Subprotocol("graphql-transport-ws")]
    async with connect(url, subprotocols=protocols, max_size=None, proxy=None) as connection:
        yield Socket(connection)


async def test_a_reader_who_stalls_is_told_when_it_has_room(
    server: Served, key: str, voices: ScriptedModel, monkeypatch: pytest.MonkeyPatch
):
    """Nothing is queued for it in the meantime, beyond what fits into buffers."""
    told: list[int] = []
    follow = ReplyStream.follow

    async def counted(stream: ReplyStream, offset: int) -> AsyncGenerator[StreamEvent]:
        number = len(told)
        told.append(0)
        async with aclosing(follow(stream, offset)) as events:
            async for event in events:
                told[number] += len(event.text) if isinstance(event, Delta) else 0
                yield event

    monkeypatch.setattr(ReplyStream, "follow", counted)
    input = {"messageId": str(uuid4()), "content": "Question"}
    async with listening(server) as stalled, listening(server) as quick:
        for socket in (stalled, quick):
            await socket.init(sessionId=key)
            await socket.subscribe("1", SEND, input=input)
            await socket.next()
        await until(lambda: len(told) == 2)
        stalled.connection.transport.pause_reading()
        for _ in range(64):
            voices["Question"].say("a" * 2**18)
        voices["Question"].finish("b")
        await quick.rest()
        assert told[1] == 64 * 2**18 + 1
        assert told[0] < told[1]
        stalled.connection.transport.resume_reading()
        assert (await stalled.rest())[-1]["__typename"] == "ReplyEnded"
        assert told[0] == told[1]
