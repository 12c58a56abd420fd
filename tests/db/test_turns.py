"""A reply's row under way: written in ticks by who holds it, ended once, buried when left."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import select, text

from db import messages, runs, sessions, turns
from db.engine import Database
from db.ids import MessageId, RunId, SessionId, new_id
from db.models import ChatMessage, MessageStatus
from db.runs import Tick, TickRow
from db.utf16 import utf16_length
from db.viewer import Viewer
from tests.factories import (
    EXPIRED,
    LEASE,
    make_session,
    make_streaming_reply,
    make_viewer,
)


class Reply(NamedTuple):
    """A reply that this test writes."""

    owner: Viewer
    session: SessionId
    id: MessageId
    run_id: RunId

    def tick(self, text: str, *, offset: int = 0, run_id: RunId | None = None) -> Tick:
        length = offset + utf16_length(text)
        return Tick(self.owner.user_id, self.id, run_id or self.run_id, offset, text, length, None)


async def make_reply(database: Database, *, content: str = "", lease: timedelta = LEASE) -> Reply:
    owner, run_id = make_viewer(), RunId(new_id())
    session = await make_session(database, owner=owner)
    id = await make_streaming_reply(
        database, owner=owner, session=session, content=content, run_id=run_id, lease=lease
    )
    return Reply(owner, session, id, run_id)


async def tick(database: Database, *ticks: Tick) -> list[TickRow]:
    written, refused = await runs.tick(database, ticks, LEASE)
    assert not refused
    return written


async def stored(database: Database, reply: Reply) -> dict[str, Any]:
    """The row as it is, not as it is read."""
    statement = select(ChatMessage.__table__).where(ChatMessage.id == reply.id)
    [row] = await database.rows(statement, {})
    return dict(row._mapping)


def ending(content: str = "Whole.") -> turns.Ending:
    return turns.Ending(
        status=MessageStatus.COMPLETE,
        content=content,
        length=utf16_length(content),
        citations=[],
        searches=[],
        model="test-model",
        prompt_tokens=11,
        completion_tokens=7,
        error=None,
    )


async def end(database: Database, reply: Reply, run_id: RunId | None = None) -> Any:
    return await turns.end_reply(
        database, reply.owner.user_id, reply.id, run_id or reply.run_id, ending()
    )


# --- ticks ----------------------------------------------------------------------------


async def test_a_tick_appends_and_renews_the_lease(database: Database):
    reply = await make_reply(database, content="A ", lease=timedelta(seconds=5))
    before = await stored(database, reply)
    assert await tick(database, reply.tick("lease", offset=2)) == [TickRow(reply.run_id, 7, False)]
    after = await stored(database, reply)
    assert (after["content"], after["content_length"]) == ("A lease", 7)
    assert after["lease_until"] > before["lease_until"]


async def test_one_statement_writes_many_replies(database: Database):
    replies = [await make_reply(database) for _ in range(20)]
    written = await tick(database, *(reply.tick(str(reply.id)) for reply in replies))
    assert {row.run_id for row in written} == {reply.run_id for reply in replies}
    for reply in replies:
        assert (await stored(database, reply))["content"] == str(reply.id)


async def test_a_tick_of_nothing_is_nothing(database: Database):
    assert await tick(database) == []


async def test_a_tick_without_text_renews_the_lease_alone(database: Database):
    reply = await make_reply(database, content="A lease", lease=timedelta(seconds=5))
    before = await stored(database, reply)
    assert await tick(database, reply.tick("", offset=7))
    after = await stored(database, reply)
    assert after.pop("lease_until") > before.pop("lease_until")
    assert after == before


async def test_a_repeated_tick_changes_nothing(database: Database):
    reply = await make_reply(database)
    await tick(database, reply.tick("A lease"))
    before = await stored(database, reply)
    assert await tick(database, reply.tick("A lease")) == []
    assert await stored(database, reply) == before


async def test_text_is_counted_in_utf_16(database: Database):
    reply = await make_reply(database)
    await tick(database, reply.tick("a😀"))
    assert await tick(database, reply.tick("b", offset=2)) == []
    assert await tick(database, reply.tick("b", offset=3))
    assert (await stored(database, reply))["content"] == "a😀b"


async def not_written(database: Database, reply: Reply, given: Tick) -> None:
    """A tick that must leave its row alone, and not keep others from being written."""
    before = await stored(database, reply)
    other = await make_reply(database)
    assert await tick(database, given, other.tick("Other")) == [TickRow(other.run_id, 5, False)]
    assert await stored(database, reply) == before


async def test_a_tick_at_another_offset_is_not_written(database: Database):
    reply = await make_reply(database, content="A lease")
    for offset in (0, 6, 8):
        await not_written(database, reply, reply.tick("!", offset=offset))


async def test_a_tick_of_another_run_is_not_written(database: Database):
    reply = await make_reply(database)
    await not_written(database, reply, reply.tick("!", run_id=RunId(new_id())))


async def test_a_tick_in_another_owners_name_is_not_written(database: Database):
    reply = await make_reply(database)
    given = reply.tick("!")._replace(user_id=make_viewer().user_id)
    await not_written(database, reply, given)


async def test_a_lease_that_ran_out_is_not_renewed(database: Database):
    reply = await make_reply(database, lease=EXPIRED)
    await not_written(database, reply, reply.tick("!"))


async def test_an_ended_reply_is_not_written(database: Database):
    reply = await make_reply(database)
    await end(database, reply)
    await not_written(database, reply, reply.tick("!", offset=6))


async def test_a_locked_row_delays_itself_alone(database: Database):
    locked, free = await make_reply(database), await make_reply(database)
    async with database.transaction() as transaction:
        lock = select(ChatMessage.id).where(ChatMessage.id == locked.id).with_for_update()
        await transaction.rows(lock, {})
        written = await tick(database, locked.tick("Later"), free.tick("Now"))
        assert [row.run_id for row in written] == [free.run_id]
    assert (await stored(database, locked))["content"] == ""
    assert await tick(database, locked.tick("Later"))


async def test_a_locked_session_delays_nothing(database: Database):
    reply = await make_reply(database)
    async with database.transaction() as transaction:
        await sessions.lock_session(reply.owner, transaction, reply.session)
        assert await tick(database, reply.tick("Now"))
        assert await end(database, reply)


async def test_a_text_that_the_database_refuses_stands_alone(database: Database):
    replies = [await make_reply(database) for _ in range(5)]
    texts: Sequence[str] = ("a", "b", "NUL \0", "d", "e")
    ticks = [reply.tick(text) for reply, text in zip(replies, texts, strict=True)]
    written, refused = await runs.tick(database, ticks, LEASE)
    assert refused == [replies[2].run_id]
    assert len(written) == 4
    assert (await stored(database, replies[2]))["content"] == ""


async def test_a_tick_brings_back_the_wish_to_stop(database: Database):
    reply, other = await make_reply(database), await make_reply(database)
    async with database.transaction() as transaction:
        await turns.ask_to_stop(reply.owner, transaction, reply.id)
    written = await tick(database, reply.tick("A"), other.tick("B"))
    assert {row.run_id: row.stop_requested for row in written} == {
        reply.run_id: True,
        other.run_id: False,
    }


async def test_a_stranger_can_not_ask_to_stop(database: Database):
    reply = await make_reply(database)
    async with database.transaction() as transaction:
        await turns.ask_to_stop(make_viewer(), transaction, reply.id)
    assert await tick(database, reply.tick("A")) == [TickRow(reply.run_id, 1, False)]


async def test_a_run_is_found_by_its_fence_alone(database: Database):
    reply = await make_reply(database, content="A lease")
    left = await make_reply(database, lease=EXPIRED)
    ended = await make_reply(database)
    await end(database, ended)
    found = await runs.find_runs(database, [reply.run_id, left.run_id, ended.run_id])
    assert {row.run_id: (row.content_length, row.is_expired) for row in found} == {
        reply.run_id: (7, False),
        left.run_id: (0, True),
    }


# --- the end --------------------------------------------------------------------------


async def test_an_end_stores_all_of_it_and_lets_go(database: Database):
    reply = await make_reply(database, content="Who")
    assert (await end(database, reply)).status == "COMPLETE"
    row = await stored(database, reply)
    assert (row["content"], row["content_length"], row["model"]) == ("Whole.", 6, "test-model")
    assert (row["prompt_tokens"], row["completion_tokens"]) == (11, 7)
    assert (row["run_id"], row["lease_until"], row["error"]) == (None, None, None)
    assert row["completed_at"] is not None


async def test_an_end_is_final(database: Database):
    reply = await make_reply(database)
    await end(database, reply)
    before = await stored(database, reply)
    assert await end(database, reply) is None
    assert await stored(database, reply) == before


async def test_another_run_can_not_end_it(database: Database):
    reply = await make_reply(database)
    assert await end(database, reply, RunId(new_id())) is None
    assert (await stored(database, reply))["status"] == "STREAMING"


async def test_an_end_after_the_lease_is_interrupted_and_keeps_its_text(database: Database):
    reply = await make_reply(database, lease=EXPIRED)
    row = await end(database, reply)
    assert (row.status, row.content) == ("INTERRUPTED", "Whole.")
    assert row.error["code"] == "INTERRUPTED"
    assert (await stored(database, reply))["status"] == "INTERRUPTED"


# --- left behind ----------------------------------------------------------------------


async def test_a_lease_that_ran_out_reads_as_interrupted_and_writes_nothing(database: Database):
    reply = await make_reply(database, content="A", lease=EXPIRED)
    row = await messages.message(reply.owner, database, reply.id)
    assert row is not None
    assert (row.status, row.content) == ("INTERRUPTED", "A")
    assert row.error == messages.INTERRUPTED_ERROR
    assert await messages.active_replies(reply.owner, database, [reply.session]) == {}
    assert (await stored(database, reply))["status"] == "STREAMING"


async def test_a_reply_under_way_is_active(database: Database):
    reply = await make_reply(database)
    active = await messages.active_replies(reply.owner, database, [reply.session])
    assert active[reply.session].id == reply.id


async def test_a_starting_server_settles_what_ran_out_and_nothing_else(database: Database):
    left, alive = await make_reply(database, lease=EXPIRED), await make_reply(database)
    before = await stored(database, alive)
    await turns.settle_expired(database)
    row = await stored(database, left)
    assert (row["status"], row["run_id"]) == ("INTERRUPTED", None)
    assert row["error"] == messages.INTERRUPTED_ERROR
    assert row["completed_at"] is not None
    assert await stored(database, alive) == before


async def test_settling_does_not_wait_for_a_locked_row(database: Database):
    locked, left = [await make_reply(database, lease=EXPIRED) for _ in range(2)]
    async with database.transaction() as transaction:
        lock = select(ChatMessage.id).where(ChatMessage.id == locked.id).with_for_update()
        await transaction.rows(lock, {})
        await turns.settle_expired(database)
    assert (await stored(database, left))["status"] == "INTERRUPTED"
    assert (await stored(database, locked))["status"] == "STREAMING"


async def test_a_session_settles_its_own_alone(database: Database):
    left, other = [await make_reply(database, lease=EXPIRED) for _ in range(2)]
    async with database.transaction() as transaction:
        await turns.settle_session(left.owner, transaction, left.session)
    assert (await stored(database, left))["status"] == "INTERRUPTED"
    assert (await stored(database, other))["status"] == "STREAMING"


async def test_no_index_keeps_a_renewal_from_being_a_heap_only_update(database: Database):
    written = "content|content_length|searches|lease_until|stop_requested_at"
    found = "SELECT indexdef FROM pg_indexes WHERE tablename = 'chat_messages' AND indexdef ~ :name"
    assert not await database.rows(text(found), {"name": f"\\m({written})\\M"})
