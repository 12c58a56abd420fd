"""A database that suspends: its connections are closed, and for a second nobody is let in.

That an idle server sends nothing, so that it can suspend, is in `tests/replicas/test_idling.py`.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack

import pytest

from db import migration
from db.engine import Database
from db.urls import parse_url
from graphql_api.settings import Settings
from tests.operations import send
from tests.outages.conftest import IS_LONG, PATIENCE, parley_over
from tests.outages.faults import How, Moment, Wire
from tests.outages.invariants import broken_in
from tests.people import Parley
from tests.process.processes import until
from tests.streaming.scripted import sql

POOL_SIZE = 10
"As many dead connections wait for whoever comes first."
OTHERS = """FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()"""
LOOK = "{ viewer { id } sessions { totalCount } }"

REFUSALS: dict[str, Callable[[Wire], None]] = {
    "it starts": lambda wire: wire.refuse("57P03", "the database system is starting up"),
    "it hangs up": lambda wire: wire.cut(),
    "nobody listens": lambda wire: wire.hang_up(),
}


@pytest.fixture
def database_url(shared_url: str) -> str:
    return shared_url


@pytest.fixture
async def parley(wire: Wire, settings: Settings) -> AsyncGenerator[Parley]:
    """An application with a pool of connections that are all open, and idle."""
    async with parley_over(wire, settings, pool_size=POOL_SIZE) as parley:
        async with AsyncExitStack() as borrowed:
            for _ in range(POOL_SIZE):
                await borrowed.enter_async_context(parley.database._connections.lent())
        assert parley.database.pool.idle == POOL_SIZE
        yield parley


@pytest.fixture(params=[0.0, 60.0], ids=["after a pause", "at once"])
def ping_after(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """Whether the connections are taken to have been idle for long, and are looked at first."""
    monkeypatch.setattr("db.connections.PING_AFTER_SECONDS", request.param)
    return request.param


async def throw_out(onlooker: Database) -> None:
    """Close everybody's connections."""
    await sql(onlooker, f"SELECT pg_terminate_backend(pid) {OTHERS}")

    async def there() -> int:
        return (await sql(onlooker, f"SELECT count(*) {OTHERS}"))[0][0]

    await until(there, lambda count: count == 0)


async def fall_asleep(onlooker: Database, wire: Wire, how: str) -> None:
    """Suspend, and wake a second after everybody was thrown out."""
    await throw_out(onlooker)
    REFUSALS[how](wire)
    wake = wire.listen if how == "nobody listens" else wire.restore
    asyncio.get_running_loop().call_later(1.0, wake)


@pytest.mark.parametrize(
    ("how", "ping_after"),
    [*((how, 0.0) for how in REFUSALS), ("it starts", 60.0)],
    indirect=["ping_after"],
)
@pytest.mark.usefixtures("ping_after")
async def test_the_first_query_and_the_first_message_notice_nothing(
    parley: Parley, wire: Wire, onlooker: Database, how: str
):
    alice, bob = parley.person(), parley.person()
    await fall_asleep(onlooker, wire, how)
    found, sent = await asyncio.gather(alice.ask(LOOK), send(bob))
    assert found["sessions"]["totalCount"] == 0
    assert sent["reply"]["status"] == "COMPLETE"
    assert await broken_in(onlooker, at_rest=True) == {}


@pytest.mark.usefixtures("ping_after")
async def test_one_dead_connection_tells_of_all(parley: Parley, wire: Wire, onlooker: Database):
    await throw_out(onlooker)
    before = wire.attempts
    await parley.person().ask("{ viewer { id } }")
    assert wire.attempts == before + 1


async def test_a_connection_that_says_nothing_is_not_waited_for(
    parley: Parley, wire: Wire, monkeypatch: pytest.MonkeyPatch
):
    """As where a router on the way has forgotten them."""
    monkeypatch.setattr("db.connections.PING_AFTER_SECONDS", 0.0)
    monkeypatch.setattr("db.connections.PING_SECONDS", 0.1)
    pings = [wire.break_at("SELECT 1", Moment.BEFORE, How.SILENT) for _ in range(POOL_SIZE)]
    async with asyncio.timeout(20):  # without a limit of their own, pings take the statements' 30
        await parley.person().ask("{ viewer { id } }")
    assert sum(ping.sprung for ping in pings) == 1


@pytest.mark.usefixtures("ping_after")
async def test_a_look_at_its_health_notices_nothing(parley: Parley, onlooker: Database):
    await throw_out(onlooker)
    assert (await parley.http.get("/db-health")).json()["status"] == "ok"


@pytest.mark.parametrize("how", REFUSALS if IS_LONG else ["it starts"])
async def test_a_server_that_starts_waits_for_it(wire: Wire, onlooker: Database, how: str):
    database = Database(parse_url(wire.url), patience=PATIENCE)
    await fall_asleep(onlooker, wire, how)
    await migration.check_schema(database)
    await database.close()
