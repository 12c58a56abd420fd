"""Postgres goes away in mid-reply, for one replica or for both, and comes back."""

import asyncio
import time
from asyncio import Event
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from db import migration
from db.embedded import EmbeddedPostgres
from db.engine import Database
from db.urls import parse_url
from tests.openai_server import OpenAIServer, says
from tests.process.processes import until
from tests.replicas.browsers import Browser, Page
from tests.replicas.conftest import LEASE_SECONDS
from tests.replicas.conversations import SEND, messages, reads, send
from tests.replicas.pairs import Pair, Road, Rows, paired, road_to
from tests.replicas.texts import units

pytestmark = pytest.mark.asyncio(loop_scope="session")

BEFORE, DURING, AFTER = "Before 😀, ", "du\u0301ring ", "and after."
WHOLE = BEFORE + DURING + AFTER


def message(session_id: str | None = None) -> dict[str, Any]:
    return {
        "sessionId": session_id or str(uuid4()),
        "messageId": str(uuid4()),
        "content": "Tell me.",
    }


@dataclass
class Reading:
    """A reply that A writes, and a reader on each replica; both have its beginning."""

    here: Page
    there: Page
    reply_id: str
    session_id: str
    gates: list[Event]


async def begin(pair: Pair, browser: Browser, openai: OpenAIServer, key: str) -> Reading:
    gates = [Event(), Event()]
    openai.script(says(BEFORE, gates[0], DURING, gates[1], AFTER))
    here = await browser.open("ws", pair.a, key=key)
    await here.send(sent := message())
    started = await here.started()
    there = await browser.open("sse", pair.b, key=key)
    await there.follow(started["reply"]["id"])
    # The space at the end of a piece may wait for the next one.
    for page in (here, there):
        await page.has(units(BEFORE) - 1)
    return Reading(here, there, started["reply"]["id"], sent["sessionId"], gates)


# --- Postgres itself is stopped -------------------------------------------------------


class Outage:
    """Two replicas on a Postgres of their own that can be stopped and started."""

    def __init__(self, postgres: EmbeddedPostgres, road: Road, pair: Pair) -> None:
        self._postgres = postgres
        self._road = road
        self.pair = pair

    async def begin(self) -> None:
        await asyncio.to_thread(self._postgres.stop)
        await self._road.close()  # nobody listens any more, as at a Postgres that is down

    async def end(self) -> None:
        await self._road.open(await asyncio.to_thread(self._postgres.start))

    async def stored(self, reply_id: str) -> tuple[str, bytes, int]:
        database = Database(parse_url(self._road.url), pool_size=1)
        try:
            return await Rows(database).stored(reply_id)
        finally:
            await database.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def outage(
    shared_openai: OpenAIServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Outage]:
    folder: Path = tmp_path_factory.mktemp("outage")
    postgres = EmbeddedPostgres(folder / "postgres")
    try:
        async with road_to(await asyncio.to_thread(postgres.start)) as road:
            database = Database(parse_url(road.url))
            await migration.upgrade(database)
            await database.close()
            settings = {"OPENAI_BASE_URL": shared_openai.url, "DATABASE_URL": road.url}
            async with paired(folder, settings, settings) as pair:
                yield Outage(postgres, road, pair)
    finally:
        await asyncio.to_thread(postgres.stop)


