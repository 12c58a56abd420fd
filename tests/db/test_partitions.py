"""The owned tables partition by the hash of `user_id` with the statements of docs/scale.md."""

import re
from pathlib import Path
from typing import Any

from sqlalchemy import text

from db.engine import Database
from tests import operations
from tests.db.test_migrations import do_everything
from tests.outages.invariants import broken_in
from tests.people import Parley

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
PARTS = """SELECT inhparent::regclass::text, count(*) FROM pg_inherits
    JOIN pg_class ON pg_class.oid = inhrelid AND relkind = 'r' GROUP BY 1"""
RULES = """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
    FROM pg_constraint WHERE conparentid = 0 AND connamespace = 'public'::regnamespace
        AND NOT EXISTS (SELECT FROM pg_class WHERE pg_class.oid = conrelid AND relispartition)
    UNION SELECT indrelid::regclass::text, indexrelid::regclass::text,
        replace(pg_get_indexdef(indexrelid), ' ON ONLY ', ' ON ')
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    WHERE NOT relispartition AND relnamespace = 'public'::regnamespace"""
"Constraints and indexes, by name, but for those of partitions."


async def partition(database: Database) -> None:
    """Run what the page says."""
    [statements] = re.findall(r"```sql\n(BEGIN;\n.*?COMMIT;)\n```", PAGE.read_text(), re.DOTALL)
    async with database.engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await driver.execute(statements)


async def test_a_conversation_goes_on_in_partitions(parley: Parley, database: Database):
    alice = parley.person()
    before = await operations.send(alice, "What is a lease?")
    await partition(database)
    parts = {row[0]: row[1] for row in await database.rows(text(PARTS), {})}
    assert parts == {"chat_sessions": 16, "chat_messages": 16, "audit_logs": 16}
    after = await operations.send(alice, "And then?", sessionId=before["session"]["id"])
    assert after["session"]["messageCount"] == 4
    assert await broken_in(database, at_rest=True) == {}
    await do_everything(parley)


async def test_every_constraint_and_index_is_as_it_was(database: Database):
    before = set(await database.rows(text(RULES), {}))
    await partition(database)
    assert set(await database.rows(text(RULES), {})) == before
