"""What streaming costs: WAL per reply, memory per idle follower, gaps between deltas under load.

Starts a real server process over an embedded Postgres, with a model beside it that speaks at
a steady pace, and follows it over real WebSockets. Run it by `make bench-streaming`.
"""

import argparse
import asyncio
import json
import os
import re
import socket
import statistics
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import psutil
import uvicorn
import websockets
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from sqlalchemy import text

from db.embedded import EmbeddedPostgres
from db.engine import Database
from db.urls import parse_url
from graphql_api.instance import own_docs

PROSE = ("".join(file.read_text() for file in sorted(own_docs())) * 2)[:20_000]
"Our own documentation: it compresses as replies do."
PIECES = re.findall(r"\s*\S+", PROSE)

BRIEF_PIECES = 200
AT_LENGTH_PACE_SECONDS = 0.005
"Some 15 s for 20 KB: a quick model's pace. A slower one writes more often."

SUBSCRIBE = """
subscription ($input: SendMessageInput!) {
  sendMessage(input: $input) {
    __typename
    ... on ReplyStarted { reply { id } }
    ... on ReplyDelta { offset text }
    ... on ReplyEnded { reply { status } }
  }
}
"""
FOLLOW = "subscription ($id: ID!) { reply(messageId: $id) { __typename } }"


def model(pace_seconds: float, stay_silent: asyncio.Event) -> FastAPI:
    """Make a model that says the same to everyone; "wait" makes it wait for the event."""
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> StreamingResponse:  # pyright: ignore[reportUnusedFunction]
        question = (await request.json())["messages"][-1]["content"]

        async def chunks() -> AsyncGenerator[str]:
            if question == "wait":
                yield _chunk({"content": "So be it."})
                while not stay_silent.is_set():
                    yield ": still thinking\n\n"
                    await asyncio.wait([asyncio.ensure_future(stay_silent.wait())], timeout=5)
            else:
                at_length = question == "at length"
                for piece in PIECES if at_length else PIECES[:BRIEF_PIECES]:
                    yield _chunk({"content": piece})
                    await asyncio.sleep(AT_LENGTH_PACE_SECONDS if at_length else pace_seconds)
            yield _chunk({}, finish="stop")
            yield "data: [DONE]\n\n"

        return StreamingResponse(chunks(), media_type="text/event-stream")

    return app


def _chunk(delta: dict[str, str], finish: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m"}
    return f"data: {json.dumps({**body, 'choices': [choice]})}\n\n"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@asynccontextmanager
async def served_model(pace_seconds: float, silent: asyncio.Event) -> AsyncGenerator[str]:
    port = _free_port()
    config = uvicorn.Config(model(pace_seconds, silent), port=port, log_level="error")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    yield f"http://127.0.0.1:{port}/v1"
    server.should_exit = True
    await serving


@asynccontextmanager
async def served_parley(
    folder: Path, database_url: str, model_url: str
) -> AsyncGenerator[tuple[str, psutil.Process]]:
    port = _free_port()
    environment = {
        **os.environ,
        "PORT": str(port),
        "DATA_DIR": str(folder / "data"),
        "DATABASE_URL": database_url,
        "AUTO_MIGRATE": "true",
        "OPENAI_BASE_URL": model_url,
        "DATABASE_POOL_SIZE": "5",
        "DATABASE_POOL_OVERFLOW": "0",
    }
    parley = Path(sys.executable).with_name("parley")
    process = await asyncio.create_subprocess_exec(str(parley), "serve", env=environment)
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            break
        except OSError:
            await asyncio.sleep(0.1)
    await asyncio.sleep(2)
    yield f"ws://127.0.0.1:{port}/graphql", psutil.Process(process.pid)
    process.terminate()
    await process.wait()


@asynccontextmanager
async def opened(url: str, key: str) -> AsyncGenerator[websockets.ClientConnection]:
    """A socket that has said who it is."""
    async with websockets.connect(
        url,
        subprotocols=[websockets.Subprotocol("graphql-transport-ws")],
        compression=None,
        open_timeout=60,
        max_queue=None,
    ) as connection:
        init = {"type": "connection_init", "payload": {"sessionId": key}}
        await connection.send(json.dumps(init))
        await connection.recv()
        yield connection


async def subscribe(
    connection: websockets.ClientConnection, query: str, variables: dict[str, Any]
) -> None:
    payload = {"query": query, "variables": variables}
    await connection.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))