async def test_followers_go_on_while_postgres_is_away_and_the_row_catches_up(
    outage: Outage, browser: Browser, openai: OpenAIServer, key: str
):
    reading = await begin(outage.pair, browser, openai, key)
    await outage.begin()
    reading.gates[0].set()
    await reading.here.has(units(BEFORE + DURING) - 1)  # from memory
    refused = await outage.pair.a.http.post(
        "/graphql",
        json={"query": SEND, "variables": {"input": (unsent := message())}},
        headers={"X-Session-ID": key},
    )
    assert refused.status_code == 503, refused.text
    assert refused.json()["errors"][0]["extensions"]["code"] == "UNAVAILABLE"
    await outage.end()

    await reading.there.has(units(BEFORE + DURING) - 1)  # from the row, that has caught up
    status, text, _ = await outage.stored(reading.reply_id)
    assert (status, text.decode()) == ("STREAMING", (BEFORE + DURING).rstrip())
    reading.gates[1].set()
    for page in (reading.here, reading.there):
        ended = await page.ended()
        assert ended["reply"]["status"] == "COMPLETE"
        assert ended["reply"]["content"] == ended["content"] == WHOLE
    assert await outage.stored(reading.reply_id) == ("COMPLETE", WHOLE.encode(), units(WHOLE))

    # What was refused left nothing behind, and can be sent again as it is.
    person = outage.pair.b.person(key)
    assert await messages(person, unsent["sessionId"]) is None
    openai.script(says("Here I am."))
    assert (await send(person, unsent))["reply"]["content"] == "Here I am."


async def test_an_end_is_told_once_postgres_is_back(
    outage: Outage, browser: Browser, openai: OpenAIServer, key: str
):
    reading = await begin(outage.pair, browser, openai, key)
    await outage.begin()
    for gate in reading.gates:
        gate.set()
    await reading.here.has(units(WHOLE))
    server = outage.pair.a

    async def is_held() -> bool:
        return "reply.end_delayed" in server.log()

    await until(is_held, bool)
    assert not reading.here.all("ended")
    await outage.end()
    for page in (reading.here, reading.there):
        ended = await page.ended()
        assert ended["reply"]["status"] == "COMPLETE"
        assert ended["reply"]["content"] == ended["content"] == WHOLE
    assert await outage.stored(reading.reply_id) == ("COMPLETE", WHOLE.encode(), units(WHOLE))


# --- one replica is cut off -----------------------------------------------------------


async def test_a_reply_whose_lease_ran_out_unseen_is_stored_with_all_its_text(
    pair: Pair, browser: Browser, openai: OpenAIServer, rows: Rows, road: Road, key: str
):
    """Nobody settles it while its server is cut off: only reads, which write nothing."""
    reading = await begin(pair, browser, openai, key)
    await reading.there.drop()
    await road.close()
    cut = time.monotonic()
    try:
        reading.gates[0].set()
        await reading.here.has(units(BEFORE + DURING) - 1)
        seen = await reads(pair.b.person(key), reading.session_id, cut)
        assert LEASE_SECONDS - 1 < seen[-1][0] < LEASE_SECONDS + 5
        assert (await rows.stored(reading.reply_id))[0] == "STREAMING"
    finally:
        await road.open()
    ended = await reading.here.ended()
    text = (BEFORE + DURING).rstrip()
    assert ended["reply"]["status"] == "INTERRUPTED"
    assert ended["reply"]["error"] == {"code": "INTERRUPTED", "retryable": True}
    assert ended["reply"]["content"].rstrip() == text
    assert ended["content"].rstrip() == text
    status, stored, _ = await rows.stored(reading.reply_id)
    assert (status, stored.decode().rstrip()) == ("INTERRUPTED", text)


async def test_a_reply_that_was_settled_by_another_stops_when_its_server_is_back(
    pair: Pair, browser: Browser, openai: OpenAIServer, rows: Rows, road: Road, key: str
):
    reading = await begin(pair, browser, openai, key)
    await road.close()
    try:
        reading.gates[0].set()
        await reading.here.has(units(BEFORE + DURING) - 1)
        told = await reading.there.ended()
        assert told["reply"]["status"] == "INTERRUPTED"
        assert told["reply"]["content"] == told["content"] == BEFORE.rstrip()
        openai.script(says("Here I am."))
        sent = await send(pair.b.person(key), message(reading.session_id))
        assert sent["reply"]["status"] == "COMPLETE"
    finally:
        await road.open()
    ended = await reading.here.ended()
    assert ended["reply"] == told["reply"]
    assert await rows.stored(reading.reply_id) == (
        "INTERRUPTED",
        BEFORE.rstrip().encode(),
        units(BEFORE.rstrip()),
    )
    async with asyncio.timeout(5):
        await openai.requests_to("chat")[-2].gone.wait()  # nobody pays for the rest
