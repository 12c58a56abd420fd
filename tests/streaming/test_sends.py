"""One message is one turn, however often and wherever it is sent; one reply at a time."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest

from db.ids import MessageId
from db.models import MessageStatus
from db.viewer import Viewer
from resolvers.errors import IdConflict, ReplyInProgress
from resolvers.new_messages import IfBusy
from resolvers.turns import SentTurn
from tests.factories import make_session, make_streaming_reply, make_viewer
from tests.streaming.scripted import (
    Replica,
    ScriptedModel,
    expire_lease,
    sql,
    stored,
)

TEXT = "Naïve e\u0301 😀, 👩\u200d👧🏽"


# --- sending --------------------------------------------------------------------------


async def test_fifty_sends_over_two_replicas_are_one_turn(
    a: Replica, b: Replica, voices: ScriptedModel, viewer: Viewer
):
    id = str(uuid4())
    begun = await asyncio.gather(*((a, b)[n % 2].send(viewer, message_id=id) for n in range(50)))
    assert len({turn.reply.id for turn in begun}) == 1
    voices["Question"].finish("The same.")
    ends = await asyncio.gather(
        *((a, b)[n % 2].replies.ended(viewer, turn.reply) for n, turn in enumerate(begun))
    )
    assert {row.content for row in ends} == {"The same."}
    assert voices["Question"].calls == 1
    assert await _counted(a, viewer) == (1, 1, 1, 1)


async def _counted(where: Replica, viewer: Viewer) -> tuple[int, ...]:
    """Count a viewer's users row, sessions, questions and replies."""
    query = """SELECT
        (SELECT count(*) FROM users WHERE id = :viewer),
        (SELECT count(*) FROM chat_sessions WHERE user_id = :viewer),
        (SELECT count(*) FROM chat_messages WHERE user_id = :viewer AND role = 'USER'),
        (SELECT count(*) FROM chat_messages WHERE user_id = :viewer AND role = 'ASSISTANT')"""
    return tuple((await sql(where.database, query, viewer=viewer.user_id))[0])


async def test_sending_again_joins(a: Replica, b: Replica, voices: ScriptedModel, viewer: Viewer):
    id = str(uuid4())
    first = await a.send(viewer, message_id=id)
    voices["Question"].say("Half")
    await a.follow(viewer, first.reply.id).has("Half")
    for where in (a, b):
        again = await where.send(viewer, message_id=id)
        assert (again.question, again.reply.id) == (first.question, first.reply.id)
    voices["Question"].finish()
    await a.follow(viewer, first.reply.id).ended()
    for where in (a, b):
        again = await where.send(viewer, message_id=id)
        assert again.reply == await stored(a.database, viewer, first.reply.id)
    assert voices["Question"].calls == 1


@pytest.mark.parametrize(
    "other",
    [{"content": "Other"}, {"chapter": "2"}, {"selected_text": "s"}, {"session_id": str(uuid4())}],
)
async def test_the_same_id_with_another_content_is_a_conflict(
    a: Replica, viewer: Viewer, other: dict[str, str]
):
    id = str(uuid4())
    await a.send(viewer, message_id=id)
    with pytest.raises(IdConflict):
        await a.send(viewer, **{"message_id": id, **other})


async def test_a_replys_id_is_no_messages_id(a: Replica, viewer: Viewer):
    sent = await a.send(viewer)
    with pytest.raises(IdConflict):
        await a.send(viewer, message_id=str(sent.reply.id))


async def test_two_people_may_use_the_same_ids(a: Replica, viewer: Viewer):
    ids = {"message_id": str(uuid4()), "session_id": str(uuid4())}
    mine, yours = await a.send(viewer, **ids), await a.send(make_viewer(), **ids)
    assert mine.question.id == yours.question.id
    assert mine.reply.id != yours.reply.id


async def test_what_nobody_reads_is_written_all_the_same(
    a: Replica, voices: ScriptedModel, viewer: Viewer
):
    sent = await a.send(viewer)
    follower = a.follow(viewer, sent.reply.id)
    voices["Question"].say("Half")
    await follower.has("Half")
    await follower.leave()
    voices["Question"].finish(" of it")
    assert (await a.replies.ended(viewer, sent.reply)).content == "Half of it"


# --- a busy session -------------------------------------------------------------------


async def test_the_second_send_at_once_is_refused_with_the_first(
    a: Replica, b: Replica, voices: ScriptedModel, viewer: Viewer
):
    session = str(await make_session(a.database, owner=viewer))
    answers = await asyncio.gather(
        a.send(viewer, "One", session_id=session),
        b.send(viewer, "Two", session_id=session),
        return_exceptions=True,
    )
    [won] = [each for each in answers if isinstance(each, SentTurn)]
    [lost] = [each for each in answers if isinstance(each, ReplyInProgress)]
    assert lost.reply.id == won.reply.id
    assert voices["One"].calls + voices["Two"].calls <= 1
    assert (await _counted(a, viewer))[2:] == (1, 1)