async def ask(url: str, gaps: list[float], question: str = "briefly") -> str:
    """Ask, read to the end, note the time between deltas, and give the outcome."""
    async with opened(url, str(uuid4())) as connection:
        message = {"content": question, "messageId": str(uuid4())}
        await subscribe(connection, SUBSCRIBE, {"input": message})
        last = None
        while True:
            answer = json.loads(await connection.recv())
            event = answer["payload"]["data"]["sendMessage"]
            now = time.perf_counter()
            if event["__typename"] == "ReplyDelta":
                if last is not None:
                    gaps.append(now - last)
                last = now
            if event["__typename"] == "ReplyEnded":
                return event["reply"]["status"]


async def wal_bytes(database: Database, since: str | None = None) -> Any:
    if since is None:
        return (await database.rows(text("SELECT pg_current_wal_lsn()::text"), {}))[0][0]
    difference = text(
        "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), CAST(CAST(:since AS text) AS pg_lsn))"
    )
    return int((await database.rows(difference, {"since": since}))[0][0])


async def measure(replies: int, followers: int, pace_seconds: float) -> None:
    silent = asyncio.Event()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        postgres = EmbeddedPostgres(folder / "postgres")
        stack.callback(postgres.stop)
        database_url = await asyncio.to_thread(postgres.start)
        database = Database(parse_url(database_url), pool_size=1)
        stack.push_async_callback(database.close)
        model_url = await stack.enter_async_context(served_model(pace_seconds, silent))
        url, process = await stack.enter_async_context(
            served_parley(folder, database_url, model_url)
        )
        await ask(url, [])  # warms everything up

        before, begun = await wal_bytes(database), time.perf_counter()
        await ask(url, [], "at length")
        written, seconds = await wal_bytes(database, before), time.perf_counter() - begun
        size = len(PROSE)
        print(
            f"WAL of a reply of {size / 1000:.0f} KB over {seconds:.0f} s: {written / 1e6:.2f} MB"
        )

        key = str(uuid4())
        asker = await stack.enter_async_context(opened(url, key))
        await subscribe(asker, SUBSCRIBE, {"input": {"content": "wait", "messageId": str(uuid4())}})
        started = json.loads(await asker.recv())
        reply_id = started["payload"]["data"]["sendMessage"]["reply"]["id"]
        memory = process.memory_info().rss
        for _ in range(followers):
            connection = await stack.enter_async_context(opened(url, key))
            await subscribe(connection, FOLLOW, {"id": reply_id})
            await connection.recv()
        if followers:
            each = (process.memory_info().rss - memory) / followers
            print(f"memory per idle follower ({followers:,} of them): {each / 1024:.0f} KiB")

        gaps: list[float] = []
        begun = time.perf_counter()
        outcomes = await asyncio.gather(*(ask(url, gaps) for _ in range(replies)))
        seconds = time.perf_counter() - begun
        complete = outcomes.count("COMPLETE")
        gaps.sort()
        p50, p99 = statistics.median(gaps), gaps[int(len(gaps) * 0.99)]
        print(
            f"{complete} of {replies} replies complete over a pool of 5 in {seconds:.0f} s;"
            f" gaps between deltas: model {pace_seconds * 1000:.0f} ms,"
            f" p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms"
        )
        silent.set()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--replies", type=int, default=200, help="replies streamed at once")
    parser.add_argument("--followers", type=int, default=2000, help="idle followers beside them")
    parser.add_argument("--pace", type=float, default=0.1, help="seconds between a model's pieces")
    given = parser.parse_args()
    asyncio.run(measure(given.replies, given.followers, given.pace))


if __name__ == "__main__":
    main()
