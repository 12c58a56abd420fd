"""Stopping, deleting and shutting down under a reply: what any client saw is stored."""

import asyncio
import random
import time
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from db import messages as rows
from db.errors import DatabaseUnavailable
from db.messages import MessageRow
from db.models import MessageStatus
from db.viewer import Viewer
from graphql_api.types.replies import ReplyRejected, shown_event
from resolvers import messages, sessions
from resolvers.errors import NotFound, Unavailable
from resolvers.events import Ended, Rejected
from resolvers.turns import SentTurn
from tests.factories import make_viewer
from tests.operations import until
from tests.streaming.scripted import Follower, Replica, ScriptedModel, settled, sql, stored

RACES = 200
RACES_AT_ONCE = 25


async def under_way(
    where: Replica, voices: ScriptedModel, viewer: Viewer
) -> tuple[SentTurn, Follower]:
    """Begin a reply that has said something, and not all."""
    sent = await where.send(viewer)
    follower = where.follow(viewer, sent.reply.id)
    voices["Question"].search("leases")
    voices["Question"].say("Half of")
    await follower.has("Half of")
    return sent, follower


# --- stopping -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["reply", "question"])
async def test_stopping_here(a: Replica, voices: ScriptedModel, viewer: Viewer, name: str):
    sent, follower = await under_way(a, voices, viewer)
    id = sent.reply.id if name == "reply" else sent.question.id
    stopped = await a.replies.stop(viewer, str(id))
    assert stopped.status == MessageStatus.STOPPED
    assert stopped.content == "Half of"
    assert stopped.error is None
    assert stopped.completed_at
    assert [search["query"] for search in stopped.searches] == ["leases"]
    assert await follower.ended() == stopped == await stored(a.database, viewer, sent.reply.id)


async def test_stopping_elsewhere_takes_hold_within_about_a_second(
    a: Replica, b: Replica, voices: ScriptedModel, viewer: Viewer, product_pace: None
):
    sent, follower = await under_way(a, voices, viewer)
    begun = time.monotonic()
    stopped = await b.replies.stop(viewer, str(sent.reply.id))
    assert time.monotonic() - begun < 1.5
    assert (stopped.status, stopped.content) == (MessageStatus.STOPPED, "Half of")
    assert await follower.ended() == stopped


async def test_what_any_client_saw_is_stored(
    a: Replica, b: Replica, voices: ScriptedModel, viewer: Viewer
):
    """Also what no tick had written yet."""
    sent, follower = await under_way(a, voices, viewer)
    voices["Question"].say(", and more")
    await follower.has(", and more")
    stopping = asyncio.create_task(b.replies.stop(viewer, str(sent.reply.id)))
    while not stopping.done():
        voices["Question"].say(".")
        await asyncio.sleep(0)
    stopped = await stopping
    assert stopped.status == MessageStatus.STOPPED
    await follower.ended()
    assert stopped.content == follower.text


async def test_a_stopped_model_says_no_more(a: Replica, voices: ScriptedModel, viewer: Viewer):
    sent, _ = await under_way(a, voices, viewer)
    await a.replies.stop(viewer, str(sent.reply.id))
    voices["Question"].say("too late")
    await settled()
    assert voices["Question"].said.qsize() == 1


@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_stopping_an_ended_reply_gives_it_as_it_is(
    a: Replica, b: Replica, voices: ScriptedModel, viewer: Viewer, where: str
):
    sent = await a.send(viewer)
    voices["Question"].finish("Whole.")
    ended = await a.replies.ended(viewer, sent.reply)
    asked = a if where == "here" else b
    assert await asked.replies.stop(viewer, str(sent.reply.id)) == ended
    assert ended.status == MessageStatus.COMPLETE


@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_stopping_twice_is_stopping_once(
    a: Replica, b: Replica, voices: ScriptedModel, viewer: Viewer, where: str
):
    sent, _ = await under_way(a, voices, viewer)
    asked = a if where == "here" else b
    first, second = await asyncio.gather(
        *(asked.replies.stop(viewer, str(sent.reply.id)) for _ in range(2))
    )
    assert first == second
    assert first.status == MessageStatus.STOPPED


async def test_nobody_stops_anothers_reply(a: Replica, voices: ScriptedModel, viewer: Viewer):
    sent, follower = await under_way(a, voices, viewer)
    for id in (sent.reply.id, sent.question.id, uuid4()):
        with pytest.raises(NotFound):
            await a.replies.stop(make_viewer(), str(id))
    voices["Question"].finish()
    assert (await follower.ended()).status == MessageStatus.COMPLETE


