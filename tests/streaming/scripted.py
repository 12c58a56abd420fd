"""Replicas in one process, and a model that says what the test tells it, when it tells it.

async with replica(database_url, model) as a, replica(database_url, model) as b:
    sent = await a.send(viewer, "Question")
    follower = b.follow(viewer, sent.reply.id)
    model["Question"].say("One", ", two")
    await follower.has("One, two")
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from sqlalchemy import event, text

from db import messages
from db.connections import Patience
from db.engine import Database
from db.ids import ChunkId, DocumentId, MessageId
from db.messages import MessageRow
from db.urls import parse_url
from db.utf16 import utf16_length
from db.viewer import Viewer
from rag.agent import Agent, Search
from rag.ports import (
    Finished,
    ModelError,
    ModelEvent,
    Passage,
    TextPiece,
    Tool,
    ToolCall,
    ToolTurn,
    Turn,
    Usage,
    UserTurn,
)
from rag.retrieval import Retrieval
from resolvers.events import Delta, Ended, ReplyEvent, Searched, Started
from resolvers.new_messages import NewMessage
from resolvers.quotas import NoQuotas
from resolvers.replies import Replies
from resolvers.runs import Run, RunningReplies
from resolvers.turns import SentTurn, Turns
from resolvers.watches import Watches
from tests.operations import PATIENCE_SECONDS, until

PASSAGE = Passage(
    chunk_id=ChunkId(uuid5(NAMESPACE_URL, "chunk")),
    document_id=DocumentId(uuid5(NAMESPACE_URL, "document")),
    title="Handbook",
    source_url=None,
    heading=None,
    page=None,
    content="A lease is a promise with an end.",
    score=1.0,
)
LEASE = timedelta(seconds=30)
TURNS_OF_THE_LOOP = 30
"Enough for whatever needs no database to come through all the tasks on its way."


# --- the model ------------------------------------------------------------------------


class Voice:
    """What the model says to one question. `calls` counts the replies that it was asked for.

    Brackets and spaces at the end of a piece are best avoided: the agent holds them back.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.searches = 0
        self.said: asyncio.Queue[ModelEvent | Exception] = asyncio.Queue()

    def say(self, *pieces: str) -> None:
        for piece in pieces:
            self.said.put_nowait(TextPiece(piece))

    def search(self, query: str) -> None:
        self.searches += 1
        call = ToolCall(f"call-{self.searches}", "search_documents", f'{{"query": "{query}"}}')
        self.said.put_nowait(call)
        self.said.put_nowait(Finished("tool_calls"))

    def finish(self, *pieces: str) -> None:
        self.say(*pieces)
        self.said.put_nowait(Usage(11, 7))
        self.said.put_nowait(Finished("stop"))

    def fail(self, failure: ModelError) -> None:
        self.said.put_nowait(failure)


class ScriptedModel:
    """Has a voice for each question, whenever it is asked."""

    name = "scripted"

    def __init__(self) -> None:
        self.voices: defaultdict[str, Voice] = defaultdict(Voice)

    def __getitem__(self, question: str) -> Voice:
        return self.voices[question]

    async def stream(
        self, turns: Sequence[Turn], tools: Sequence[Tool]
    ) -> AsyncGenerator[ModelEvent]:
        asked = [turn.question for turn in turns if isinstance(turn, UserTurn)]
        voice = self.voices[asked[-1]]
        voice.calls += not isinstance(turns[-1], ToolTurn)
        while True:
            said = await voice.said.get()
            if isinstance(said, Exception):
                raise said
            yield said
            if isinstance(said, Finished):
                return

    async def close(self) -> None:
        pass


class OnePassage(Retrieval):
    """Finds the same passage, whatever is asked."""

    def __init__(self) -> None:
        pass

    def bound(
        self, owner: Callable[[], Viewer], document_ids: Sequence[DocumentId] | None
    ) -> Search:
        async def search(query: str) -> Sequence[Passage]:
            return [PASSAGE]

        return search


# --- a replica ------------------------------------------------------------------------


