"""Whatever happens in whatever order: who resumes gets each character once, and what is stored."""

import asyncio
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from db import runs
from db.models import MessageStatus
from db.utf16 import utf16_length
from db.viewer import Viewer
from rag.agent import MAX_ROUNDS
from resolvers.turns import SentTurn
from tests.factories import make_viewer
from tests.operations import until
from tests.streaming.scripted import (
    LEASE,
    Follower,
    Replica,
    ScriptedModel,
    check_contiguous,
    expire_lease,
    settled,
    stored,
)

PIECE = st.text(st.sampled_from("ab,é́̈😀👩\u200d👧🏽𝔘漢"), min_size=1, max_size=4)
"Nothing that a citation's marker could begin with: the agent holds that back."
READERS = 2
READER = st.integers(0, READERS - 1)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), PIECE),
        st.tuples(st.just("say"), PIECE),
        st.tuples(st.just("search"), st.sampled_from(["leases", "ends"])),
        st.tuples(st.sampled_from(["tick", "doubled tick", "read"]), st.none()),
        st.tuples(st.just("resume here"), READER),
        st.tuples(st.just("resume elsewhere"), READER),
        st.tuples(st.just("drop"), READER),
    ),
    max_size=14,
)
END = st.sampled_from(["finish", "stop here", "stop elsewhere", "crash", "lose the lease"])


class Reader:
    """A client that keeps what it has, and asks for the rest when it comes back."""

    def __init__(self) -> None:
        self.text = ""
        self.follower: Follower | None = None

    async def drop(self) -> None:
        if self.follower is not None:
            await self.follower.leave()
            self.keep()

    def keep(self) -> None:
        """Add what was told to what it has: it belongs just there."""
        if self.follower is not None:
            check_contiguous(self.follower.deltas)
            if self.follower.deltas:
                assert self.follower.deltas[0].offset == utf16_length(self.text)
            self.text += self.follower.text
            self.follower = None

    async def resume(self, where: Replica, viewer: Viewer, sent: SentTurn) -> None:
        await self.drop()
        self.follower = where.follow(viewer, sent.reply.id, utf16_length(self.text))
        await self.follower.started()


class Story:
    """One reply: what is done to it, and what must be true of it all the time."""

    def __init__(self, a: Replica, b: Replica, voices: ScriptedModel) -> None:
        self.a, self.b = a, b
        self.viewer = make_viewer()
        self.question = str(self.viewer.user_id)
        self.voice = voices[self.question]
        self.said = ""
        self.searches: list[str] = []
        self._search_was_last = False
        self.readers = [Reader() for _ in range(READERS)]

    async def begin(self) -> None:
        self.sent = await self.a.send(self.viewer, self.question)
        self.run = self.a.run_of(self.sent.reply)
        await until(lambda: self.voice.calls == 1)

    async def do(self, step: str, value: str | int | None) -> None:
        match step, value:
            case "say", str():
                # What follows a search is a paragraph of its own.
                self.said += "\n\n" * bool(self._search_was_last and self.said) + value
                self._search_was_last = False
                self.voice.say(value)
                await until(lambda: self.run.stream.length == utf16_length(self.said))
            case "search", str() if len(self.searches) == MAX_ROUNDS:
                pass  # the agent would let the model search no more
            case "search", str():
                self._search_was_last = True
                self.searches.append(value)
                self.voice.search(value)
                await until(lambda: len(self.run.stream.searches) == len(self.searches))
            case "tick", _:
                await self.a.tick()
            case "doubled tick", _:  # its acknowledgement is lost
                await runs.tick(self.a.database, [self.run.tick()], LEASE)
            case "read", _:
                await self.b.watches._read()
            case "drop", int():
                await self.readers[value].drop()
            case _, int():
                where = self.a if step == "resume here" else self.b
                await self.readers[value].resume(where, self.viewer, self.sent)
            case _:
                raise AssertionError(step)
        await settled()

    async def end(self, how: str) -> None:
        """End it somehow, and see what its readers have."""
        match how:
            case "finish":
                self.voice.finish(*([] if self.said else ["a"]))
                self.said = self.said or "a"
                await self.a.replies.ended(self.viewer, self.sent.reply)
            case "stop here":
                await self.a.replies.stop(self.viewer, str(self.sent.reply.id))
            case "stop elsewhere":
                stopping = asyncio.create_task(
                    self.b.replies.stop(self.viewer, str(self.sent.reply.id))
                )
                while not self.run.stream.ended.done():
                    await self.a.tick()
                    await asyncio.sleep(0.001)
                await self._read_to_the_end(stopping)
            case "crash":
                await self.a.crash()
                self.a.running._ticker = None
                await expire_lease(self.b.database, self.sent.reply)
            case _:
                await expire_lease(self.b.database, self.sent.reply)
                await self.a.tick()
                await asyncio.shield(self.run.stream.ended)
        row = await stored(self.b.database, self.viewer, self.sent.reply.id)
        assert self.said.startswith(row.content)
        assert row.content_length == utf16_length(row.content)
        for reader in self.readers:
            await self._finish(reader, crashed=how == "crash")
            if how != "crash":
                assert reader.text == row.content == self.said
            else:
                assert self.said.startswith(reader.text)
                assert reader.text.startswith(row.content)
        statuses = {
            "finish": MessageStatus.COMPLETE,
            "stop here": MessageStatus.STOPPED,
            "stop elsewhere": MessageStatus.STOPPED,
        }
        assert row.status == statuses.get(how, MessageStatus.INTERRUPTED)

    async def _finish(self, reader: Reader, *, crashed: bool) -> None:
        """Let a reader come back, wherever, and hear how it ended."""
        if crashed and reader.follower is not None:
            await reader.drop()
        if reader.follower is None:
            reader.follower = self.b.follow(
                self.viewer, self.sent.reply.id, utf16_length(reader.text)
            )
        followed = reader.follower
        ending = asyncio.create_task(followed.all())
        await self._read_to_the_end(ending)
        if not crashed:
            assert followed.searches == self.searches
        reader.keep()

    async def _read_to_the_end(self, task: "asyncio.Task[object]") -> None:
        async with asyncio.timeout(20):
            while not task.done():
                await self.b.watches._read()
                await asyncio.sleep(0.001)
        task.result()


@pytest.mark.usefixtures("no_ticks")
@settings(
    max_examples=60,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking takes minutes here
    deadline=timedelta(seconds=30),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS, end=END)
async def test_who_resumes_gets_every_character_once_and_what_is_stored(
    a: Replica, b: Replica, voices: ScriptedModel, steps: list[tuple[str, str | int]], end: str
):
    story = Story(a, b, voices)
    await story.begin()
    try:
        for step, value in steps:
            await story.do(step, value)
        await story.end(end)
    finally:
        for reader in story.readers:
            if reader.follower is not None:
                await reader.follower.leave()
        story.run.agent.cancel()
        await asyncio.wait([story.run.agent])
