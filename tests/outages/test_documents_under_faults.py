"""A document is read, whatever breaks off while it is: handed back, and read again."""

import asyncio
from typing import Any

import pytest

from db.connections import Patience
from db.engine import Database
from graphql_api.settings import Settings
from tests.operations import add_text, until
from tests.outages.conftest import parley_over
from tests.outages.faults import Moment, Wire
from tests.streaming.scripted import sql

STATEMENTS = [
    "UPDATE documents SET ingestion_status",
    "SELECT document_contents",
    "SELECT documents",
    "DELETE FROM document_chunks",
    "INSERT INTO document_chunks",
    "UPDATE documents SET title",
]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setattr("rag.ingestion.FIRST_PAUSE_SECONDS", 0.02)


async def read(onlooker: Database) -> Any:
    """Give how far the only document is, once nobody works on it."""
    async with asyncio.timeout(20):
        while True:
            [row] = await sql(
                onlooker, "SELECT ingestion_status, attempts, chunk_count FROM documents"
            )
            if row[0] in ("READY", "FAILED"):
                return tuple(row)
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("moment", Moment)
@pytest.mark.parametrize("statement", STATEMENTS)
async def test_a_document_is_read_whatever_breaks(
    wire: Wire, settings: Settings, onlooker: Database, statement: str, moment: Moment
):
    async with parley_over(wire, settings) as parley:
        person = parley.person()
        await person.ask("{ viewer { id } }")
        planned = wire.break_at(statement, moment)
        await add_text(person, "# Leases\n\nA lease is a promise with an end.")
        assert await read(onlooker) == ("READY", 1, 1)
        assert planned.sprung


async def test_it_waits_for_a_database_that_is_away(
    wire: Wire, settings: Settings, onlooker: Database
):
    async with parley_over(wire, settings, patience=Patience(retry=0.1)) as parley:
        wire.break_at("DELETE FROM document_chunks", Moment.BEFORE, then=wire.hang_up)
        await add_text(parley.person(), "# Leases\n\nA lease is a promise with an end.")
        await until(lambda: wire._listener is None)
        wire.listen()
        assert await read(onlooker) == ("READY", 1, 1)