class Follower:
    """One who follows in the background, and keeps what they are told."""

    def __init__(self, events: AsyncGenerator[ReplyEvent], offset: int = 0) -> None:
        self.offset = offset
        self.events: list[ReplyEvent] = []
        self._task = asyncio.create_task(self._follow(events))

    async def _follow(self, events: AsyncGenerator[ReplyEvent]) -> None:
        async with aclosing(events) as following:
            async for each in following:
                self.events.append(each)

    @property
    def deltas(self) -> list[Delta]:
        return [each for each in self.events if isinstance(each, Delta)]

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)

    @property
    def searches(self) -> list[str]:
        return [each.query for each in self.events if isinstance(each, Searched)]

    async def started(self) -> Started:
        await until(lambda: bool(self.events) or self._task.done())
        started = (self.events or [self._task.result()])[0]
        assert isinstance(started, Started)
        return started

    async def has(self, text: str) -> None:
        """Wait until they have read this."""
        await until(lambda: text in self.text or self._task.done())
        assert text in self.text, self.text

    async def searched(self, query: str) -> None:
        await until(lambda: query in self.searches)

    async def ended(self) -> MessageRow:
        """Wait for the end, and see that all was told as it should be."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.shield(self._task)
        check_told(self.events, self.offset)
        assert isinstance(self.events[-1], Ended)
        return self.events[-1].reply

    async def all(self) -> list[ReplyEvent]:
        """Wait until there is no more to be told."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.shield(self._task)
        return self.events

    async def leave(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def check_told(events: Sequence[ReplyEvent], offset: int = 0) -> str:
    """Started first, Ended last and once, deltas that touch; gives their text."""
    assert isinstance(events[0], Started), events
    assert isinstance(events[-1], Ended), events
    assert all(isinstance(each, Searched | Delta) for each in events[1:-1]), events
    told = [each for each in events if isinstance(each, Delta)]
    check_contiguous(told)
    if told:
        assert told[0].offset in (offset, offset - 1)
    return "".join(delta.text for delta in told)


def check_contiguous(deltas: Sequence[Delta]) -> None:
    for delta, following in pairwise(deltas):
        assert delta.offset + utf16_length(delta.text) == following.offset
    for delta in deltas:
        assert delta.text
        delta.text.encode()  # fails on half a pair


@dataclass(frozen=True)
class Replica:
    """What one process has, but for the edge."""

    database: Database
    running: RunningReplies
    watches: Watches
    replies: Replies
    turns: Turns
    followers: list[Follower] = field(default_factory=list[Follower])

    async def send(self, viewer: Viewer, content: str = "Question", **more: Any) -> SentTurn:
        return await self.turns.send(viewer, NewMessage(content, **more), "request")

    def follow(self, viewer: Viewer, id: UUID | str, offset: int = 0) -> Follower:
        follower = Follower(self.replies.follow(viewer, str(id), offset), offset)
        self.followers.append(follower)
        return follower

    def run_of(self, reply: MessageRow) -> Run:
        """Give the run of a reply that this replica writes."""
        [run] = [run for run in self.running._runs.values() if run.reply.id == reply.id]
        return run

    async def tick(self) -> None:
        """Write what is running once, now."""
        running = {run.run_id: run for run in self.running._runs.values() if run.is_ticking}
        if running:
            await self.running._write(running)

    async def crash(self) -> None:
        """Lose everything that is in memory."""
        tasks = [*self.running._tasks, *([self.running._ticker] if self.running._ticker else [])]
        agents = [run.agent for run in self.running._runs.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for agent in agents:
            agent.cancel()
        await asyncio.gather(*agents, return_exceptions=True)
        self.running._runs.clear()


@asynccontextmanager
async def replica(
    url: str,
    model: ScriptedModel,
    *,
    lease: timedelta = LEASE,
    pool_size: int = 5,
    patience: Patience = Patience(),  # noqa: B008 - it is frozen
) -> AsyncGenerator[Replica]:
    database = Database(parse_url(url), pool_size=pool_size, patience=patience)
    running = RunningReplies(database, lease=lease, reply_timeout=timedelta(seconds=60))
    watches = Watches(database)
    replies = Replies(database, running, watches)
    agent = Agent(model, history_budget_tokens=6_000)
    turns = Turns(database, agent, OnePassage(), running, replies, NoQuotas())
    opened = Replica(database, running, watches, replies, turns)
    try:
        yield opened
    finally:
        await asyncio.gather(*(follower.leave() for follower in opened.followers))
        await watches.close()
        for run in running._runs.values():
            run.agent.cancel()
        await running.close(timedelta(seconds=0.2))
        await database.close()


# --- the database, behind the product's back ------------------------------------------


async def stored(database: Database, viewer: Viewer, id: MessageId) -> MessageRow:
    """Read a message as it stands."""
    row = await messages.message_of(database, viewer.user_id, id)
    assert row is not None
    return row


async def stores(where: Replica, viewer: Viewer, reply: MessageRow, text: str) -> None:
    """Wait until the row holds just this."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await stored(where.database, viewer, reply.id)).content != text:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def sql(database: Database, statement: str, **values: Any) -> Sequence[Any]:
    return await database.rows(text(statement), values)


async def expire_lease(database: Database, reply: MessageRow) -> None:
    statement = "UPDATE chat_messages SET lease_until = now() - interval '1 second' WHERE id = :id"
    await sql(database, statement, id=reply.id)


@contextmanager
def statements_of(database: Database) -> Generator[list[str]]:
    """Give the list of all statements that go to a database, whoever sends them."""
    statements: list[str] = []

    def record(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    engine = database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", record)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", record)


async def settled() -> None:
    """Let everything happen that waits for nothing outside this process."""
    for _ in range(TURNS_OF_THE_LOOP):
        await asyncio.sleep(0)