async def test_a_stop_that_comes_late_spares_the_reply_after_it(
    a: Replica, b: Replica, voices: ScriptedModel, viewer: Viewer
):
    """It was read as running, ended, and another began in its session: that one goes on."""
    first = await a.send(viewer, "One")
    as_read = await stored(b.database, viewer, first.reply.id)
    voices["One"].finish("Whole.")
    await a.replies.ended(viewer, first.reply)
    second = await a.send(viewer, "Two", session_id=str(first.session.id))
    follower = a.follow(viewer, second.reply.id)
    assert (await b.replies.stop_row(viewer, as_read)).content == "Whole."
    await a.tick()
    voices["Two"].finish("Whole, too.")
    ended = await follower.ended()
    assert (ended.status, ended.content) == (MessageStatus.COMPLETE, "Whole, too.")


@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_stop_and_end_race(a: Replica, b: Replica, voices: ScriptedModel, where: str):
    """Whoever wins, there is one end, and all are told of that one."""
    chance = random.Random(where)

    async def race(name: str) -> MessageRow:
        viewer = make_viewer()
        sent = await a.send(viewer, name)
        followers = [each.follow(viewer, sent.reply.id) for each in (a, b)]
        for follower in followers:
            await follower.started()
        moments = [chance.randrange(40) for _ in range(2)]

        async def end() -> None:
            for _ in range(moments[0]):
                await asyncio.sleep(0)
            voices[name].finish("One", ", two", ", three")

        async def stop() -> MessageRow:
            for _ in range(moments[1]):
                await asyncio.sleep(0)
            asked = a if where == "here" else b
            return await asked.replies.stop(viewer, str(sent.reply.id))

        _, told = await asyncio.gather(end(), stop())
        row = await stored(a.database, viewer, sent.reply.id)
        assert told == row
        for follower in followers:
            assert await follower.ended() == row
            assert follower.text == row.content
            assert sum(isinstance(event, Ended) for event in follower.events) == 1
        if row.status == MessageStatus.COMPLETE:
            assert row.content == "One, two, three"
        return row

    ends: list[MessageRow] = []
    for batch in range(RACES // 2 // RACES_AT_ONCE):
        names = [f"{where} {batch} {number}" for number in range(RACES_AT_ONCE)]
        ends += await asyncio.gather(*map(race, names))
    assert {row.status for row in ends} <= {MessageStatus.COMPLETE, MessageStatus.STOPPED}
    assert not a.running._runs


# --- deleting -------------------------------------------------------------------------


async def delete(where: Replica, viewer: Viewer, sent: SentTurn, what: str) -> None:
    session, request = str(sent.session.id), "request"
    match what:
        case "session":
            await sessions.delete_session(
                viewer, where.database, where.replies, id=session, request_id=request
            )
        case "history":
            await sessions.clear_history(
                viewer, where.database, where.replies, id=session, chapter=None, request_id=request
            )
        case _:
            id = sent.reply.id if what == "reply" else sent.question.id
            await messages.delete_message(
                viewer, where.database, where.replies, id=str(id), request_id=request
            )


@pytest.mark.parametrize("what", ["session", "history", "reply"])
@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_deleting_under_a_running_reply_ends_it_with_what_there_was(
    a: Replica, b: Replica, voices: ScriptedModel, viewer: Viewer, what: str, where: str
):
    sent, here = await under_way(a, voices, viewer)
    elsewhere = b.follow(viewer, sent.reply.id)
    await elsewhere.has("Half of")
    await delete(a if where == "here" else b, viewer, sent, what)
    for follower in (here, elsewhere):
        ended = await follower.ended()
        assert (ended.status, ended.content) == (MessageStatus.STOPPED, "Half of")
        assert follower.text == "Half of"
    assert not a.running._runs
    [event] = await b.follow(viewer, sent.reply.id).all()
    assert isinstance(event, Rejected)


@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_deleting_the_question_leaves_a_reply_that_can_be_stopped_and_ends(
    a: Replica, b: Replica, voices: ScriptedModel, viewer: Viewer, where: str
):
    sent, follower = await under_way(a, voices, viewer)
    await delete(a if where == "here" else b, viewer, sent, "question")
    voices["Question"].finish()
    ended = await follower.ended()
    assert ended.content == "Half of"
    assert ended == await stored(a.database, viewer, sent.reply.id)


@pytest.mark.parametrize("state", ["running", "ended"])
async def test_a_reply_without_its_question_is_rejected_in_place_of_all_else(
    a: Replica, voices: ScriptedModel, viewer: Viewer, state: str
):
    """`ReplyStarted.userMessage` is never null, so there is no turn to follow."""
    sent, follower = await under_way(a, voices, viewer)
    await delete(a, viewer, sent, "question")
    if state == "ended":
        voices["Question"].finish()
        await follower.ended()
    late = a.follow(viewer, sent.reply.id)
    await until(lambda: bool(late.events))
    voices["Question"].finish()
    shown = [shown_event(event) for event in await late.all()]
    assert [type(event) for event in shown] == [ReplyRejected]


async def test_rows_that_vanish_by_other_hands_end_their_run(
    a: Replica, voices: ScriptedModel, viewer: Viewer
):
    """A history cleared between two of our looks at it."""
    sent, follower = await under_way(a, voices, viewer)
    async with a.database.transaction() as transaction:
        await rows.delete_message(viewer, transaction, sent.reply.id)
    ended = await follower.ended()
    assert (ended.content, ended.status) == ("Half of", MessageStatus.INTERRUPTED)
    assert not a.running._runs


# --- shutting down --------------------------------------------------------------------


async def test_a_server_that_goes_down_begins_no_turn(a: Replica, viewer: Viewer):
    a.turns.refuse_new()
    with pytest.raises(Unavailable):
        await a.send(viewer)
    query = "SELECT FROM chat_messages WHERE user_id = :viewer"
    assert not await sql(a.database, query, viewer=viewer.user_id)


async def test_a_server_that_goes_down_still_joins_what_has_begun(
    a: Replica, voices: ScriptedModel, viewer: Viewer
):
    id = str(uuid4())
    sent = await a.send(viewer, message_id=id)
    a.turns.refuse_new()
    assert (await a.send(viewer, message_id=id)).reply.id == sent.reply.id


async def test_replies_may_end_within_the_grace(a: Replica, voices: ScriptedModel, viewer: Viewer):
    _, follower = await under_way(a, voices, viewer)
    closing = asyncio.create_task(a.running.close(timedelta(seconds=20)))
    await settled()
    voices["Question"].finish()
    assert (await follower.ended()).status == MessageStatus.COMPLETE
    await closing


async def test_replies_that_do_not_end_within_the_grace_are_stored_as_interrupted(
    a: Replica, b: Replica, voices: ScriptedModel, viewer: Viewer
):
    sent, here = await under_way(a, voices, viewer)
    elsewhere = b.follow(viewer, sent.reply.id)
    await elsewhere.started()
    voices["Question"].say(", and more")
    await here.has(", and more")
    await a.running.close(timedelta(seconds=0.1))
    for follower in (here, elsewhere):
        ended = await follower.ended()
        assert ended.status == MessageStatus.INTERRUPTED
        assert ended.content == "Half of, and more"
        assert ended.error
        assert ended.error["retryable"]
    assert ended == await stored(b.database, viewer, sent.reply.id)


async def test_a_server_without_replies_closes_at_once(a: Replica):
    async with asyncio.timeout(1):
        await a.running.close(timedelta(seconds=20))


async def test_closing_ends_even_if_the_database_is_away(
    a: Replica, voices: ScriptedModel, viewer: Viewer, monkeypatch: pytest.MonkeyPatch
):
    async def away(*_: object) -> None:
        raise DatabaseUnavailable("away")

    await under_way(a, voices, viewer)
    monkeypatch.setattr("db.turns.end_reply", away)
    monkeypatch.setattr("resolvers.runs.STORE_SECONDS", 0.1)
    monkeypatch.setattr("resolvers.runs.TELL_SECONDS", 0.1)
    async with asyncio.timeout(5):
        await a.running.close(timedelta(seconds=0.1))
    assert not a.running._runs


async def test_ids_in_any_form_name_the_same_reply(
    a: Replica, voices: ScriptedModel, viewer: Viewer
):
    sent, follower = await under_way(a, voices, viewer)
    await a.replies.stop(viewer, str(UUID(str(sent.reply.id))).upper())
    assert (await follower.ended()).status == MessageStatus.STOPPED
