"""Following from anywhere: the same text on every replica, at any time."""

import asyncio
from uuid import uuid4

import pytest

from db.models import MessageStatus
from db.utf16 import utf16_length
from db.viewer import Viewer
from rag.ports import ModelUnavailable
from resolvers.errors import InvalidInput, NotFound
from resolvers.events import Delta, Ended, Rejected, ReplyEvent, Started
from resolvers.turns import SentTurn
from tests.factories import make_viewer
from tests.streaming.scripted import (
    Replica,
    ScriptedModel,
    check_told,
    expire_lease,
    replica,
    settled,
    sql,
    stored,
)

TEXT = "Naïve e\u0301 😀, 👩\u200d👧🏽"


# --- following -------------------------------------------------------------------------


async def test_pieces_come_one_by_one_as_the_model_sends_them(
    a: Replica, voices: ScriptedModel, viewer: Viewer
):
    sent = await a.send(viewer)
    follower = a.follow(viewer, sent.reply.id)
    started = await follower.started()
    assert (started.question, started.reply.id) == (sent.question, sent.reply.id)
    await settled()
    pieces = ["One", ", two", ", three"]
    for number, piece in enumerate(pieces):
        voices["Question"].say(piece)
        await follower.has(piece)
        assert [delta.text for delta in follower.deltas] == pieces[: number + 1]
    voices["Question"].finish()
    assert (await follower.ended()).content == "One, two, three"


async def test_even_what_comes_at_once_comes_in_pieces(
    a: Replica, voices: ScriptedModel, viewer: Viewer
):
    sent = await a.send(viewer)
    follower = a.follow(viewer, sent.reply.id)
    await follower.started()
    await settled()
    pieces = [f"{number}," for number in range(50)]
    voices["Question"].finish(*pieces)
    await follower.ended()
    assert [delta.text for delta in follower.deltas] == pieces


async def test_the_end_is_told_after_it_is_stored(
    a: Replica, voices: ScriptedModel, viewer: Viewer
):
    sent = await a.send(viewer)
    follower = a.follow(viewer, sent.reply.id)
    voices["Question"].finish("Done.")
    assert await follower.ended() == await stored(a.database, viewer, sent.reply.id)


async def test_a_reply_is_found_by_its_question(a: Replica, voices: ScriptedModel, viewer: Viewer):
    sent = await a.send(viewer)
    voices["Question"].finish("Done.")
    assert (await a.follow(viewer, sent.question.id).ended()).id == sent.reply.id


async def test_one_who_comes_late_is_told_of_the_searches(
    a: Replica, voices: ScriptedModel, viewer: Viewer
):
    sent = await a.send(viewer)
    early = a.follow(viewer, sent.reply.id)
    voices["Question"].search("leases")
    voices["Question"].say("Found")
    await early.has("Found")
    late = a.follow(viewer, sent.reply.id)
    await late.has("Found")
    assert late.searches == early.searches == ["leases"]
    voices["Question"].finish()
    await late.ended()
    assert (await stored(a.database, viewer, sent.reply.id)).searches[0]["query"] == "leases"


async def test_another_replica_tells_what_is_written(
    a: Replica, b: Replica, voices: ScriptedModel, viewer: Viewer
):
    sent = await a.send(viewer)
    follower = b.follow(viewer, sent.reply.id)
    await follower.started()
    voices["Question"].search("leases")
    await follower.searched("leases")
    voices["Question"].say(TEXT)
    await follower.has(TEXT)
    voices["Question"].say(", and so on")
    await follower.has(", and so on")
    voices["Question"].finish(".")
    ended = await follower.ended()
    assert ended == await stored(b.database, viewer, sent.reply.id)
    assert ended.content == follower.text == f"{TEXT}, and so on."
    assert ended.status == MessageStatus.COMPLETE


