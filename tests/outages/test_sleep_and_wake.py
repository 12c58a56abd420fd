"""A database that suspends: its connections are closed, and for a second nobody is let in.

That an idle server sends nothing, so that it can suspend, is in `tests/replicas/test_idling.py`.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest

from db import migration
from db.engine import Database
from db.urls import parse_url
from graphql_api.settings import Settings
from tests.operations import send, until
from tests.outages.faults import How, Moment, Wire
from tests.outages.invariants import broken_in
from tests.people import Parley, open_parley
from tests.streaming.scripted import sql

POOL_SIZE = 20
"As many dead connections wait for whoever comes first."
SLEEP = """SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()"""
LOOK = "{ viewer { id } sessions { totalCount } }"

REFUSALS: dict[str, Callable[[Wire], None]] = {
    "it starts": lambda wire: wire.refuse("57P03", "the database system is starting up"),
    "it hangs up": lambda wire: wire.cut(),
    "nobody listens": lambda wire: wire.hang_up(),
}


@pytest.fixture
async def parley(wire: Wire, settings: Settings) -> AsyncGenerator[Parley]:
    """An application with a pool of connections that are all open, and idle."""
    database = Database(parse_url(wire.url), pool_size=POOL_SIZE)
    async with open_parley(settings, database) as parley:
        await until(lambda: database.pool.in_use == 0)
        alice = parley.person()
        wire.delay_seconds = 0.05  # so that nobody is done before all have begun
        await asyncio.gather(*(alice.ask(LOOK) for _ in range(POOL_SIZE)))
        wire.delay_seconds = 0.0
        await until(lambda: database.pool.in_use == 0)
        assert database.pool.idle == POOL_SIZE
        yield parley
    await database.close()


@pytest.fixture(params=[0.0, 5.0], ids=["after a pause", "at once"])
def ping_after(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """Whether the connections are taken to have been idle for long, and are looked at first."""
    monkeypatch.setattr("db.connections.PING_AFTER_SECONDS", request.param)
    return request.param


async def fall_asleep(onlooker: Database, wire: Wire, how: str) -> None:
    """Suspend, and wake a second after everybody was thrown out."""
    await sql(onlooker, SLEEP)
    REFUSALS[how](wire)

    def wake() -> None:
        waking.add(asyncio.ensure_future(wire.listen()))

    waking = set[asyncio.Future[None]]()
    asyncio.get_running_loop().call_later(1.0, wake if how == "nobody listens" else wire.restore)


@pytest.mark.parametrize(
    ("how", "ping_after"),
    [*((how, 0.0) for how in REFUSALS), ("it starts", 5.0)],
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
    await sql(onlooker, SLEEP)
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
    async with asyncio.timeout(5):
        await parley.person().ask("{ viewer { id } }")
    assert sum(ping.sprung for ping in pings) == 1


@pytest.mark.usefixtures("ping_after")
async def test_a_look_at_its_health_notices_nothing(parley: Parley, onlooker: Database):
    await sql(onlooker, SLEEP)
    assert (await parley.http.get("/db-health")).json()["status"] == "ok"


@pytest.mark.parametrize("how", REFUSALS)
async def test_a_server_that_starts_waits_for_it(wire: Wire, onlooker: Database, how: str):
    database = Database(parse_url(wire.url))
    await fall_asleep(onlooker, wire, how)
    await migration.check_schema(database)
    await database.close()
