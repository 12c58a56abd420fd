"""The replies that this process is writing.

A run belongs to the server, not to a request: whoever asked may go away. Its text goes to
the row in one statement per tick for all runs together, and its end is stored before
anyone is told. Nothing ticks while nothing runs.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from contextvars import Context
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, assert_never

import structlog

from db import audit, messages, runs, turns
from db.audit import Action, Entity
from db.connections import to_json
from db.engine import Database, Transaction
from db.errors import DatabaseUnavailable, DataRefused
from db.ids import MessageId, RunId, SessionId, UserId
from db.messages import INTERRUPTED_ERROR, MessageRow
from db.models import MessageStatus
from db.runs import RunRow
from db.viewer import Viewer
from rag.agent import AgentEvent, Completed, well_formed
from rag.agent import Delta as AgentDelta
from rag.agent import Searched as AgentSearched
from resolvers.citations import cited, stored_citation
from resolvers.events import Searched
from resolvers.failures import INTERNAL, failure_shown
from resolvers.streams import ReplyStream

log = structlog.get_logger(__name__)

TICK_SECONDS = 0.25
"Often enough for a stop from elsewhere to take hold well within a second."
WRITE_FRACTION = 16
"Pending text is written once it is 1/16 of what is stored: each write copies the whole row."
WRITE_AFTER_SECONDS = 1.0
"At most this much text is lost with the server."
STORE_SECONDS = 3.0
"How long the database has to take the ends of replies, once somebody waits for that."
TELL_SECONDS = 1.0
"How long followers have to hear of those ends: a socket that is closed is told nothing more."
END_RETRY_SECONDS = 0.5
"While the database is away, an ended reply is held in memory and offered again this often."


@dataclass(frozen=True, slots=True)
class Stopper:
    """Who told a reply to stop, and by which request."""

    viewer: Viewer
    request_id: str | None

    async def note(self, transaction: Transaction, reply: MessageId) -> None:
        """Put it on record."""
        await audit.record(
            self.viewer,
            transaction,
            Action.STOP,
            Entity.MESSAGE,
            reply,
            request_id=self.request_id,
        )


class Run:
    """A reply being written by this process: its text so far, and how much of it is stored."""

    def __init__(self, user_id: UserId, reply: MessageRow, run_id: RunId) -> None:
        self.user_id = user_id
        self.reply = reply
        self.run_id = run_id
        self.stream = ReplyStream()
        self.agent: asyncio.Task[None]
        self._completed: Completed | None = None
        self.stopper: Stopper | None = None
        self._ends_as: MessageStatus | None = None
        self._error: dict[str, Any] | None = None
        self._is_ending = False
        self._stored = 0
        self._stored_searches = 0
        self._ticked_searches = 0
        self._pending_since: float | None = None
        self._kept_at = time.monotonic()

    @property
    def is_ticking(self) -> bool:
        return not self._is_ending

    @property
    def key(self) -> tuple[UserId, MessageId]:
        return self.user_id, self.reply.id

    def is_lost(self, lease: timedelta) -> bool:
        """Tell whether its lease has run out: others take it for dead, though it is not."""
        return time.monotonic() - self._kept_at >= lease.total_seconds()

    def stop(
        self,
        status: MessageStatus,
        error: dict[str, Any] | None = None,
        stopper: Stopper | None = None,
    ) -> None:
        """End it early, unless it is ending already."""
        if self._ends_as is None and not self._is_ending:
            self._ends_as, self._error, self.stopper = status, error, stopper
            self.agent.cancel()

    def take(self, event: AgentEvent) -> None:
        match event:
            case AgentDelta(text):
                self.stream.add(text)
                self._pending_since = self._pending_since or time.monotonic()
            case AgentSearched(query, citations):
                self.stream.search(Searched(query, [stored_citation(each) for each in citations]))
            case Completed():
                self._completed = event
            case _:
                assert_never(event)

    def tick(self) -> runs.Tick:
        """Say what the next tick writes: all that is pending where it is worth it, else nothing."""
        pending = self.stream.length - self._stored
        waited = time.monotonic() - (self._pending_since or time.monotonic())
        due = pending * WRITE_FRACTION >= self._stored or waited >= WRITE_AFTER_SECONDS
        text = self.stream.text_from(self._stored) if pending and due else ""
        length = self.stream.length if text else self._stored
        more = len(self.stream.searches) > self._stored_searches
        searches = to_json([asdict(each) for each in self.stream.searches]) if more else None
        self._ticked_searches = len(self.stream.searches)
        return runs.Tick(
            self.user_id, self.reply.id, self.run_id, self._stored, text, length, searches
        )

    def wrote(self, length: int) -> None:
        """Note that the tick was taken, and how much of the text the row holds."""
        self._kept_at = time.monotonic()
        self._stored_searches = self._ticked_searches
        self.stored(length)

    def stored(self, length: int) -> None:
        """Note how much of the text the row holds."""
        if length != self._stored:
            self._stored = length
            behind = length < self.stream.length
            self._pending_since = time.monotonic() if behind else None

    def ending(self) -> turns.Ending:
        """Say how it ended, once its agent is done. No tick writes to it from here on."""
        self._is_ending = True
        status, error = self._outcome()
        done, text = self._completed, self.stream.text_from(0)
        return turns.Ending(
            status=status,
            content=text,
            length=self.stream.length,
            citations=self._cited(text),
            searches=[asdict(each) for each in self.stream.searches],
            model=done.model if done else None,
            prompt_tokens=done.prompt_tokens if done else None,
            completion_tokens=done.completion_tokens if done else None,
            error=error,
        )

    def _outcome(self) -> tuple[MessageStatus, dict[str, Any] | None]:
        if self.agent.cancelled():
            status = self._ends_as or MessageStatus.INTERRUPTED
            interrupted = status is MessageStatus.INTERRUPTED
            return status, INTERRUPTED_ERROR if interrupted else self._error
        failure = self.agent.exception()
        if failure is None:
            return MessageStatus.COMPLETE, None
        error = failure_shown(failure)
        log.warning(
            "reply.failed", message_id=str(self.reply.id), code=error["code"], exc_info=failure
        )
        return MessageStatus.FAILED, error

    def _cited(self, text: str) -> list[dict[str, Any]]:
        """Give the citations whose markers stand in the text, whole or broken off, by marker."""
        if self._completed is not None:
            return [stored_citation(each) for each in self._completed.citations]
        return cited(text, [search.citations for search in self.stream.searches])


Answer = Callable[[Run], AsyncGenerator[AgentEvent]]
"What the agent does for a run."


class RunningReplies:
    """All runs of this process, and the one ticker that keeps their rows."""

    def __init__(self, database: Database, *, lease: timedelta, reply_timeout: timedelta) -> None:
        self.lease = lease
        self._database = database
        self._reply_timeout = reply_timeout
        self._runs: dict[tuple[UserId, MessageId], Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticker: asyncio.Task[None] | None = None

    def start(self, user_id: UserId, reply: MessageRow, run_id: RunId, answer: Answer) -> Run:
        """Begin to write a reply that `db.turns` has opened."""
        run = Run(user_id, reply, run_id)
        run.agent = asyncio.create_task(self._drain(run, answer(run)), name=f"agent {reply.id}")
        self._runs[run.key] = run
        self._tasks.add(task := asyncio.create_task(self._follow_through(run)))
        task.add_done_callback(self._tasks.discard)
        if self._ticker is None or self._ticker.done():
            # In a context of its own: it outlives the request that it begins with.
            self._ticker = asyncio.create_task(self._tick(), name="reply ticker", context=Context())
        return run

    def find(self, user_id: UserId, reply_id: MessageId) -> Run | None:
        return self._runs.get((user_id, reply_id))

    async def end_lost(self, user_id: UserId, session_id: SessionId) -> None:
        """Store what we have of a session's reply whose lease ran out, before others bury it.

        Raises `DatabaseUnavailable` where that can't be stored: no more than this is it there for
        anything else.
        """
        for run in list(self._runs.values()):
            is_there = (run.user_id, run.reply.session_id) == (user_id, session_id)
            if is_there and run.is_lost(self.lease):
                run.stop(MessageStatus.INTERRUPTED)
                ended, _ = await asyncio.wait({run.stream.ended}, timeout=STORE_SECONDS)
                if not ended:
                    raise DatabaseUnavailable("the reply before this one can't be stored")

    async def close(self, grace: timedelta) -> None:
        """Let the runs end by themselves for so long, then store the rest as INTERRUPTED."""
        if runs := list(self._runs.values()):
            ends = [run.stream.ended for run in runs]
            await asyncio.wait(ends, timeout=grace.total_seconds())
            for run in runs:
                run.stop(MessageStatus.INTERRUPTED)
            await asyncio.wait(ends, timeout=STORE_SECONDS)
            told = [asyncio.create_task(run.stream.told()) for run in runs]
            await asyncio.wait(told, timeout=TELL_SECONDS)
            self._tasks.update(told)
        # What the database did not take by now, the lease will tell of.
        still = [*self._tasks, *([self._ticker] if self._ticker else [])]
        for task in still:
            task.cancel()
        await asyncio.gather(*still, return_exceptions=True)

    async def _drain(self, run: Run, events: AsyncGenerator[AgentEvent]) -> None:
        async with asyncio.timeout(self._reply_timeout.total_seconds()):
            async with aclosing(events):
                async for event in events:
                    run.take(event)
                    await asyncio.sleep(0)  # followers see a piece before the next one comes

    async def _follow_through(self, run: Run) -> None:
        """See a run to its stored end, whatever becomes of the agent."""
        await asyncio.wait([run.agent])
        try:
            row = await self._store(run, run.ending())
        except Exception as failure:
            log.error("reply.not_stored", message_id=str(run.reply.id), exc_info=failure)
            run.stream.fail(failure)
        else:
            run.stream.end(row)
        finally:
            del self._runs[run.key]

    async def _store(self, run: Run, ending: turns.Ending) -> MessageRow:
        """Store an end, for as long as it takes: while the database is away, nothing is lost.

        Gives what stands: where another has settled the row, what they made of it; where it
        was deleted, what there was.
        """
        while True:
            place = run.key
            try:
                row = await self._end(run, place, ending)
                if row is None and await self._has_moved(run, place):
                    continue
                return (
                    row
                    or await messages.message_of(self._database, *run.key)
                    or _unstored(run.reply, ending)
                )
            except DataRefused:
                # The agent replaces what Postgres can't hold; something else has put it there.
                ending = _mended(ending)
            except DatabaseUnavailable as outage:
                log.warning("reply.end_delayed", message_id=str(run.reply.id), reason=str(outage))
                await asyncio.sleep(END_RETRY_SECONDS)

    async def _end(
        self, run: Run, place: tuple[UserId, MessageId], ending: turns.Ending
    ) -> MessageRow | None:
        """Store an end, and who stopped it, if anybody did."""
        stopper = run.stopper
        if stopper is None:
            return await turns.end_reply(self._database, *place, run.run_id, ending)

        async def end(transaction: Transaction) -> MessageRow | None:
            row = await turns.end_reply(transaction, *place, run.run_id, ending)
            if row is not None and row.status == MessageStatus.STOPPED:
                await stopper.note(transaction, row.id)
            return row

        return await self._database.transact(end)

    async def _tick(self) -> None:
        while self._runs:
            await asyncio.sleep(TICK_SECONDS)
            running = {run.run_id: run for run in self._runs.values() if run.is_ticking}
            if running:
                try:
                    await self._write(running)
                except DatabaseUnavailable as outage:
                    log.warning("reply.tick_delayed", count=len(running), reason=str(outage))
                except Exception:
                    log.exception("reply.tick_failed", count=len(running))

    async def _write(self, running: dict[RunId, Run]) -> None:
        """Write what is pending, hear of stops, and see to the rows that could not be written."""
        written, refused = await runs.tick(
            self._database, [run.tick() for run in running.values()], self.lease
        )
        for row in written:
            running[row.run_id].wrote(row.content_length)
            if row.stop_requested:
                running[row.run_id].stop(MessageStatus.STOPPED)
        for run_id in refused:
            log.error("reply.refused_by_database", message_id=str(running[run_id].reply.id))
            running[run_id].stop(MessageStatus.FAILED, INTERNAL)
        missed = running.keys() - {row.run_id for row in written} - set(refused)
        if missed:
            await self._look_up({run_id: running[run_id] for run_id in missed})

    async def _look_up(self, missed: dict[RunId, Run]) -> None:
        """Find out about rows that a tick passed over: locked, written already, or lost."""
        found = {row.run_id: row for row in await runs.find_runs(self._database, [*missed])}
        for run_id, run in missed.items():
            row = found.get(run_id)
            if row is None or row.is_expired:
                run.stop(MessageStatus.INTERRUPTED)
            else:
                await self._move(run, row)
                run.stored(row.content_length)

    async def _has_moved(self, run: Run, place: tuple[UserId, MessageId]) -> bool:
        """Look where a run's row is, and go on there. False: at that place still, or nowhere.

        A tick that was under way may have found it first.
        """
        for row in await runs.find_runs(self._database, [run.run_id]):
            await self._move(run, row)
        return run.key != place

    async def _move(self, run: Run, row: RunRow) -> None:
        """Go on with a run's row where it is now: under the user who claimed its visitor."""
        if (row.user_id, row.id) == run.key:
            return
        reply = await messages.message_of(self._database, row.user_id, row.id)
        if reply is not None:
            del self._runs[run.key]
            run.user_id, run.reply = row.user_id, reply
            self._runs[run.key] = run


def _mended(ending: turns.Ending) -> turns.Ending:
    """Make of an end that can't be stored one that can: a failure, its text well-formed."""
    return ending._replace(
        status=MessageStatus.FAILED,
        content=well_formed(ending.content),
        citations=[],
        searches=[],
        error=INTERNAL,
    )


def _unstored(reply: MessageRow, ending: turns.Ending) -> MessageRow:
    """Show a reply whose row was deleted as what there was of it."""
    return reply._replace(
        content=ending.content,
        content_length=ending.length,
        status=ending.status.value,
        citations=ending.citations,
        searches=ending.searches,
        model=ending.model,
        error=ending.error,
    )
