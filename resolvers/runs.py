"""The replies that this process is writing.

A run belongs to the server, not to a request: whoever asked may go away. Its text goes to
the row in one statement per tick for all runs together, and its end is stored before
anyone is told. Nothing ticks while nothing runs.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

import structlog

from db import turns
from db.engine import Database
from db.errors import DatabaseError, DatabaseUnavailable
from db.ids import MessageId, RunId, SessionId, UserId
from db.messages import INTERRUPTED_ERROR, MessageRow
from db.models import MessageStatus
from db.utf16 import utf16_length
from rag.agent import AgentEvent, Completed, Delta, Searched
from rag.citations import Citation, MarkerFilter
from rag.ports import (
    ContextTooLong,
    EmbedderUnavailable,
    IndexUnavailable,
    ModelError,
    ModelRefused,
    ModelTimeout,
)

log = structlog.get_logger(__name__)

TICK_SECONDS = 0.25
"Often enough for a stop from elsewhere to take hold well within a second."
WRITE_FRACTION = 16
"Pending text is written once it is 1/16 of what is stored: each write copies the whole row."
WRITE_AFTER_SECONDS = 1.0
"At most this much text is lost with the server."
END_RETRY_SECONDS = 1.0
"While the database is away, an ended reply is held in memory and offered again this often."


@dataclass(slots=True)
class Run:
    """A reply being written by this process: what it says so far, and who waits for its end."""

    user_id: UserId
    session_id: SessionId
    reply_id: MessageId
    run_id: RunId
    agent: asyncio.Task[None] = field(init=False)
    ended: asyncio.Future[MessageRow | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    text: str = ""
    length: int = 0
    stored_length: int = 0
    stored_chars: int = 0
    pending_since: float | None = None
    searches: list[Searched] = field(default_factory=list[Searched])
    completed: Completed | None = None
    ends_as: MessageStatus | None = None
    storing: bool = False

    def stop(self, status: MessageStatus) -> None:
        """End it early, unless it is ending already."""
        if self.ends_as is None and not self.storing:
            self.ends_as = status
            self.agent.cancel()

    def take(self, event: AgentEvent) -> None:
        match event:
            case Delta(text):
                self.text += text
                self.length += utf16_length(text)
                self.pending_since = self.pending_since or time.monotonic()
            case Searched():
                self.searches.append(event)
            case Completed():
                self.completed = event

    def tick(self) -> turns.Tick:
        """Say what the next tick writes: all that is pending where it is worth it, else nothing."""
        pending = self.length - self.stored_length
        waited = time.monotonic() - (self.pending_since or time.monotonic())
        due = pending * WRITE_FRACTION >= self.stored_length or waited >= WRITE_AFTER_SECONDS
        text = self.text[self.stored_chars :] if pending and due else ""
        length = self.length if text else self.stored_length
        return turns.Tick(
            self.user_id, self.reply_id, self.run_id, self.stored_length, text, length
        )

    def wrote(self, tick: turns.Tick) -> None:
        if tick.text:
            self.stored_chars += len(tick.text)
            self.stored_length = tick.length
            self.pending_since = None if self.length == tick.length else time.monotonic()

    def ending(self, status: MessageStatus, error: dict[str, Any] | None) -> turns.Ending:
        done = self.completed
        citations = list(done.citations) if done else self._cited_so_far()
        return turns.Ending(
            status=status,
            content=self.text,
            length=self.length,
            citations=[asdict(each) for each in citations],
            searches=[asdict(each) for each in self.searches],
            model=done.model if done else None,
            prompt_tokens=done.prompt_tokens if done else None,
            completion_tokens=done.completion_tokens if done else None,
            error=error,
        )

    def _cited_so_far(self) -> list[Citation]:
        """Give the citations of a text that broke off, by marker."""
        found = {each.marker: each for search in self.searches for each in search.citations}
        markers = MarkerFilter(found.keys())
        markers.feed(self.text)
        markers.finish()
        return [found[marker] for marker in sorted(markers.used)]


class RunningReplies:
    """All runs of this process, and the one ticker that keeps their rows."""

    def __init__(self, database: Database, *, lease: timedelta, reply_timeout: timedelta) -> None:
        self.lease = lease
        self._database = database
        self._reply_timeout = reply_timeout
        self._runs: dict[tuple[UserId, MessageId], Run] = {}
        self._ticker: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(
        self, user_id: UserId, reply: MessageRow, run_id: RunId, events: AsyncGenerator[AgentEvent]
    ) -> Run:
        """Begin to write a reply that `db.turns` has opened."""
        run = Run(user_id, reply.session_id, reply.id, run_id)
        run.agent = asyncio.create_task(self._drain(run, events), name=f"agent {reply.id}")
        self._runs[user_id, reply.id] = run
        self._tasks.add(task := asyncio.create_task(self._follow_through(run)))
        task.add_done_callback(self._tasks.discard)
        if self._ticker is None or self._ticker.done():
            self._ticker = asyncio.create_task(self._tick(), name="reply ticker")
        return run

    def find(self, user_id: UserId, reply_id: MessageId) -> Run | None:
        return self._runs.get((user_id, reply_id))

    async def stop(self, run: Run, status: MessageStatus) -> MessageRow | None:
        """End a run early with what it has, and wait until that is stored. Null: no row left."""
        run.stop(status)
        return await asyncio.shield(run.ended)

    async def close(self, grace: timedelta) -> None:
        """Let the runs end by themselves for so long, then store the rest as INTERRUPTED."""
        running = list(self._runs.values())
        if running:
            await asyncio.wait([run.ended for run in running], timeout=grace.total_seconds())
        left = [self.stop(run, MessageStatus.INTERRUPTED) for run in self._runs.values()]
        await asyncio.gather(*left)
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)

    async def _drain(self, run: Run, events: AsyncGenerator[AgentEvent]) -> None:
        async with asyncio.timeout(self._reply_timeout.total_seconds()):
            async with aclosing(events):
                async for event in events:
                    run.take(event)

    async def _follow_through(self, run: Run) -> None:
        """See a run to its stored end, whatever becomes of the agent. Itself never cancelled."""
        await asyncio.wait([run.agent])
        status, error = _outcome(run)
        run.storing = True
        try:
            row = await self._store(run, run.ending(status, error))
        except Exception as failure:
            log.error("reply.not_stored", message_id=str(run.reply_id), exc_info=failure)
            run.ended.set_exception(failure)
            run.ended.exception()  # there may be nobody left to see it
        else:
            run.ended.set_result(row)
        finally:
            del self._runs[run.user_id, run.reply_id]

    async def _store(self, run: Run, ending: turns.Ending) -> MessageRow | None:
        """Store an end, for as long as it takes: while the database is away, nothing is lost."""
        while True:
            try:
                return await turns.end_reply(
                    self._database, run.user_id, run.reply_id, run.run_id, ending
                )
            except DatabaseUnavailable:
                log.warning("reply.end_delayed", message_id=str(run.reply_id))
                await asyncio.sleep(END_RETRY_SECONDS)

    async def _tick(self) -> None:
        while self._runs:
            await asyncio.sleep(TICK_SECONDS)
            running = {run.run_id: run for run in self._runs.values() if not run.storing}
            if not running:
                continue
            ticks = {run_id: run.tick() for run_id, run in running.items()}
            try:
                found = await turns.tick(self._database, list(ticks.values()), self.lease)
            except DatabaseError as failure:
                log.warning("reply.tick_delayed", count=len(ticks), reason=str(failure))
                continue
            for row in found:
                run = running[row.run_id]
                run.wrote(ticks[row.run_id])
                if row.stop_requested:
                    run.stop(MessageStatus.STOPPED)


def _outcome(run: Run) -> tuple[MessageStatus, dict[str, Any] | None]:
    """Say how a run whose agent is done has ended."""
    if run.agent.cancelled():
        status = run.ends_as or MessageStatus.INTERRUPTED
        return status, INTERRUPTED_ERROR if status is MessageStatus.INTERRUPTED else None
    failure = run.agent.exception()
    if failure is None:
        return MessageStatus.COMPLETE, None
    error = failure_shown(failure)
    log.warning("reply.failed", message_id=str(run.reply_id), code=error["code"], exc_info=failure)
    return MessageStatus.FAILED, error


def failure_shown(failure: BaseException) -> dict[str, Any]:
    """Say what a client may know of a failed reply: a code, a sentence, whether to try again."""
    match failure:
        case ModelRefused():
            return _shown("MODEL_REFUSED", "The model declined to answer.", retryable=False)
        case ContextTooLong():
            text = "The conversation is longer than the model can read."
            return _shown("CONTEXT_TOO_LONG", text, retryable=False)
        case ModelTimeout() | TimeoutError():
            return _shown("TIMEOUT", "The reply took too long.", retryable=True)
        case ModelError():
            return _shown("MODEL_UNAVAILABLE", "The model can't be reached.", retryable=True)
        case IndexUnavailable() | EmbedderUnavailable() | DatabaseUnavailable():
            text = "The documents can't be searched at the moment."
            return _shown("RETRIEVAL_UNAVAILABLE", text, retryable=True)
        case _:
            return _shown("INTERNAL", "Something went wrong on our side.", retryable=True)


def _shown(code: str, message: str, *, retryable: bool) -> dict[str, Any]:
    return {"code": code, "message": message, "retryable": retryable}
