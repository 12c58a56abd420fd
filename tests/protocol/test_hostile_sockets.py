"""Sockets whose client is broken or hostile: each ends with its code, or hears of its mistake."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from graphql_api import router
from tests.streaming.wire import SEND, Served, Socket, opened

pytestmark = [
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.usefixtures("unharmed"),
]

HUGE = "9" * 5_000
DEEP = 20_000
LONG = "x" * 1_000
"A reason for closing has room for 123 bytes, which is easily forgotten when it quotes."
ASK = "query { event: viewer { isAnonymous } }"
BY_ID = "query ($id: ID!) { session(id: $id) { id } }"

Frame = str | bytes


def subscribing(**members: Any) -> str:
    """Write a subscribe message with some of its members changed; null leaves none out."""
    return json.dumps({"type": "subscribe", "id": "2", "payload": {"query": ASK}, **members})


def paying(**members: Any) -> str:
    """Write a subscribe message whose payload has some of its members changed."""
    return subscribing(payload={"query": ASK, **members})


@dataclass(frozen=True)
class Broken:
    """What is sent."""

    name: str
    frame: Frame


MESSAGES = [
    Broken("a list", "[]"),
    Broken("a number", "1"),
    Broken("a string", '"x"'),
    Broken("null", "null"),
    Broken("true", "true"),
    Broken("nothing", ""),
    Broken("no JSON", "subscribe"),
    Broken("truncated", subscribing()[:-9]),
    Broken("two messages", '{"type": "ping"} {"type": "ping"}'),
    Broken("binary", b'{"type": "ping"}'),
    Broken("binary that is no text", b"\xff\xfe\x00"),
    Broken("lists in lists", "[" * DEEP),
    Broken("objects in objects", '{"type":' * DEEP),
    Broken("a deep payload", '{"type": "ping", "payload": {"x": %s}}' % ("[" * DEEP + "]" * DEEP)),
    Broken("an integer of 5,000 digits", HUGE),
    Broken("a payload of 5,000 digits", '{"type": "ping", "payload": {"x": %s}}' % HUGE),  # noqa: UP031
    Broken("NaN", '{"type": "ping", "payload": {"x": NaN}}'),
]

TYPES = [
    Broken("no type", "{}"),
    Broken("a type that is null", '{"type": null}'),
    Broken("a type that is a number", '{"type": 1}'),
    Broken("a type that is a list", '{"type": ["subscribe"]}'),
    Broken("an unknown type", '{"type": "none"}'),
    Broken("a long type", json.dumps({"type": LONG})),
    Broken("a long type of long characters", json.dumps({"type": "\U0001f600" * 500})),
    Broken("a type of half a surrogate pair", '{"type": "\\ud800"}'),
    Broken("what only servers say", '{"type": "connection_ack"}'),
    Broken("what only servers say of an operation", '{"type": "next", "id": "1", "payload": {}}'),
    Broken("the legacy protocol's start", '{"type": "start", "id": "1", "payload": {}}'),
    Broken("a ping with a payload of text", '{"type": "ping", "payload": "x"}'),
]

SUBSCRIBES = [
    Broken("no id", json.dumps({"type": "subscribe", "payload": {"query": ASK}})),
    *(
        Broken(f"an id that is {id!r}", subscribing(id=id))
        for id in (None, 1, True, ["2"], {"a": 1}, "")
    ),
    Broken("no payload", json.dumps({"type": "subscribe", "id": "2"})),
    *(
        Broken(f"a payload that is {payload!r}", subscribing(payload=payload))
        for payload in (None, ASK, 1, [ASK], {"a": 1})
    ),
    *(
        Broken(f"a query that is {query!r}", paying(query=query))
        for query in (None, 1, [ASK], {"a": ASK})
    ),
    *(
        Broken(f"variables that are {variables!r}", paying(variables=variables))
        for variables in ("x", 1, False, [1])
    ),
    *(
        Broken(f"an operationName that is {name!r}", paying(operationName=name))
        for name in (1, ["A"], {"a": 1})
    ),
    *(
        Broken(f"extensions that are {extensions!r}", paying(extensions=extensions))
        for extensions in ("x", 1, [1])
    ),
    Broken("variables of 5,000 digits", paying(variables={"x": "HUGE"}).replace('"HUGE"', HUGE)),
    Broken("complete without an id", '{"type": "complete"}'),
    Broken("complete with a number", '{"type": "complete", "id": 1}'),
]

ROWS = [*MESSAGES, *TYPES, *SUBSCRIBES]


async def close_code(connection: ClientConnection) -> int:
    """Wait until the server closes; whatever it says before is passed over."""
    return await Socket(connection).close_code()


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
async def test_a_broken_message_closes_its_socket(server: Served, key: str, row: Broken):
    async with opened(server.port) as socket:
        await socket.init(sessionId=key)
        await socket.connection.send(row.frame)
        assert await socket.close_code() == 4400


async def test_text_that_is_no_utf8_is_1007(server: Served, key: str):
    """As the WebSocket protocol itself has it."""
    async with opened(server.port) as socket:
        await socket.init(sessionId=key)
        await socket.connection.send(b'{"type": "\xff"}', text=True)
        assert await socket.close_code() == 1007


# --- too early, too often, too late ---------------------------------------------------


@pytest.mark.parametrize("payload", ["[]", "1", '"x"', "true"])
async def test_an_init_with_another_payload_is_4400(server: Served, payload: str):
    async with opened(server.port) as socket:
        await socket.send(f'{{"type": "connection_init", "payload": {payload}}}')
        assert await socket.close_code() == 4400


@pytest.mark.parametrize(
    "payload",
    [
        {"sessionId": "x"},
        {"sessionId": ""},
        {"X-Session-ID": "00000000-0000-0000-0000-000000000000"},
        {"sessionId": "\ud800"},
        {"Authorization": "Bearer x"},
        {"authorization": "\ud800"},
        {"sessionId": 5},
        {"Authorization": ["Bearer", "x"]},
    ],
)
async def test_who_is_not_believed_is_4403(server: Served, payload: dict[str, Any]):
    async with opened(server.port) as socket:
        await socket.send({"type": "connection_init", "payload": payload})
        assert await socket.close_code() == 4403


async def test_a_bad_token_of_the_handshake_is_not_passed_over_for_a_key(server: Served, key: str):
    async with opened(server.port, headers={"Authorization": "Bearer x"}) as socket:
        await socket.send({"type": "connection_init", "payload": {"sessionId": key}})
        assert await socket.close_code() == 4403


async def test_a_subscribe_before_init_is_4401(server: Served):
    async with opened(server.port) as socket:
        await socket.send(subscribing())
        assert await socket.close_code() == 4401


async def test_a_second_init_is_4429(server: Served, key: str):
    async with opened(server.port) as socket:
        await socket.init(sessionId=key)
        await socket.send({"type": "connection_init"})
        assert await socket.close_code() == 4429


async def test_a_second_init_before_the_first_is_answered_is_4429(server: Served, key: str):
    async with opened(server.port) as socket:
        init = {"type": "connection_init", "payload": {"sessionId": key}}
        await asyncio.gather(socket.send(init), socket.send(init))
        assert await socket.close_code() == 4429


@pytest.mark.parametrize(
    "id", ["1", LONG, "\U0001f600" * 500, "\ud800"], ids=lambda id: repr(id[:5])
)
async def test_an_id_that_is_in_use_is_4409(server: Served, key: str, id: str):
    async with opened(server.port) as socket:
        await socket.init(sessionId=key)
        for _ in range(2):
            await socket.subscribe(id, SEND, input={"messageId": str(uuid4()), "content": "Hi"})
        assert await socket.close_code() == 4409


@pytest.mark.parametrize(
    "message",
    [{"type": "ping"}, {"type": "complete", "id": "1"}, json.loads(subscribing())],
    ids=["ping", "complete", "subscribe"],
)
async def test_a_flood_is_4429(server: Served, key: str, message: Any):
    """More than any client has to say at once, from one that does not even listen."""
    text = json.dumps(message)
    async with opened(server.port) as socket:
        await socket.init(sessionId=key)

        async def flood() -> None:
            for number in range(20_000):
                await socket.connection.send(text.replace('"2"', f'"{number}"'))

        flooding = asyncio.create_task(flood())
        code = await socket.close_code()
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
    assert code == 4429


async def test_silence_is_soon_4408():
    """That it is, is tested where the wait is shortened; that it is short, here."""
    assert router.CONNECTION_INIT_SECONDS <= 10


@pytest.mark.parametrize("protocols", [["graphql-ws"], ["nonsense"], []], ids=str)
async def test_another_protocol_is_4406(server: Served, protocols: list[str]):
    """Also the legacy one, of subscriptions-transport-ws."""
    subprotocols = [Subprotocol(name) for name in protocols] or None
    url = f"ws://127.0.0.1:{server.port}/graphql"
    async with connect(url, subprotocols=subprotocols, proxy=None) as connection:
        assert await close_code(connection) == 4406


async def test_of_two_protocols_ours_is_taken(server: Served):
    url = f"ws://127.0.0.1:{server.port}/graphql"
    both = [Subprotocol("graphql-ws"), Subprotocol("graphql-transport-ws")]
    async with connect(url, subprotocols=both, proxy=None) as connection:
        assert connection.subprotocol == "graphql-transport-ws"


async def test_no_socket_is_compressed(server: Served):
    """Compression costs 40 KiB a socket; this client offers it."""
    async with opened(server.port) as socket:
        assert socket.connection.response
        assert "Sec-WebSocket-Extensions" not in socket.connection.response.headers
