"""Reads end when nobody waits for them, or after so long; what writes is seen through.

A table that is locked is what keeps a statement waiting: in Postgres, as in life.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from sqlalchemy import text

from db.engine import Database
from tests.operations import PATIENCE_SECONDS, until
from tests.protocol.exchange import JSON, Exchange, address, post
from tests.streaming.scripted import ScriptedModel, sql
from tests.streaming.wire import Http, Served, another, opened

pytestmark = [
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.usefixtures("unharmed"),
]

READ = "{ sessions { edges { node { id } } } }"
SEND = """subscription ($input: SendMessageInput!) { event: sendMessage(input: $input) {
  __typename ... on ReplyEnded { reply { content } } } }"""


@pytest_asyncio.fixture(loop_scope="package")
async def hasty(server: Served) -> AsyncGenerator[Served]:
    async with another(server, query_timeout_seconds=0.2) as hasty:
        yield hasty


@asynccontextmanager
async def locked(server: Served, table: str = "chat_sessions") -> AsyncGenerator[None]:
    """Let every statement on a table wait."""
    behind_its_back = Database(server.database.url, pool_size=1)
    async with behind_its_back.transaction() as transaction:
        statement = text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        await transaction.rows(statement, {})
        yield
    await behind_its_back.close()


async def waiting(server: Served) -> int:
    """Count the statements that wait for a lock."""
    query = "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database"
    [[count]] = await sql(
        server.database, f"{query} WHERE NOT granted AND d.datname = current_database()"
    )
    return count


async def waits(server: Served, count: int) -> None:
    """Wait until so many statements wait for a lock."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await waiting(server) != count:  # noqa: ASYNC110 - Postgres does not say when
            await asyncio.sleep(0.01)


@asynccontextmanager
async def begun(
    server: Served, key: str, query: str, method: str = "POST"
) -> AsyncGenerator[Exchange]:
    """Send an operation, and do not wait for its answer; at the block's end, leave."""
    body = json.dumps({"query": query}).encode() if method == "POST" else b""
    headers = {"X-Session-ID": key, "Content-Type": JSON, "Content-Length": str(len(body))}
    target = "/graphql" if method == "POST" else address(query)
    request = await Exchange.begin(server.port, method=method, target=target, headers=headers)
    try:
        request.send(body)
        yield request
    finally:
        request.abort()


def create(title: str) -> str:
    return f'mutation {{ createSession(input: {{title: "{title}"}}) {{ __typename }} }}'


async def titles(server: Served, key: str) -> list[str]:
    query = "{ sessions { edges { node { title } } } }"
    answer = await post(server.port, query, {"X-Session-ID": key})
    return [edge["node"]["title"] for edge in answer.json["data"]["sessions"]["edges"]]


# --- who goes away --------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_read_ends_with_its_reader(server: Served, key: str, method: str):
    async with locked(server):
        async with begun(server, key, READ, method):
            await waits(server, 1)
        await waits(server, 0)
        await until(lambda: server.database.pool.in_use == 0)
    assert await titles(server, key) == []


async def test_many_readers_that_go_leave_every_connection_free(server: Served, key: str):
    """More of them than there are connections."""
    async with locked(server):
        async with AsyncExitStack() as readers:
            for _ in range(30):
                await readers.enter_async_context(begun(server, key, READ))
            pool = server.database.pool
            await until(lambda: server.database.pool.in_use == pool.size + pool.max_overflow)
        await until(lambda: server.database.pool.in_use == 0)
    answers = await asyncio.gather(*(post(server.port, READ) for _ in range(30)))
    assert {answer.status for answer in answers} == {200}


async def would_have_ended(server: Served, key: str) -> None:
    """Wait until a read that came later, and left later, has ended."""
    async with begun(server, key, READ):
        await waits(server, 2)
    await waits(server, 1)


async def test_a_write_outlives_its_client(server: Served, key: str):
    async with locked(server):
        async with begun(server, key, create("Kept")):
            await waits(server, 1)
        await would_have_ended(server, key)
    await until(lambda: server.database.pool.in_use == 0)
    assert await titles(server, key) == ["Kept"]


