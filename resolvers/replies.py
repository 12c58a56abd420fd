"""Replies: followed, awaited and stopped, whichever process writes them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext

from db import messages, sessions, turns
from db.engine import Database, Transaction
from db.ids import MessageId, SessionId
from db.messages import MessageRow
from db.models import MessageRole, MessageStatus
from db.utf16 import utf16_length
from db.viewer import Viewer
from resolvers.errors import InvalidInput, NotFound, UserError
from resolvers.events import Delta, Ended, Rejected, ReplyEvent, Searched, Started
from resolvers.inputs import parse_id
from resolvers.runs import RunningReplies, Stopper
from resolvers.streams import ReplyStream
from resolvers.watches import Watches

FOREIGN_STOP_SECONDS = 5.0
"How long another process may take to stop a reply; its ticks come several times a second."


class Replies:
    """All replies of all processes: those of this one from memory, the others from their rows."""

    def __init__(self, database: Database, running: RunningReplies, watches: Watches) -> None:
        self._database = database
        self._running = running
        self._watches = watches

    async def follow(self, viewer: Viewer, id: str, offset: int) -> AsyncGenerator[ReplyEvent]:
        """Follow a reply, named by its id or its question's, from an offset in its text."""
        try:
            reply = await self._find(viewer, id)
            question = reply.reply_to and await messages.message(
                viewer, self._database, reply.reply_to
            )
        except UserError as error:
            yield Rejected(error)
            return
        async with aclosing(self.follow_turn(viewer, question or None, reply, offset)) as events:
            async for event in events:
                yield event

    async def follow_turn(
        self, viewer: Viewer, question: MessageRow | None, reply: MessageRow, offset: int
    ) -> AsyncGenerator[ReplyEvent]:
        """Follow a reply from an offset in UTF-16 code units, to its end."""
        if offset < 0:
            yield Rejected(InvalidInput("An offset is not negative.", "offset"))
            return
        if question is None:  # deleted since: there is no turn to follow any more
            yield Rejected(NotFound())
            return
        is_ours = self._running.find(viewer.user_id, reply.id) is not None
        if reply.status == MessageStatus.INTERRUPTED and not is_ours:
            await turns.settle_reply(self._database, viewer.user_id, reply.id)
            reply = await messages.message(viewer, self._database, reply.id) or reply
        yield Started(question, reply)
        if reply.status == MessageStatus.STREAMING or is_ours:
            async with self._stream(viewer, reply) as stream:
                async with aclosing(stream.follow(offset)) as events:
                    async for event in events:
                        yield event
            return
        for search in reply.searches:
            yield Searched(**search)
        stored = ReplyStream()
        stored.add(reply.content)
        if offset < stored.length:
            text = stored.text_from(offset)
            yield Delta(stored.length - utf16_length(text), text)
        yield Ended(reply)

    async def ended(self, viewer: Viewer, reply: MessageRow) -> MessageRow:
        """Wait for a reply's end."""
        if reply.status != MessageStatus.STREAMING:
            return reply
        async with self._stream(viewer, reply) as stream:
            return await asyncio.shield(stream.ended)

    async def active(self, viewer: Viewer, id: SessionId) -> MessageRow | None:
        """Give the reply now being written in a session."""
        return (await messages.active_replies(viewer, self._database, [id])).get(id)

    async def stop(self, viewer: Viewer, id: str, request_id: str | None = None) -> MessageRow:
        """Stop a reply, named by its id or its question's; one that has ended stays as it is.

        Raises `NotFound`.
        """
        reply = await self._find(viewer, id)
        return await self.stop_row(viewer, reply, Stopper(viewer, request_id))

    async def stop_row(
        self, viewer: Viewer, reply: MessageRow, stopper: Stopper | None = None
    ) -> MessageRow:
        """Stop a reply, and give how it ended; unchanged, if nobody heard in time.

        That is noted in the audit log for a `stopper`, and else part of what is done besides.
        """
        if reply.status != MessageStatus.STREAMING:
            return reply
        run = self._running.find(viewer.user_id, reply.id)
        if run is not None:
            run.stop(MessageStatus.STOPPED, stopper=stopper)
            return await asyncio.shield(run.stream.ended)

        async def ask(transaction: Transaction) -> None:
            await sessions.lock_session(viewer, transaction, reply.session_id)
            is_asked = await turns.ask_to_stop(viewer, transaction, reply.id)
            if is_asked and stopper is not None:
                await stopper.note(transaction, reply.id)

        await self._database.transact(ask, idempotent=True)
        try:
            async with asyncio.timeout(FOREIGN_STOP_SECONDS):
                return await self.ended(viewer, reply)
        except TimeoutError:
            return await messages.message(viewer, self._database, reply.id) or reply

    async def stop_in_session(
        self, viewer: Viewer, id: SessionId, chapter: str | None = None
    ) -> None:
        """Stop what is being written in a session (in one chapter of it, if given)."""
        active = await self.active(viewer, id)
        if active is not None and chapter in (None, active.chapter):
            await self.stop_row(viewer, active)

    async def _find(self, viewer: Viewer, id: str) -> MessageRow:
        message_id = parse_id(id, MessageId)
        row = message_id and await messages.message(viewer, self._database, message_id)
        if row and row.role == MessageRole.USER:
            row = await messages.reply_to(viewer, self._database, row.id)
        if not row:
            raise NotFound
        return row

    def _stream(
        self, viewer: Viewer, reply: MessageRow
    ) -> AbstractAsyncContextManager[ReplyStream]:
        run = self._running.find(viewer.user_id, reply.id)
        if run is not None:
            return nullcontext(run.stream)
        return self._watches.watch(viewer.user_id, reply)
