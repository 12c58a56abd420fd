"""The rows of running replies: written together, and none at the cost of another."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
import sqlalchemy

from db import runs
from db.ids import RunId, SessionId, new_id
from db.messages import MessageRow
from db.models import MessageStatus
from db.runs import Tick
from db.utf16 import utf16_length
from db.viewer import Viewer
from resolvers.runs import WRITE_FRACTION
from tests.factories import make_session, make_streaming_reply, make_viewer
from tests.operations import until
from tests.streaming.scripted import (
    LEASE,
    Follower,
    Replica,
    ScriptedModel,
    expire_lease,
    settled,
    sql,
    statements_of,
    stored,
    stores,
)

MANY = 40


def updates(statements: Sequence[str]) -> list[str]:
    return [each for each in statements if "UPDATE" in each]


async def many_under_way(where: Replica, voices: ScriptedModel) -> list[tuple[Viewer, Follower]]:
    """Begin the replies to questions 0, 1, …; each says its number."""
    begun: list[tuple[Viewer, Follower]] = []
    for number in range(MANY):
        viewer = make_viewer()
        sent = await where.send(viewer, f"{number}")
        follower = where.follow(viewer, sent.reply.id)
        voices[f"{number}"].say(f"{number};")
        begun.append((viewer, follower))
    for number, (_, follower) in enumerate(begun):
        await follower.has(f"{number};")
    return begun


async def reply_with(
    where: Replica, voices: ScriptedModel, viewer: Viewer, text: str, question: str = "Question"
) -> tuple[MessageRow, Follower]:
    sent = await where.send(viewer, question)
    follower = where.follow(viewer, sent.reply.id)
    await follower.started()
    if text:
        voices[question].say(text)
        await follower.has(text)
    return sent.reply, follower


# --- statements -----------------------------------------------------------------------


async def test_a_tick_is_one_statement_however_many_replies_run(
    a: Replica, voices: ScriptedModel, no_ticks: None
):
    begun = await many_under_way(a, voices)
    for more in ("", "more;"):
        for number, (_, follower) in enumerate(begun):
            if more:
                voices[f"{number}"].say(more)
                await follower.has(more)
        with statements_of(a.database) as statements:
            await a.tick()
        assert len(statements) == len(updates(statements)) == 1
    for number, (viewer, follower) in enumerate(begun):
        row = await stored(a.database, viewer, (await follower.started()).reply.id)
        assert row.content == f"{number};more;"


async def test_followers_elsewhere_cost_one_statement_per_tick(
    a: Replica, b: Replica, voices: ScriptedModel, no_ticks: None
):
    begun = await many_under_way(a, voices)
    followers: list[Follower] = []
    for viewer, follower in begun:
        reply = (await follower.started()).reply
        followers += [b.follow(viewer, reply.id) for _ in range(3)]
    for follower in followers:
        await follower.started()
    await a.tick()
    await settled()
    with statements_of(b.database) as statements:
        await b.watches._read()
    assert len(statements) == 1
    for number in range(MANY):
        for follower in followers[3 * number : 3 * number + 3]:
            await follower.has(f"{number};")


async def test_nothing_ticks_while_nothing_runs(
    a: Replica, b: Replica, voices: ScriptedModel, viewer: Viewer
):
    reply, follower = await reply_with(a, voices, viewer, "Text")
    elsewhere = b.follow(viewer, reply.id)
    await elsewhere.has("Text")
    voices["Question"].finish()
    await follower.ended()
    await elsewhere.ended()
    tickers = [a.running._ticker, b.watches._ticker]
    await until(lambda: all(ticker and ticker.done() for ticker in tickers))
    assert a.watches._ticker is None
    assert b.running._ticker is None
    with statements_of(a.database) as of_a, statements_of(b.database) as of_b:
        await asyncio.sleep(0.1)  # five ticks' time in which nothing may come
    assert of_a == of_b == []


async def test_the_ticker_begins_again_with_the_next_reply(
    a: Replica, voices: ScriptedModel, viewer: Viewer
):
    for question in ("One", "Two"):
        reply, follower = await reply_with(a, voices, viewer, "Text", question)
        await stores(a, viewer, reply, "Text")
        voices[question].finish()
        await follower.ended()
        await until(lambda: a.running._ticker is not None and a.running._ticker.done())


async def test_a_tick_renews_the_lease_and_writes_when_it_is_worth_it(
    a: Replica, voices: ScriptedModel, viewer: Viewer, no_ticks: None
):
    long = "a" * 100 * WRITE_FRACTION
    reply, follower = await reply_with(a, voices, viewer, long)
    await a.tick()
    for text, is_written in (("b" * 50, False), ("c" * 50, True)):
        voices["Question"].say(text)
        await follower.has(text)
        before = await _lease(a, reply)
        await a.tick()
        assert await _lease(a, reply) > before
        row = await stored(a.database, viewer, reply.id)
        assert row.content == (follower.text if is_written else long)
        assert row.content_length == utf16_length(row.content)


async def test_pending_text_is_written_after_a_second_however_little(
    a: Replica,
    voices: ScriptedModel,
    viewer: Viewer,
    no_ticks: None,
    monkeypatch: pytest.MonkeyPatch,
):
    reply, follower = await reply_with(a, voices, viewer, "a" * 1000)
    await a.tick()
    voices["Question"].say("b")
    await follower.has("b")
    await a.tick()
    assert "b" not in (await stored(a.database, viewer, reply.id)).content
    monkeypatch.setattr("resolvers.runs.WRITE_AFTER_SECONDS", 0.0)
    await a.tick()
    assert "b" in (await stored(a.database, viewer, reply.id)).content


async def _lease(where: Replica, reply: MessageRow) -> datetime:
    query = "SELECT lease_until FROM chat_messages WHERE id = :id"
    return (await sql(where.database, query, id=reply.id))[0][0]


# --- rows that can't be written -------------------------------------------------------


async def test_a_locked_row_delays_only_itself(
    a: Replica, b: Replica, voices: ScriptedModel, viewer: Viewer
):
    locked, follower = await reply_with(a, voices, viewer, "One")
    another = make_viewer()
    other, _ = await reply_with(a, voices, another, "", "Other")
    async with b.database.transaction() as transaction:
        lock = sqlalchemy.text("SELECT FROM chat_messages WHERE id = :id FOR UPDATE")
        await transaction.rows(lock, {"id": locked.id})
        at_lock = (await stored(b.database, viewer, locked.id)).content
        voices["Question"].say(", two")
        voices["Other"].say("Goes on")
        await follower.has(", two")
        await stores(b, another, other, "Goes on")
        assert (await stored(b.database, viewer, locked.id)).content == at_lock
    await stores(b, viewer, locked, "One, two")
    voices["Question"].finish()
    assert (await follower.ended()).status == MessageStatus.COMPLETE


async def test_a_row_settled_by_another_stops_its_run_at_once(
    a: Replica, voices: ScriptedModel, viewer: Viewer
):
    reply, follower = await reply_with(a, voices, viewer, "Text")
    await stores(a, viewer, reply, "Text")
    settle = "UPDATE chat_messages SET status = 'INTERRUPTED', run_id = NULL WHERE id = :id"
    await sql(a.database, settle, id=reply.id)
    ended = await follower.ended()
    assert (ended.status, ended.content) == (MessageStatus.INTERRUPTED, "Text")
    voices["Question"].say("too late")
    await settled()
    assert voices["Question"].said.qsize() == 1, "the model's stream is closed"


async def test_a_lease_that_ran_out_is_not_renewed_and_all_text_is_kept(
    a: Replica, voices: ScriptedModel, viewer: Viewer, no_ticks: None
):
    reply, follower = await reply_with(a, voices, viewer, "Stored")
    await a.tick()
    voices["Question"].say(" and not")
    await follower.has(" and not")
    await expire_lease(a.database, reply)
    await a.tick()
    ended = await follower.ended()
    assert (ended.status, ended.content) == (MessageStatus.INTERRUPTED, "Stored and not")
    assert ended.error
    assert ended.error["code"] == "INTERRUPTED"
    assert ended == await stored(a.database, viewer, reply.id)


async def test_a_reply_that_ends_after_its_lease_is_interrupted_with_all_its_text(
    a: Replica, voices: ScriptedModel, viewer: Viewer, no_ticks: None
):
    """A reader may have seen INTERRUPTED already: it never becomes COMPLETE."""
    reply, follower = await reply_with(a, voices, viewer, "Text")
    await expire_lease(a.database, reply)
    voices["Question"].finish(", all of it")
    ended = await follower.ended()
    assert (ended.status, ended.content) == (MessageStatus.INTERRUPTED, "Text, all of it")


async def test_an_acknowledgement_that_was_lost_doubles_no_text(
    a: Replica, voices: ScriptedModel, viewer: Viewer, no_ticks: None
):
    reply, follower = await reply_with(a, voices, viewer, "One 😀")
    run = a.run_of(reply)
    written, _ = await runs.tick(a.database, [run.tick()], LEASE)
    assert [row.content_length for row in written] == [6]
    for text in (", two", ", three"):  # the run does not know of that tick
        voices["Question"].say(text)
        await follower.has(text)
        await a.tick()
    await a.tick()
    assert (await stored(a.database, viewer, reply.id)).content == "One 😀, two, three"
    voices["Question"].finish()
    assert (await follower.ended()).content == "One 😀, two, three"


async def test_the_same_tick_twice_changes_nothing(a: Replica, viewer: Viewer):
    tick = await _row_to_tick(a, viewer, "text")
    assert len((await runs.tick(a.database, [tick], LEASE))[0]) == 1
    assert await runs.tick(a.database, [tick], LEASE) == ([], [])
    assert (await stored(a.database, viewer, tick.id)).content == "text"


@pytest.mark.parametrize(
    "wrong",
    [
        {"run_id": RunId(new_id())},
        {"offset": 1},
        {"user_id": make_viewer().user_id},
    ],
)
async def test_a_tick_with_another_fence_offset_or_owner_writes_nothing(
    a: Replica, viewer: Viewer, wrong: dict[str, object]
):
    tick = await _row_to_tick(a, viewer, "text")
    assert await runs.tick(a.database, [tick._replace(**wrong)], LEASE) == ([], [])
    assert (await stored(a.database, viewer, tick.id)).content == ""


async def test_a_tick_after_the_lease_writes_nothing(a: Replica, viewer: Viewer):
    tick = await _row_to_tick(a, viewer, "text", lease=timedelta(seconds=-1))
    assert await runs.tick(a.database, [tick], LEASE) == ([], [])


async def test_a_tick_of_nothing_is_allowed(a: Replica):
    assert await runs.tick(a.database, [], LEASE) == ([], [])


async def _row_to_tick(where: Replica, viewer: Viewer, text: str, lease: timedelta = LEASE) -> Tick:
    run_id = RunId(new_id())
    session: SessionId = await make_session(where.database, owner=viewer)
    id = await make_streaming_reply(
        where.database, owner=viewer, session=session, run_id=run_id, lease=lease
    )
    return Tick(viewer.user_id, id, run_id, 0, text, utf16_length(text), None)


# --- text that can't be stored --------------------------------------------------------


@pytest.mark.parametrize("position", [0, 3, 7])
async def test_poison_is_found_and_harms_no_other(a: Replica, viewer: Viewer, position: int):
    texts = [f"good {number}" for number in range(8)]
    texts[position] = "bad \0"
    ticks = [await _row_to_tick(a, viewer, text) for text in texts]
    written, refused = await runs.tick(a.database, ticks, LEASE)
    assert refused == [ticks[position].run_id]
    assert {row.run_id for row in written} == {tick.run_id for tick in ticks} - set(refused)
    for tick, text in zip(ticks, texts, strict=True):
        row = await stored(a.database, viewer, tick.id)
        assert row.content == ("" if tick.run_id in refused else text)


async def test_poison_fails_its_own_reply_alone(
    a: Replica, voices: ScriptedModel, viewer: Viewer, no_ticks: None
):
    """Should some text ever get past the agent that Postgres does not take."""
    bad, of_bad = await reply_with(a, voices, viewer, "Text")
    _, of_good = await reply_with(a, voices, make_viewer(), "Text", "Good")
    a.run_of(bad).stream.add("\0")
    await a.tick()
    voices["Good"].finish()
    assert (await of_good.ended()).status == MessageStatus.COMPLETE
    ended = await of_bad.ended()
    assert (ended.status, ended.content[:4]) == (MessageStatus.FAILED, "Text")
    assert ended == await stored(a.database, viewer, bad.id)


async def test_nul_and_lone_surrogates_from_a_model_are_replaced(
    a: Replica, b: Replica, voices: ScriptedModel, viewer: Viewer
):
    sent = await a.send(viewer)
    followers = [where.follow(viewer, sent.reply.id) for where in (a, b)]
    voices["Question"].search("a\\u0000b\\ud83d")
    voices["Question"].say("One\0", "\ud83d", "\ude00", "\udc00", "two", "\ud83d")
    voices["Question"].finish()
    expected = "One\ufffd😀\ufffdtwo\ufffd"
    for follower in followers:
        ended = await follower.ended()
        assert (ended.status, ended.content) == (MessageStatus.COMPLETE, expected)
        assert follower.text == expected
        assert follower.searches == ["a\ufffdb\ufffd"]
