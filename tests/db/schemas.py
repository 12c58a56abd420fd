"""Other schemas that the same code runs on. The environment says whether all tests do.

PARLEY_TEST_PARTITIONS=1   the owned tables as hash partitions, made as docs/scale.md says
PARLEY_TEST_EXPANSIONS=1   the next release's, by all that migrations/README.md lets it do
"""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from db.engine import Database
from db.models import Base

PARTITIONED = "PARLEY_TEST_PARTITIONS" in os.environ
EXPANDED = "PARLEY_TEST_EXPANSIONS" in os.environ

as_migrated = pytest.mark.skipif(
    PARTITIONED or EXPANDED, reason="it is about the schema itself, which is another here"
)

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
TABLES = [table.name for table in Base.metadata.sorted_tables]
EXPANSIONS = {
    "a column that may be null": [f"ALTER TABLE {table} ADD new_text text" for table in TABLES],
    "a column with a default": [
        f"ALTER TABLE {table} ADD new_number integer NOT NULL DEFAULT 1" for table in TABLES
    ],
    "a table": [
        "CREATE TABLE new_ones (user_id uuid REFERENCES users ON DELETE CASCADE, id uuid,"
        " session_id uuid NOT NULL, PRIMARY KEY (user_id, id), FOREIGN KEY (user_id, session_id)"
        " REFERENCES chat_sessions (user_id, id) ON DELETE CASCADE)"
    ],
    "an index": ["CREATE INDEX ON chat_messages (user_id, created_at)"],
    "a check that allows more": [
        "ALTER TABLE chat_messages DROP CONSTRAINT ck_chat_messages_role",
        "ALTER TABLE chat_messages ADD CONSTRAINT ck_chat_messages_role"
        " CHECK (role IN ('USER', 'ASSISTANT', 'SYSTEM', 'TOOL')) NOT VALID",
        "ALTER TABLE chat_messages VALIDATE CONSTRAINT ck_chat_messages_role",
    ],
    "a column that may be null from now on": [
        "ALTER TABLE chat_messages ALTER content_length DROP NOT NULL",
        "ALTER TABLE documents ALTER title DROP NOT NULL",
    ],
    "a wider type": [
        "ALTER TABLE chat_messages ALTER position TYPE bigint",
        "ALTER TABLE chat_sessions ALTER message_count TYPE bigint,"
        " ALTER last_position TYPE bigint",
        "ALTER TABLE documents ALTER chunk_count TYPE bigint",
    ],
}
"What the first step of a change may do: `migrations/README.md` has the same list."


async def change(database: Database) -> None:
    """Make an up-to-date schema what the environment asks for."""
    if PARTITIONED:
        await partition(database)
    if EXPANDED:
        for expansion in EXPANSIONS:
            await expand(database, expansion)


async def partition(database: Database) -> None:
    """Run what the page says."""
    [statements] = re.findall(r"```sql\n(BEGIN;\n.*?COMMIT;.*?)\n```", PAGE.read_text(), re.DOTALL)
    async with database.engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await driver.execute(statements)


async def expand(database: Database, expansion: str) -> None:
    for statement in EXPANSIONS[expansion]:
        await database.rows(text(statement), {})
