"""Servers that have nothing to do send nothing to Postgres, whoever is connected to them."""

import asyncio
import os
from asyncio import Event
from typing import Any
from uuid import uuid4

import pytest

from db.engine import Database
from db.urls import parse_url
from tests.openai_server import OpenAIServer, says
from tests.replicas.browsers import Browser, Transport
from tests.replicas.pairs import Pair, Rows

pytestmark = pytest.mark.asyncio(loop_scope="session")

IDLE_SECONDS = 60.0 if os.environ.get("PARLEY_LONG_TESTS") == "1" else 5.0
"A minute is what the documentation promises. A tick would show in a quarter of a second."


async def test_idle_servers_with_open_sockets_send_no_sql(
    pair: Pair, browser: Browser, openai: OpenAIServer, shared_url: str, key: str
):
    transports: list[Transport] = ["ws", "sse"]
    for transport, writer, reader in zip(
        transports, (pair.a, pair.b), (pair.b, pair.a), strict=True
    ):
        openai.script(says("Something", last := Event(), " was said."))
        page = await browser.open(transport, writer, key=key)
        await page.send({"messageId": str(uuid4()), "content": "Say something."})
        reply_id = (await page.started())["reply"]["id"]
        other = await browser.open(transport, reader, key=key)
        await other.follow(reply_id)
        await other.started()
        last.set()
        await page.ended()
        await other.ended()
        await browser.open("ws", writer, key=str(uuid4()))

    ours = Database(parse_url(shared_url), pool_size=1)

    async def others() -> Any:
        return await Rows(ours).all(
            "SELECT pid, query_start, state_change, state, query FROM pg_stat_activity"
            " WHERE datname = current_database() AND backend_type = 'client backend'"
            " AND pid <> pg_backend_pid() ORDER BY pid"
        )

    try:
        before = await others()
        await asyncio.sleep(IDLE_SECONDS)  # the silence itself is what is looked at
        assert before
        assert await others() == before
    finally:
        await ours.close()
    for server in (pair.a, pair.b):
        assert await server.is_healthy()
