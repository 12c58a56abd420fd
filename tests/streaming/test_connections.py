"""Replies under way hold no connection, and outlast a database that is away."""

import asyncio

import pytest

from db import turns
from db.errors import DatabaseUnavailable
from db.models import MessageStatus
from db.viewer import Viewer
from tests.factories import make_viewer
from tests.streaming.scripted import (
    Replica,
    ScriptedModel,
    settled,
)

TEXT = "Naïve e\u0301 😀, 👩\u200d👧🏽"


async def test_no_connection_is_held_while_the_model_thinks(
    a: Replica, b: Replica, voices: ScriptedModel, no_ticks: None
):
    viewers = [make_viewer() for _ in range(10)]
    begun = [await a.send(viewer) for viewer in viewers]
    followers = [
        where.follow(viewer, turn.reply.id)
        for where in (a, b)
        for viewer, turn in zip(viewers, begun, strict=True)
    ]
    for follower in followers:
        await follower.started()
    await settled()
    assert voices["Question"].calls == 10
    assert [each.database.engine.pool.checkedout() for each in (a, b)] == [0, 0]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


async def test_two_hundred_replies_on_a_pool_of_five(a: Replica, voices: ScriptedModel):
    viewers = [make_viewer() for _ in range(200)]
    begun = await asyncio.gather(*(a.send(viewer, f"{n}") for n, viewer in enumerate(viewers)))
    for number in range(200):
        voices[f"{number}"].say("a" * 20)
    for number in range(200):
        voices[f"{number}"].finish(f" {number}")
    ends = await asyncio.gather(
        *(a.replies.ended(v, turn.reply) for v, turn in zip(viewers, begun, strict=True))
    )
    assert [row.content for row in ends] == ["a" * 20 + f" {n}" for n in range(200)]


async def test_the_outcome_reaches_followers_if_it_can_not_be_stored(
    a: Replica, voices: ScriptedModel, viewer: Viewer, monkeypatch: pytest.MonkeyPatch
):
    """A bug in storing is a failure for the followers, not a wait for ever."""

    async def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    sent = await a.send(viewer)
    follower = a.follow(viewer, sent.reply.id)
    await follower.started()
    await settled()
    monkeypatch.setattr("db.turns.end_reply", broken)
    voices["Question"].finish("Done.")
    with pytest.raises(RuntimeError, match="a bug"):
        await follower.all()


async def test_a_database_that_is_away_for_the_end_delays_it(
    a: Replica, voices: ScriptedModel, viewer: Viewer, monkeypatch: pytest.MonkeyPatch
):
    end_reply, tries = turns.end_reply, iter(range(3))

    async def away(*arguments: object) -> object:
        if next(tries, None) is not None:
            raise DatabaseUnavailable("away")
        return await end_reply(*arguments)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr("db.turns.end_reply", away)
    sent = await a.send(viewer)
    voices["Question"].finish("Done.")
    assert (await a.follow(viewer, sent.reply.id).ended()).status == MessageStatus.COMPLETE
    assert next(tries, None) is None
