"""A commit breaks off: its outcome is found out, and what was committed is not done again."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from db import audit
from db.audit import Action, Entity
from db.connections import Patience
from db.engine import Database, Transaction
from db.errors import CommitUnknown, DatabaseUnavailable
from db.ids import new_id
from db.models import MessageStatus
from db.urls import parse_url
from db.viewer import Viewer
from tests.operations import until
from tests.outages.conftest import PATIENCE
from tests.outages.faults import How, Moment, Wire, faulty_wire
from tests.outages.invariants import broken_in
from tests.outages.postgres import OwnPostgres
from tests.streaming.scripted import (
    Replica,
    ScriptedModel,
    expire_lease,
    replica,
    sql,
)

OUTCOME = "SELECT pg_xact_status"


def times(wire: Wire, beginning: str) -> int:
    """Say how often a statement was asked."""
    return sum(statement.startswith(beginning) for statement in wire.statements)


# --- one turn -------------------------------------------------------------------------


async def test_a_commit_that_did_not_arrive_is_done_again_once(
    a: Replica, wire: Wire, voices: ScriptedModel, viewer: Viewer, onlooker: Database
):
    voices["Question"].finish("Here.")
    wire.break_at("COMMIT", Moment.BEFORE)
    sent = await a.send(viewer, message_id=str(uuid4()))
    assert (await a.replies.ended(viewer, sent.reply)).content == "Here."
    assert times(wire, "INSERT INTO audit_logs") == 2
    assert times(wire, "COMMIT") == 2
    assert await broken_in(onlooker, at_rest=True) == {}


@pytest.mark.parametrize("moment", [Moment.AMID, Moment.AFTER])
async def test_a_commit_that_arrived_is_not_done_again_and_its_reply_runs(
    a: Replica,
    wire: Wire,
    voices: ScriptedModel,
    viewer: Viewer,
    onlooker: Database,
    moment: Moment,
):
    voices["Question"].finish("Here.")
    wire.break_at("COMMIT", moment)
    sent = await a.send(viewer, message_id=str(uuid4()))
    assert (await a.replies.ended(viewer, sent.reply)).content == "Here."
    assert times(wire, "INSERT INTO audit_logs") == 1
    assert times(wire, "COMMIT") == 1
    assert await broken_in(onlooker, at_rest=True) == {}


@pytest.mark.parametrize("moment", [Moment.BEFORE, Moment.AFTER])
async def test_a_turn_whose_commit_nobody_hears_of_for_long_is_answered_if_it_arrived(
    wire: Wire, voices: ScriptedModel, viewer: Viewer, onlooker: Database, moment: Moment
):
    """Sent again, it joins what was begun, or begins."""
    impatient = Patience(retry=0.2)
    async with replica(wire.url, voices, pool_size=1, patience=impatient) as a:
        for _ in range(2):
            voices["Question"].finish("Here.")
        message_id = str(uuid4())
        wire.break_at("COMMIT", moment, then=wire.hang_up)
        with pytest.raises(CommitUnknown):
            await a.send(viewer, message_id=message_id)
        wire.listen()
        if moment is Moment.AFTER:
            await until(lambda: voices["Question"].calls == 1)
        async with asyncio.timeout(20):
            while True:
                try:
                    sent = await a.send(viewer, message_id=message_id)
                    break
                except DatabaseUnavailable:  # it is not asked again at once
                    await asyncio.sleep(0.05)
        ended = await a.replies.ended(viewer, sent.reply)
        assert (ended.status, ended.content) == (MessageStatus.COMPLETE, "Here.")
        assert voices["Question"].calls == 1
        assert await broken_in(onlooker, at_rest=True) == {}


@pytest.mark.parametrize("moment", [Moment.BEFORE, Moment.AMID, Moment.AFTER])
async def test_a_stop_on_another_replica_whose_commit_breaks_off_takes_place(
    a: Replica,
    wire: Wire,
    voices: ScriptedModel,
    viewer: Viewer,
    database_url: str,
    moment: Moment,
):
    async with replica(database_url, voices) as other:
        voices["Question"].say("Half of")
        sent = await other.send(viewer)
        broken = wire.break_at("COMMIT", moment)
        stopped = await a.replies.stop(viewer, str(sent.reply.id))
    assert broken.sprung
    assert stopped.status == MessageStatus.STOPPED


async def test_a_commit_that_is_under_way_is_waited_for(
    a: Replica, wire: Wire, voices: ScriptedModel, viewer: Viewer, onlooker: Database
):
    """It reaches Postgres after we have asked for its outcome."""
    voices["Question"].finish("Here.")
    late = wire.break_at("COMMIT", Moment.BEFORE, How.HELD)
    sending = asyncio.create_task(a.send(viewer, message_id=str(uuid4())))
    await until(lambda: times(wire, OUTCOME) >= 2)
    late.release()
    sent = await sending
    assert (await a.replies.ended(viewer, sent.reply)).content == "Here."
    assert times(wire, "COMMIT") == 1
    assert await broken_in(onlooker, at_rest=True) == {}


@pytest.mark.parametrize("moment", [Moment.BEFORE, Moment.AFTER])
async def test_a_commit_whose_outcome_nobody_can_tell_is_unavailable_and_sending_again_joins(
    wire: Wire, voices: ScriptedModel, viewer: Viewer, onlooker: Database, moment: Moment
):
    quick, lease = Patience(retry=0.2), timedelta(seconds=0.5)
    message_id, session_id = str(uuid4()), str(uuid4())
    async with replica(wire.url, voices, lease=lease, patience=quick) as a:
        wire.break_at("COMMIT", moment, then=wire.cut)
        with pytest.raises(CommitUnknown):
            await a.send(viewer, message_id=message_id, session_id=session_id)
        assert not a.running._runs
    wire.restore()
    async with replica(wire.url, voices) as b:
        if moment is Moment.BEFORE:
            voices["Question"].finish("Here.")
        again = await b.send(viewer, message_id=message_id, session_id=session_id)
        assert str(again.question.id) == message_id
        if moment is Moment.BEFORE:
            ended = await b.replies.ended(viewer, again.reply)
            assert ended.status == MessageStatus.COMPLETE
        else:  # nobody writes it, and its lease tells
            await expire_lease(onlooker, again.reply)
            ended = await b.follow(viewer, again.reply.id).ended()
            assert ended.status == MessageStatus.INTERRUPTED
    assert await broken_in(onlooker, at_rest=True) == {}


async def test_a_commit_that_stays_under_way_is_unavailable(
    wire: Wire, voices: ScriptedModel, viewer: Viewer, onlooker: Database
):
    async with replica(wire.url, voices, patience=Patience(retry=0.2)) as a:
        held = wire.break_at("COMMIT", Moment.BEFORE, How.HELD)
        id = str(uuid4())
        with pytest.raises(CommitUnknown, match="under way"):
            await a.send(viewer, message_id=id)
        held.release()
        await until_stored(onlooker, id)
        joined = await a.send(viewer, message_id=id)
        assert (await a.send(viewer, message_id=id)).reply.id == joined.reply.id
    assert await broken_in(onlooker) == {}


async def until_stored(database: Database, id: str) -> None:
    async with asyncio.timeout(10):
        while not await sql(database, "SELECT 1 FROM chat_messages WHERE id = :id", id=id):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# --- after a crash --------------------------------------------------------------------


async def note(viewer: Viewer, transaction: Transaction, id: Any) -> str:
    """Do a unit of work. Gives the number of its transaction."""
    await audit.record(viewer, transaction, Action.CREATE, Entity.SESSION, id)
    [[number]] = await transaction.rows(text("SELECT pg_current_xact_id()::text"), {})
    return number


async def noted(database: Database, id: Any) -> int:
    found = await sql(database, "SELECT count(*) FROM audit_logs WHERE entity_id = :id", id=id)
    return found[0][0]


@pytest.mark.parametrize("others", [0, 1], ids=["its number is free", "its number is another's"])
async def test_what_a_crash_has_lost_is_done_again(
    postgres: OwnPostgres, viewer: Viewer, others: int
):
    """A transaction that never reached the disk leaves its number to the next one."""
    before = Database(parse_url(postgres.url))
    await sql(before, "ALTER SYSTEM SET wal_writer_delay = '10s'")
    await sql(before, "ALTER SYSTEM SET autovacuum = off")
    await before.close()
    await postgres.stop()  # each of its processes would take that up in its own time
    await postgres.start()
    async with faulty_wire(postgres.url) as wire:
        database = Database(parse_url(wire.url), patience=PATIENCE)
        id, numbers = new_id(), list[str]()

        async def work(transaction: Transaction) -> None:
            numbers.append(await note(viewer, transaction, id))

        broken = wire.break_at("COMMIT", Moment.BEFORE, then=wire.hang_up)
        working = asyncio.create_task(database.transact(work))
        await until(lambda: broken.sprung)
        postgres.kill()
        await postgres.start()
        after = Database(parse_url(postgres.url))
        for _ in range(others):
            async with after.transaction() as transaction:
                taken = await note(viewer, transaction, new_id())
            assert taken == numbers[0]
        wire.listen(postgres.url)
        await working
        assert len(numbers) == 2
        assert await noted(after, id) == 1
        await after.close()
        await database.close()
