"""Sending a message: the turn is begun in one transaction, then written by the server.

The client names its message, so sending the same one again joins or replays its reply
instead of asking twice. That is asked first, before whether the session is busy.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import structlog

from db import audit, documents, messages, sessions, turns, users
from db.audit import Action, Entity
from db.engine import Database, Transaction
from db.errors import CommitUnknown
from db.ids import DocumentId, MessageId, RunId, SessionId, new_id
from db.messages import MessageRow
from db.models import MessageRole
from db.sessions import SessionRow
from db.utf16 import utf16_length
from db.viewer import Viewer
from rag.agent import Agent, AgentEvent, PastTurn, Question
from rag.retrieval import Retrieval
from resolvers.beginnings import begun_after_all
from resolvers.errors import (
    IdConflict,
    NotFound,
    ReplyInProgress,
    Unavailable,
)
from resolvers.new_messages import (
    CheckedMessage,
    IfBusy,
    NewMessage,
    check_message,
    is_same,
    title_of,
)
from resolvers.quotas import Quota, Quotas, Take, taking
from resolvers.replies import Replies
from resolvers.runs import Run, RunningReplies

log = structlog.get_logger(__name__)

HISTORY_MESSAGES = 40
"Far more than fits most budgets; the agent keeps the newest that do."
LEASE_SLACK_SECONDS = 5.0
"After the lease of a dead server's reply, for the attempt that finds it to have run out."
BEGIN_ATTEMPTS = 5
"A beginning that collides is read again; colliding this often means something is wrong."


class SentTurn(NamedTuple):
    """Both messages of a turn, and the session they stand in."""

    session: SessionRow
    question: MessageRow
    reply: MessageRow


class _Collision(Exception):
    """Another send was quicker: roll back and read what it wrote."""


class _Busy(Exception):
    """Another reply is being written in this session: roll back."""

    def __init__(self, session_id: SessionId) -> None:
        self.session_id = session_id


class Turns:
    """Begins turns."""

    def __init__(
        self,
        database: Database,
        agent: Agent,
        retrieval: Retrieval,
        running: RunningReplies,
        replies: Replies,
        quotas: Quotas,
    ) -> None:
        self._database = database
        self._agent = agent
        self._retrieval = retrieval
        self._running = running
        self._replies = replies
        self._quotas = quotas
        self._is_refusing = False
        self._beginnings: set[asyncio.Task[SentTurn]] = set()
        self._looking: set[asyncio.Task[None]] = set()

    async def send(self, viewer: Viewer, message: NewMessage, request_id: str) -> SentTurn:
        """Begin a turn, or join the one that this message already began.

        Raises `InvalidInput`, `NotFound`, `IdConflict`, `ReplyInProgress`, `QuotaExceeded`, and
        `Unavailable` where the server is going down. Joining costs nothing of the quota.
        """
        checked = check_message(message)
        collisions, began = 0, time.monotonic()
        patience = self._running.lease.total_seconds() + LEASE_SLACK_SECONDS
        while collisions < BEGIN_ATTEMPTS and time.monotonic() - began < patience:
            present = await self._present(viewer, checked)
            if present is not None:
                return present
            await self._check_documents(viewer, checked.document_ids)
            try:
                # Whoever asks may go away in the midst of the commit: what is stored has to run.
                beginning = asyncio.create_task(self._begin(viewer, checked, request_id))
                self._beginnings.add(beginning)
                beginning.add_done_callback(self._has_ended)
                return await asyncio.shield(beginning)
            except _Collision:
                collisions += 1
            except _Busy as busy:
                active = await self._replies.active(viewer, busy.session_id)
                if active is None:
                    collisions += 1
                    continue
                if message.if_busy is IfBusy.REJECT:
                    # What is in the way may be this very message, sent at the same time.
                    present = await self._present(viewer, checked)
                    if present is not None:
                        return present
                    raise ReplyInProgress(active) from None
                # Whoever writes it hears of that within a second, unless it has died: then its
                # lease has to run out.
                await self._replies.stop_row(viewer, active)
        raise Unavailable

    def refuse_new(self) -> None:
        """Begin no more turns: the server is going down. What has begun goes on."""
        self._is_refusing = True

    async def close(self) -> None:
        """See those turns through to their start whose messages are being stored."""
        self.refuse_new()
        await asyncio.gather(*self._beginnings, return_exceptions=True)
        for task in self._looking:
            task.cancel()
        await asyncio.gather(*self._looking, return_exceptions=True)

    def _has_ended(self, beginning: asyncio.Task[SentTurn]) -> None:
        self._beginnings.discard(beginning)
        if not beginning.cancelled():
            beginning.exception()  # nothing was stored then: who has gone need not hear why

    async def _present(self, viewer: Viewer, sent: CheckedMessage) -> SentTurn | None:
        """Find the turn that this message began already. Raises `IdConflict` if it is another."""
        if sent.message_id is None:
            return None
        question = await messages.message(viewer, self._database, sent.message_id)
        if question is None:
            return None
        if question.role != MessageRole.USER:
            raise IdConflict("This id is a reply's.")
        session = await sessions.session(viewer, self._database, question.session_id)
        if session is not None and not is_same(question, session, sent):
            raise IdConflict("There is another message of this id already.")
        reply = await messages.reply_to(viewer, self._database, question.id)
        if reply is None or session is None:
            raise IdConflict("The reply to this message was deleted. Send it under another id.")
        return SentTurn(session, question, reply)

    async def _check_documents(self, viewer: Viewer, ids: list[DocumentId] | None) -> None:
        if ids:
            found = await documents.documents_by_id(viewer, self._database, ids)
            if len(found) < len(ids):
                raise NotFound

    async def _begin(self, viewer: Viewer, sent: CheckedMessage, request_id: str) -> SentTurn:
        if self._is_refusing:
            raise Unavailable("The server is going down. Send it again in a moment.")
        for id in sent.session_ids:
            await self._running.end_lost(viewer.user_id, id)
        run_id = RunId(new_id())

        async def begin(transaction: Transaction, pay: Take) -> SentTurn:
            await users.ensure_user(viewer, transaction)
            session, is_new = await self._claim_session(viewer, transaction, sent)
            await turns.settle_session(viewer, transaction, session.id)
            question = await turns.write_question(
                viewer,
                transaction,
                id=sent.message_id or MessageId(new_id()),
                session_id=session.id,
                position=session.last_position - 1,
                content=sent.content,
                length=utf16_length(sent.content),
                chapter=sent.chapter,
                selected_text=sent.selected_text,
                document_ids=sent.document_ids,
            )
            if question is None:
                raise _Collision
            reply = await turns.open_reply(
                viewer,
                transaction,
                id=MessageId(new_id()),
                run_id=run_id,
                question=question,
                lease=self._running.lease,
            )
            if reply is None:
                raise _Busy(session.id)
            await pay()
            detail: dict[str, Any] = {"session_id": str(session.id), "reply_id": str(reply.id)}
            if is_new:
                detail["session_is_new"] = True
            await audit.record(
                viewer, transaction, Action.SEND, Entity.MESSAGE, question.id, detail, request_id
            )
            return SentTurn(session, question, reply)

        try:
            async with taking(self._quotas, viewer, Quota.SEND_MESSAGE) as pay:
                begun = await self._database.transact(lambda transaction: begin(transaction, pay))
        except CommitUnknown:
            self._looking.add(task := asyncio.create_task(self._look_for(viewer, sent, run_id)))
            task.add_done_callback(self._looking.discard)
            raise
        self._start(viewer, sent, run_id, begun.question, begun.reply)
        return begun

    async def _look_for(self, viewer: Viewer, sent: CheckedMessage, run_id: RunId) -> None:
        """Write the reply of a turn, should it turn out to have begun."""
        begun = await begun_after_all(self._database, run_id, self._running.lease)
        if begun is not None and not self._is_refusing:
            self._start(viewer, sent, run_id, begun.question, begun.reply)

    def _start(
        self,
        viewer: Viewer,
        sent: CheckedMessage,
        run_id: RunId,
        question: MessageRow,
        reply: MessageRow,
    ) -> None:
        answer = partial(self._answer, viewer, question, sent.document_ids)
        self._running.start(viewer.user_id, reply, run_id, answer)

    async def _claim_session(
        self, viewer: Viewer, transaction: Transaction, sent: CheckedMessage
    ) -> tuple[SessionRow, bool]:
        """Lock the session for two more messages, making it where it is not there yet.

        The flag says whether it was made now.
        """
        title = title_of(sent.content)
        for id in sent.session_ids:
            present = await sessions.claim_session(viewer, transaction, id, adding=2, title=title)
            if present is not None:
                return present, False
        if sent.session_key is not None:
            present = await sessions.claim_keyed_session(
                viewer, transaction, sent.session_key, adding=2, title=title
            )
            if present is not None:
                return present, False
        made = await sessions.make_session(
            viewer,
            transaction,
            sent.session_id or SessionId(new_id()),
            title=title,
            client_key=sent.session_key if sent.session_id is None else None,
            opening_messages=2,
        )
        if made is None:
            raise _Collision
        return made, True

    async def _answer(
        self,
        viewer: Viewer,
        question: MessageRow,
        document_ids: list[DocumentId] | None,
        run: Run,
    ) -> AsyncGenerator[AgentEvent]:
        past = await messages.history_before(
            viewer,
            self._database,
            question.session_id,
            question.position,
            at_most=HISTORY_MESSAGES,
        )
        asked = Question(question.content, question.selected_text, question.chapter)
        history = [
            PastTurn("user" if row.role == MessageRole.USER else "assistant", row.content)
            for row in past
        ]

        def owner() -> Viewer:
            """Give whose reply it is by now: who claims a visitor takes their documents along."""
            return replace(viewer, user_id=run.user_id)

        search = self._retrieval.bound(owner, document_ids)
        async for event in self._agent.answer(asked, history, search):
            yield event
