"""Alembic's entry: on the connection it is handed, else on `-x url=…`."""

import asyncio

from alembic import context
from sqlalchemy import Connection

from db import migration
from db.engine import Database
from db.models import Base
from db.urls import parse_url


def run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{migration.LOCK_TIMEOUT}'")
        context.run_migrations()


async def run_by_url(url: str) -> None:
    database = Database(parse_url(url))
    async with database.engine.begin() as connection:
        await connection.run_sync(run)
    await database.close()


if context.is_offline_mode():
    raise SystemExit("Offline mode is not supported: the migrations look at the server.")

given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    url = context.get_x_argument(as_dictionary=True).get("url")
    if url is None:
        raise SystemExit("Say which database: alembic -x url=postgresql://…")
    asyncio.run(run_by_url(url))