@pytest.mark.parametrize("place", ["running", "elsewhere", "ended", "restarted"])
async def test_resuming_from_every_offset_gives_just_the_rest(
    a: Replica, b: Replica, voices: ScriptedModel, viewer: Viewer, database_url: str, place: str
):
    sent = await a.send(viewer)
    voices["Question"].search("leases")
    voices["Question"].say(TEXT)
    await b.follow(viewer, sent.reply.id).has(TEXT)
    if place in ("ended", "restarted"):
        voices["Question"].finish()
        await a.follow(viewer, sent.reply.id).ended()
    units = TEXT.encode("utf-16-le")
    async with replica(database_url, voices) as c:
        where = {"running": a, "elsewhere": b, "ended": b, "restarted": c}[place]
        followers = [
            where.follow(viewer, sent.reply.id, offset) for offset in range(len(units) // 2 + 2)
        ]
        for follower in followers:
            await follower.started()
        if place in ("running", "elsewhere"):
            voices["Question"].finish()
        for offset, follower in enumerate(followers):
            await follower.ended()
            assert follower.searches == ["leases"]
            rest = units[2 * offset :].decode("utf-16-le", "ignore")
            if offset < len(units) // 2 and utf16_length(rest) * 2 < len(units) - 2 * offset:
                assert follower.deltas[0].offset == offset - 1, "the pair's beginning"
                rest = units[2 * (offset - 1) :].decode("utf-16-le")
            assert follower.text == rest


async def test_a_late_follower_of_an_ended_reply_gets_it_in_one_piece(
    a: Replica, voices: ScriptedModel, viewer: Viewer
):
    voices["Question"].finish("One", ", two")
    sent = await a.send(viewer)
    await a.follow(viewer, sent.reply.id).ended()
    events = await a.follow(viewer, sent.reply.id).all()
    row = await stored(a.database, viewer, sent.reply.id)
    assert events == [Started(sent.question, row), Delta(0, "One, two"), Ended(row)]


async def test_a_failed_reply_keeps_what_was_said(
    a: Replica, b: Replica, voices: ScriptedModel, viewer: Viewer
):
    sent = await a.send(viewer)
    followers = [each.follow(viewer, sent.reply.id) for each in (a, b)]
    voices["Question"].say("Half of")
    voices["Question"].fail(ModelUnavailable("gone"))
    for follower in followers:
        ended = await follower.ended()
        assert (ended.status, ended.content) == (MessageStatus.FAILED, "Half of")
        assert follower.text == "Half of"
        assert ended.error
        assert ended.error["code"] == "MODEL_UNAVAILABLE"


@pytest.mark.parametrize("name", ["reply", "question", "nobody's", "no UUID"])
async def test_what_is_not_yours_is_not_there(
    a: Replica, voices: ScriptedModel, viewer: Viewer, name: str
):
    sent = await a.send(viewer)
    ids = {"reply": str(sent.reply.id), "question": str(sent.question.id), "no UUID": "no"}
    [event] = await a.follow(make_viewer(), ids.get(name, str(uuid4()))).all()
    assert isinstance(event, Rejected)
    assert isinstance(event.error, NotFound)


@pytest.mark.parametrize("state", ["running", "ended"])
async def test_a_negative_offset_is_refused(
    a: Replica, voices: ScriptedModel, viewer: Viewer, state: str
):
    sent = await a.send(viewer)
    if state == "ended":
        voices["Question"].finish("Done.")
        await a.follow(viewer, sent.reply.id).ended()
    [event] = await a.follow(viewer, sent.reply.id, -1).all()
    assert isinstance(event, Rejected)
    assert isinstance(event.error, InvalidInput)
    assert event.error.field == "offset"


async def test_a_watch_begun_as_another_ends_goes_on(
    a: Replica, b: Replica, voices: ScriptedModel, viewer: Viewer
):
    """Whoever leaves an ended watch must not take along the one that came after it."""
    sent = await a.send(viewer)
    reply = await stored(b.database, viewer, sent.reply.id)
    old, new = b.watches.watch(viewer.user_id, reply), b.watches.watch(viewer.user_id, reply)
    stream = await old.__aenter__()
    voices["Question"].finish("Done.")
    async with asyncio.timeout(20):
        await asyncio.shield(stream.ended)
    late = await new.__aenter__()  # it had read the row before the end
    await old.__aexit__(None, None, None)
    async with asyncio.timeout(5):
        assert (await asyncio.shield(late.ended)).content == "Done."
    await new.__aexit__(None, None, None)


async def test_a_follower_between_reading_and_watching_sees_the_end(
    a: Replica, b: Replica, voices: ScriptedModel, viewer: Viewer
):
    """A client that is slow to take `Started` finds the reply ended when it goes on."""
    sent = await a.send(viewer)
    for where in (a, b):
        following = where.replies.follow(viewer, str(sent.reply.id), 0)
        events: list[ReplyEvent] = [await anext(following)]
        if where is a:
            voices["Question"].finish("Done.")
            await a.follow(viewer, sent.reply.id).ended()
        async with asyncio.timeout(5):
            events += [event async for event in following]
        assert check_told(events) == "Done."


async def test_nobody_followed_is_nobody_watched(
    a: Replica, b: Replica, voices: ScriptedModel, viewer: Viewer
):
    sent = await a.send(viewer)
    followers = [b.follow(viewer, sent.reply.id) for _ in range(3)]
    for follower in followers:
        await follower.started()
    await settled()
    assert len(b.watches._watches) == 1
    for follower in followers:
        await follower.leave()
    assert not b.watches._watches


# --- a server that died ---------------------------------------------------------------


async def test_a_dead_servers_reply_ends_for_its_followers_elsewhere(
    a: Replica, b: Replica, voices: ScriptedModel, viewer: Viewer
):
    sent = await a.send(viewer)
    follower = b.follow(viewer, sent.reply.id)
    voices["Question"].say("Half of")
    await follower.has("Half of")
    await a.crash()
    await expire_lease(b.database, sent.reply)
    ended = await follower.ended()
    assert (ended.status, ended.content) == (MessageStatus.INTERRUPTED, "Half of")
    assert ended.error
    assert ended.error["retryable"]
    assert await _settled_for_good(b, sent)


async def test_a_dead_servers_reply_reads_as_interrupted_and_following_settles_it(
    a: Replica, b: Replica, voices: ScriptedModel, viewer: Viewer
):
    sent = await a.send(viewer)
    voices["Question"].say("Half of")
    await b.follow(viewer, sent.reply.id).has("Half of")
    await a.crash()
    await expire_lease(b.database, sent.reply)
    assert (await stored(b.database, viewer, sent.reply.id)).status == MessageStatus.INTERRUPTED
    follower = b.follow(viewer, sent.reply.id, 4)
    ended = await follower.ended()
    assert (ended.status, follower.text) == (MessageStatus.INTERRUPTED, " of")
    assert await _settled_for_good(b, sent)
    assert ended == await stored(b.database, viewer, sent.reply.id), "what is told is what stands"


async def test_the_next_send_settles_what_a_dead_server_left(
    a: Replica, b: Replica, voices: ScriptedModel, viewer: Viewer
):
    sent = await a.send(viewer)
    await a.crash()
    await expire_lease(b.database, sent.reply)
    await b.send(viewer, "Next", session_id=str(sent.session.id))
    assert await _settled_for_good(b, sent)


async def _settled_for_good(where: Replica, sent: SentTurn) -> bool:
    query = "SELECT status, run_id FROM chat_messages WHERE id = :id"
    [[status, run_id]] = await sql(where.database, query, id=sent.reply.id)
    return (status, run_id) == (MessageStatus.INTERRUPTED, None)


async def test_the_owner_of_a_lost_lease_tells_all_its_text(
    a: Replica, voices: ScriptedModel, viewer: Viewer, no_ticks: None
):
    """Whoever follows it where it is written must not cut off what memory still holds."""
    sent = await a.send(viewer)
    early = a.follow(viewer, sent.reply.id)
    voices["Question"].say("Stored")
    await early.has("Stored")
    await a.tick()
    voices["Question"].say(" and not yet")
    await early.has(" and not yet")
    await expire_lease(a.database, sent.reply)
    late = a.follow(viewer, sent.reply.id)
    await late.started()
    await settled()
    await a.tick()
    for follower in (late, early):
        ended = await follower.ended()
        assert ended.status == MessageStatus.INTERRUPTED
        assert ended.content == "Stored and not yet"
