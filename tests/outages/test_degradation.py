"""The database is down: who asks hears so at once, who listens goes on, nothing is half-written."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from db import messages, migration
from db.connections import Patience
from db.engine import Database
from db.errors import DatabaseUnavailable
from db.models import MessageStatus
from db.urls import parse_url
from graphql_api.settings import Settings
from tests.conftest import cloned
from tests.factories import make_viewer
from tests.operations import SEND, session
from tests.outages.conftest import parley_over
from tests.outages.faults import Wire, faulty_wire
from tests.outages.invariants import broken_in
from tests.outages.postgres import OwnPostgres
from tests.people import Parley, Person
from tests.streaming.scripted import ScriptedModel, replica, sql

AT_ONCE = 20
IMPATIENCE = Patience(retry=0.5)
LOOK = "{ viewer { id createdAt } }"


@pytest.fixture
def database_url(shared_url: str) -> str:
    return shared_url


@pytest.fixture
def patience() -> Patience:
    return IMPATIENCE


@pytest.fixture
async def parley(wire: Wire, settings: Settings, patience: Patience) -> AsyncGenerator[Parley]:
    """Has fewer connections than there are people."""
    async with parley_over(
        wire, settings, pool_size=2, max_overflow=1, patience=patience
    ) as parley:
        yield parley


async def ask(person: Person, query: str = LOOK, **variables: Any) -> httpx2.Response:
    body = {"query": query, "variables": variables}
    return await person.http.post("/graphql", json=body, headers=person.headers)


def is_refused(answer: httpx2.Response) -> bool:
    """Tell whether it was put off, and how a client is told so; fails where it is otherwise."""
    if answer.status_code == 200:
        return False
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    [error] = answer.json()["errors"]
    assert error["extensions"]["code"] == "UNAVAILABLE"
    return True


async def answered(person: Person) -> None:
    """Ask again and again until there is an answer."""
    async with asyncio.timeout(10):
        while is_refused(await ask(person)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_the_first_tries_for_a_while_and_the_others_hear_at_once(
    parley: Parley, wire: Wire, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("db.circuit.PROBE_SECONDS", 60.0)
    alice = parley.person()
    wire.cut()
    assert is_refused(await ask(alice))
    tried = wire.refused
    assert tried > 1
    for _ in range(AT_ONCE):
        assert is_refused(await ask(alice))
    assert wire.refused == tried


async def test_a_second_try_is_made_now_and_then_by_one_alone(
    parley: Parley, wire: Wire, monkeypatch: pytest.MonkeyPatch
):
    alice = parley.person()
    wire.cut()
    assert is_refused(await ask(alice))
    monkeypatch.setattr("db.circuit.PROBE_SECONDS", 60.0)
    await until_probed(alice, wire)
    tried = wire.refused
    answers = await asyncio.gather(*(ask(alice) for _ in range(AT_ONCE)))
    assert all(is_refused(answer) for answer in answers)
    assert wire.refused == tried


async def until_probed(person: Person, wire: Wire) -> None:
    tried = wire.refused
    async with asyncio.timeout(10):
        while wire.refused == tried:
            assert is_refused(await ask(person))


@pytest.mark.parametrize("patience", [Patience(connect=0.5, retry=0.1)], ids=["impatient"])
async def test_those_who_wait_for_a_connection_hear_when_there_is_none(
    parley: Parley, wire: Wire, monkeypatch: pytest.MonkeyPatch
):
    """Those who have one are trying to reach a host that does not answer."""
    monkeypatch.setattr("db.circuit.PROBE_SECONDS", 60.0)
    await parley.database.engine.dispose()
    before = wire.attempts
    wire.fall_silent()
    people = [parley.person() for _ in range(AT_ONCE)]
    answers = await asyncio.gather(*(ask(person) for person in people))
    assert all(is_refused(answer) for answer in answers)
    assert wire.attempts == before + 3  # as many as it may have


async def test_hosts_that_take_no_writes_are_an_outage_for_who_needs_one_that_does(
    postgres_url: str, onlooker: Database
):
    """As in a failover, when the old primary is gone and nobody has been promoted yet."""
    async with cloned(postgres_url) as url:
        name = url.rpartition("/")[2]
        await sql(onlooker, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        needed = parse_url(f"{url}?target_session_attrs=read-write")
        database = Database(needed, patience=IMPATIENCE)
        with pytest.raises(DatabaseUnavailable):
            await migration.check_schema(database)
        await database.close()


async def test_it_comes_back_by_itself(parley: Parley, wire: Wire):
    alice = parley.person()
    wire.cut()
    assert is_refused(await ask(alice))
    wire.restore()
    await answered(alice)
    assert not is_refused(await ask(alice))


async def test_health_tells_why_and_for_how_long(parley: Parley, wire: Wire):
    wire.refuse("57P03", "the database system is starting up")
    for _ in range(2):  # before the circuit is open, and then
        assert (await parley.http.get("/health")).status_code == 200
        answer = await parley.http.get("/db-health")
        assert (answer.status_code, answer.json()["status"]) == (503, "down")
        assert answer.json()["reason"] == "CannotConnectNowError"
        assert is_refused(await ask(parley.person()))
    wire.restore()
    answer = await parley.http.get("/db-health")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")


async def test_a_message_that_was_refused_left_nothing_and_can_be_sent_again(
    parley: Parley, wire: Wire, onlooker: Database
):
    alice = parley.person()
    input = {"content": "What is Parley?", "messageId": str(uuid4()), "sessionId": str(uuid4())}
    wire.cut()
    assert is_refused(await ask(alice, SEND, input=input))
    wire.restore()
    await answered(alice)
    assert await session(alice, input["sessionId"]) is None
    sent = (await alice.ask(SEND, input=input))["sendMessage"]
    assert sent["session"]["messageCount"] == 2
    assert await broken_in(onlooker, at_rest=True) == {}


async def test_replies_under_way_outlast_a_postgres_that_is_stopped(
    postgres: OwnPostgres, voices: ScriptedModel
):
    async with (
        faulty_wire(postgres.url) as wire,
        replica(wire.url, voices, patience=IMPATIENCE) as a,
    ):
        questions = [f"Question {number}" for number in range(5)]
        viewer = make_viewer()
        replies = [(await a.send(viewer, question)).reply for question in questions]
        followers = [a.follow(viewer, reply.id) for reply in replies]
        for question, follower in zip(questions, followers, strict=True):
            voices[question].say("One")
            await follower.has("One")
        await postgres.stop()
        wire.hang_up()
        with pytest.raises(DatabaseUnavailable):
            await messages.message(viewer, a.database, replies[0].id)
        for question, follower in zip(questions, followers, strict=True):
            voices[question].finish(", two")
            await follower.has(", two")
        await postgres.start()
        wire.listen(postgres.url)
        for follower in followers:
            ended = await follower.ended()
            assert (ended.status, ended.content) == (MessageStatus.COMPLETE, "One, two")
        assert await broken_in(a.database, at_rest=True) == {}
