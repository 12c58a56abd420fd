"""Answers while the database is away: made of what all may read, and kept nowhere.

Whose passage is whose, only Postgres knows for certain. So nobody's own are looked at, and
there is no history: this is for first questions alone.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, assert_never

import structlog

from db.models import MessageStatus
from db.utf16 import utf16_length
from db.viewer import Viewer
from rag.agent import Agent, AgentEvent, Completed, Question
from rag.agent import Delta as AgentDelta
from rag.agent import Searched as AgentSearched
from rag.retrieval import Retrieval
from resolvers.citations import cited, stored_citation
from resolvers.events import Delta, Searched
from resolvers.failures import failure_shown
from resolvers.new_messages import NewMessage
from resolvers.quotas import Quota, Quotas

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class UnsavedReply:
    """A reply that has ended and stands nowhere, with what its row would have said."""

    status: MessageStatus
    content: str
    citations: list[dict[str, Any]]
    error: dict[str, Any] | None = None


UnsavedEvent = Searched | Delta | UnsavedReply


class UnsavedReplies:
    """Answers that belong to whoever asks: when they go away, so does the answer."""

    def __init__(
        self, agent: Agent, retrieval: Retrieval, quotas: Quotas, *, reply_timeout: timedelta
    ) -> None:
        self._agent = agent
        self._retrieval = retrieval
        self._quotas = quotas
        self._reply_timeout = reply_timeout

    async def allow(self, viewer: Viewer) -> None:
        """Take an answer off what the viewer may have. Raises `QuotaExceeded`."""
        await self._quotas.take(viewer, Quota.SEND_MESSAGE)

    async def answer(self, message: NewMessage) -> AsyncGenerator[UnsavedEvent]:
        """Answer a message that `Turns.send` has checked; the reply comes last, failed or not."""
        asked = Question(message.content, message.selected_text, message.chapter)
        said, length, searches = "", 0, list[Searched]()
        answering = self._agent.answer(asked, (), self._retrieval.search_shared)
        try:
            async with aclosing(self._in_time(answering)) as events:
                async for event in events:
                    match event:
                        case AgentSearched(query, found):
                            searches.append(Searched(query, [stored_citation(c) for c in found]))
                            yield searches[-1]
                        case AgentDelta(text):
                            yield Delta(length, text)
                            said, length = said + text, length + utf16_length(text)
                        case Completed(used):
                            citations = [stored_citation(each) for each in used]
                            yield UnsavedReply(MessageStatus.COMPLETE, said, citations)
                        case _:
                            assert_never(event)
        except Exception as failure:
            error = failure_shown(failure)
            log.warning("reply.unsaved_failed", code=error["code"], exc_info=failure)
            citations = cited(said, [each.citations for each in searches])
            yield UnsavedReply(MessageStatus.FAILED, said, citations, error)

    async def _in_time(self, events: AsyncGenerator[AgentEvent]) -> AsyncGenerator[AgentEvent]:
        """Pass events on while there is time. Raises `TimeoutError`."""
        deadline = time.monotonic() + self._reply_timeout.total_seconds()
        async with aclosing(events):
            while True:
                try:
                    event = await asyncio.wait_for(anext(events), deadline - time.monotonic())
                except StopAsyncIteration:
                    return
                yield event