async def test_a_query_of_a_socket_ends_with_the_socket(server: Served, key: str):
    async with locked(server):
        async with opened(server.port) as socket:
            await socket.init(sessionId=key)
            await socket.subscribe("1", READ)
            await waits(server, 1)
            socket.connection.transport.abort()
        await waits(server, 0)
        await until(lambda: server.database.pool.in_use == 0)


async def test_a_query_of_a_socket_ends_when_it_is_completed(server: Served, key: str):
    async with locked(server), opened(server.port) as socket:
        await socket.init(sessionId=key)
        await socket.subscribe("1", READ)
        await waits(server, 1)
        await socket.send({"type": "complete", "id": "1"})
        await waits(server, 0)
        await socket.send({"type": "ping"})
        assert (await socket.receive())["type"] == "pong"


async def test_a_mutation_of_a_socket_outlives_the_socket(server: Served, key: str):
    async with locked(server):
        async with opened(server.port) as socket:
            await socket.init(sessionId=key)
            await socket.subscribe("1", create("Kept"))
            await waits(server, 1)
            socket.connection.transport.abort()
        await would_have_ended(server, key)
    await until(lambda: server.database.pool.in_use == 0)
    assert await titles(server, key) == ["Kept"]


# --- what takes too long --------------------------------------------------------------


async def timed_out(server: Served, key: str) -> Any:
    answer = await post(server.port, READ, {"X-Session-ID": key})
    [error] = answer.json["errors"]
    assert error["extensions"] == {"code": "TIMEOUT"}
    return error


async def test_a_query_that_takes_too_long_is_ended(hasty: Served, key: str):
    async with locked(hasty):
        error = await timed_out(hasty, key)
        assert "0.2" in error["message"]
        assert await waiting(hasty) == 0
        assert hasty.database.pool.in_use == 0
    assert await titles(hasty, key) == []


async def test_a_query_on_a_socket_that_takes_too_long_is_ended(hasty: Served, key: str):
    async with locked(hasty), opened(hasty.port) as socket:
        await socket.init(sessionId=key)
        await socket.subscribe("1", READ)
        said = await socket.receive()
        errors = said["payload"] if said["type"] == "error" else said["payload"]["errors"]
        assert [error["extensions"]["code"] for error in errors] == ["TIMEOUT"]


async def test_a_mutation_may_take_longer(hasty: Served, key: str):
    async with AsyncExitStack() as stack:
        async with locked(hasty):
            request = await stack.enter_async_context(begun(hasty, key, create("Late")))
            await waits(hasty, 1)
            await timed_out(hasty, key)  # so the mutation has waited for as long
        answer = await request.answer()
    assert answer.json == {"data": {"createSession": {"__typename": "CreateSessionSuccess"}}}


@pytest.mark.parametrize("kind", ["event stream", "socket"])
async def test_a_subscription_may_take_longer(
    hasty: Served, key: str, voices: ScriptedModel, kind: str
):
    input = {"messageId": str(uuid4()), "content": "Question"}
    async with opened(hasty.port) as socket:
        if kind == "socket":
            await socket.init(sessionId=key)
            await socket.subscribe("1", SEND, input=input)
            stream: Any = socket
        else:
            stream = await Http.ask(hasty.port, key, SEND, input=input)
        await stream.next()
        async with locked(hasty):
            await timed_out(hasty, key)
        voices["Question"].finish("At last.")
        assert (await stream.rest())[-1]["reply"]["content"] == "At last."


async def test_a_query_in_an_event_stream_that_takes_too_long_is_ended(hasty: Served, key: str):
    headers = {"X-Session-ID": key, "Accept": "text/event-stream"}
    async with locked(hasty):
        answer = await post(hasty.port, READ, headers)
    assert '"code":"TIMEOUT"' in answer.text
    assert answer.text.endswith("event: complete\ndata: \n\n")