async def test_ten_sends_at_once_leave_one(a: Replica, b: Replica, viewer: Viewer):
    session = str(uuid4())
    answers = await asyncio.gather(
        *((a, b)[n % 2].send(viewer, f"{n}", session_id=session) for n in range(10)),
        return_exceptions=True,
    )
    assert sum(isinstance(each, SentTurn) for each in answers) == 1
    assert sum(isinstance(each, ReplyInProgress) for each in answers) == 9


@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_interrupting_stops_the_other_reply_first(
    a: Replica, b: Replica, voices: ScriptedModel, viewer: Viewer, where: str
):
    first = await a.send(viewer, "One")
    follower = a.follow(viewer, first.reply.id)
    voices["One"].say("Half")
    await follower.has("Half")
    second = await (a if where == "here" else b).send(
        viewer, "Two", session_id=str(first.session.id), if_busy=IfBusy.INTERRUPT
    )
    ended = await follower.ended()
    assert (ended.status, ended.content) == (MessageStatus.STOPPED, "Half")
    assert second.question.position > first.reply.position
    assert second.reply.status == MessageStatus.STREAMING


@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_a_retry_that_interrupts_never_stops_its_own_reply(
    a: Replica, b: Replica, voices: ScriptedModel, viewer: Viewer, where: str
):
    message = {"message_id": str(uuid4()), "session_id": str(uuid4())}
    first = await a.send(viewer, **message)
    replica_asked = a if where == "here" else b
    again = await replica_asked.send(viewer, **message, if_busy=IfBusy.INTERRUPT)
    assert again.reply.id == first.reply.id
    voices["Question"].finish("Whole.")
    ended = await replica_asked.replies.ended(viewer, again.reply)
    assert (ended.status, ended.content) == (MessageStatus.COMPLETE, "Whole.")


@pytest.mark.parametrize("if_busy", IfBusy)
async def test_the_same_message_many_times_at_once_with_a_session_never_stops_itself(
    a: Replica, b: Replica, voices: ScriptedModel, viewer: Viewer, if_busy: IfBusy
):
    session = str(await make_session(a.database, owner=viewer))
    message = {"message_id": str(uuid4()), "session_id": session, "if_busy": if_busy}
    begun = await asyncio.gather(*((a, b)[n % 2].send(viewer, **message) for n in range(20)))
    assert len({turn.reply.id for turn in begun}) == 1
    voices["Question"].finish("Whole.")
    for where in (a, b):
        ended = await where.replies.ended(viewer, begun[0].reply)
        assert (ended.status, ended.content) == (MessageStatus.COMPLETE, "Whole.")
    assert voices["Question"].calls == 1


async def test_two_texts_are_never_interleaved(
    a: Replica, b: Replica, voices: ScriptedModel, viewer: Viewer
):
    """Sends that interrupt one another: each reply holds its own words alone."""
    session = str(uuid4())
    for number in range(6):
        voices[f"{number}"].finish(*(f" {number}" for _ in range(200)))

    async def send(number: int) -> SentTurn:
        where = (a, b)[number % 2]
        return await where.send(viewer, f"{number}", session_id=session, if_busy=IfBusy.INTERRUPT)

    begun = [await send(number) for number in range(6)]
    for number, turn in enumerate(begun):
        row = await a.replies.ended(viewer, await stored(a.database, viewer, turn.reply.id))
        assert set(row.content.split()) <= {f"{number}"}
        assert row.status in (MessageStatus.STOPPED, MessageStatus.COMPLETE)


async def test_a_row_that_is_lost_as_it_is_begun_is_joined_by_the_retry(
    a: Replica, b: Replica, viewer: Viewer
):
    """The begin was stored, then its server died: the retry finds the turn, and its end."""
    session = await make_session(a.database, owner=viewer)
    reply_id = await make_streaming_reply(a.database, owner=viewer, session=session, content="Ha")
    reply = await stored(a.database, viewer, reply_id)
    assert reply.reply_to
    question = await stored(a.database, viewer, MessageId(reply.reply_to))
    again = await b.send(viewer, question.content, message_id=str(question.id))
    assert again.reply.id == reply_id
    follower = b.follow(viewer, reply_id)
    await follower.has("Ha")
    await expire_lease(b.database, reply)
    assert (await follower.ended()).status == MessageStatus.INTERRUPTED


async def test_a_dead_servers_reply_makes_way_once_its_lease_has_run_out(
    b: Replica, viewer: Viewer, monkeypatch: pytest.MonkeyPatch
):
    """Nobody hears that it is to stop, however often that is said."""
    monkeypatch.setattr("resolvers.replies.FOREIGN_STOP_SECONDS", 0.05)
    session = await make_session(b.database, owner=viewer)
    reply = await make_streaming_reply(
        b.database, owner=viewer, session=session, lease=timedelta(seconds=1.5)
    )
    sent = await b.send(viewer, "Two", session_id=str(session), if_busy=IfBusy.INTERRUPT)
    assert sent.reply.status == MessageStatus.STREAMING
    assert (await stored(b.database, viewer, reply)).status == MessageStatus.INTERRUPTED
