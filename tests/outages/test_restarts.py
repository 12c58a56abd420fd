"""Postgres is restarted, and killed, while people send and look up messages."""

from pathlib import Path

import pytest

from db.engine import Database
from db.urls import parse_url
from tests.outages.conftest import IS_LONG
from tests.outages.faults import faulty_wire
from tests.outages.load import Load
from tests.outages.postgres import OwnPostgres
from tests.process.processes import served, until

TIMES = 5 if IS_LONG else 1
BETWEEN = 8 if IS_LONG else 4
"Messages that are taken from one restart to the next."


@pytest.mark.parametrize("how", ["restarted", "killed"])
async def test_no_message_is_lost_or_doubled_when_postgres_is(
    how: str, postgres: OwnPostgres, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    async with faulty_wire(postgres.url) as wire:
        settings = {"DATABASE_URL": wire.url, "RATE_LIMIT": "off"}
        async with served(tmp_path / "data", **settings) as server:
            load = Load(server, wire)

            async def taken() -> int:
                return len(load.answered)

            async with load.going():
                for number in range(1, TIMES + 1):
                    await until(taken, lambda count, least=number * BETWEEN: count >= least)
                    if how == "killed":
                        postgres.kill()
                    else:
                        await postgres.stop()
                    wire.hang_up()
                    await postgres.start()
                    wire.listen(postgres.url)
                at_least = len(load.answered) + BETWEEN
                await until(taken, lambda count: count >= at_least)
            load.tell(f"Postgres {how} (times: {TIMES})", capsys)
            database = Database(parse_url(postgres.url))
            await load.check(database)
            await database.close()
            assert await server.is_healthy()
