"""A message and its answer, over HTTP: all at once, or as it is written.

While the database is away a first question is answered all the same, from what all may read
(`resolvers.unsaved`), and the answer says that nothing was kept.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, assert_never
from uuid import UUID, uuid5

import orjson
import structlog

from db.errors import CommitUnknown, DatabaseUnavailable, PoolExhausted
from db.messages import MessageRow
from db.models import MessageStatus
from graphql_api.expiry import while_believed
from graphql_api.rest.bodies import ChatAnswer, ChatBody
from graphql_api.rest.caller import Caller
from graphql_api.rest.problems import ReplyFailed, problem_of
from graphql_api.transports import EventStreamTransport
from resolvers.citations import citations_of
from resolvers.events import Delta, Ended, Rejected, ReplyEvent, Searched, Started
from resolvers.failures import INTERNAL
from resolvers.inputs import check_text, parse_uuid
from resolvers.new_messages import IfBusy, NewMessage
from resolvers.turns import SentTurn
from resolvers.unsaved import UnsavedEvent, UnsavedReply

MAX_IDEMPOTENCY_KEY = 255

EVENTS = EventStreamTransport()

_NAMESPACE = UUID("f3b0a4de-0b5c-5f0a-9a3e-3d9c1e7a6b20")
"Any fixed UUID; changing it would make new messages of those that are sent again."

log = structlog.get_logger(__name__)


class Turn:
    """A message that was taken; `sent` is null where it could not be stored."""

    def __init__(
        self, caller: Caller, message: NewMessage, called: str | None, sent: SentTurn | None
    ) -> None:
        self._caller = caller
        self._message = message
        self._sent = sent
        self._said = {
            "session_id": called or (caller.calls(sent.session) if sent else caller.key),
            "user_message_id": sent and str(sent.question.id),
            "message_id": sent and str(sent.reply.id),
        }

    async def answer(self) -> ChatAnswer:
        """Wait for the reply. Raises `ReplyFailed`."""
        services = self._caller.context.services
        if self._sent is not None:
            return self._ended(await services.replies.ended(self._caller.viewer, self._sent.reply))
        async with aclosing(services.unsaved.answer(self._message)) as events:
            async for event in events:
                if isinstance(event, UnsavedReply):
                    return self._ended(event)
        raise AssertionError("a reply comes last")

    async def events(self) -> AsyncGenerator[str]:
        """Tell the reply as Server-Sent Events: started (searched | delta)* (ended | error)."""
        context = self._caller.context
        try:
            yield _event("started", self._said)
            async with aclosing(while_believed(context, self._happening())) as happening:
                async for event in happening:
                    match event:
                        case Started():
                            pass
                        case Searched(query, citations):
                            yield _event("searched", {"query": query, "citations": citations})
                        case Delta(offset, text):
                            yield _event("delta", {"offset": offset, "text": text})
                        case Ended(reply):
                            yield _event("ended", self._ended(reply).model_dump(mode="json"))
                        case UnsavedReply():
                            yield _event("ended", self._ended(event).model_dump(mode="json"))
                        case Rejected(error):
                            raise error
                        case _:
                            assert_never(event)
        except Exception as failure:
            yield _event("error", problem_of(failure, context.request_id).shown())

    async def _happening(self) -> AsyncGenerator[ReplyEvent | UnsavedEvent]:
        services, sent = self._caller.context.services, self._sent
        told: AsyncGenerator[ReplyEvent | UnsavedEvent]
        if sent is None:
            told = services.unsaved.answer(self._message)
        else:
            told = services.replies.follow_turn(self._caller.viewer, sent.question, sent.reply, 0)
        async with aclosing(told) as events:
            async for event in events:
                yield event

    def _ended(self, reply: MessageRow | UnsavedReply) -> ChatAnswer:
        """Give the answer that a reply makes. Raises `ReplyFailed` for one that makes none."""
        cites = citations_of(reply) if isinstance(reply, MessageRow) else reply.citations
        answer = ChatAnswer.model_validate(
            {
                **self._said,
                "response": reply.content,
                "status": str(reply.status),
                "citations": cites,
                "persisted": self._sent is not None,
            }
        )
        if reply.status == MessageStatus.FAILED:
            raise ReplyFailed(reply.error or INTERNAL, answer)
        return answer


async def begin(caller: Caller, body: ChatBody, idempotency_key: str | None) -> Turn:
    """Send a message, and give its turn as soon as it has begun.

    Raises what `Turns.send` raises; an outage only where the question may not be a first one, may
    have been sent before, or wants documents of the caller's choice.
    """
    name = caller.lasting if body.session_id is None else caller.named(body.session_id)
    message = NewMessage(
        content=body.message,
        session_id=str(name.id) if name and name.id else None,
        visitors_session_id=str(name.visitors_id) if name and name.visitors_id else None,
        session_key=name.key if name else None,
        message_id=_message_id(caller, idempotency_key),
        chapter=body.chapter,
        selected_text=body.selected_text,
        document_ids=None if body.document_ids is None else tuple(body.document_ids),
        if_busy=IfBusy(body.if_busy),
    )
    try:
        context = caller.context
        sent = await context.services.turns.send(caller.viewer, message, context.request_id)
    except (CommitUnknown, PoolExhausted):  # it may be stored after all; it is only busy
        raise
    except DatabaseUnavailable as outage:
        may_be_stored = message.message_id is not None
        if body.session_id is not None or body.document_ids is not None or may_be_stored:
            raise
        log.warning("chat.unsaved", request_id=caller.context.request_id, reason=str(outage))
        await caller.context.services.unsaved.allow(caller.viewer)
        sent = None
    return Turn(caller, message, body.session_id, sent)


def _message_id(caller: Caller, key: str | None) -> str | None:
    """Make a message's id of an Idempotency-Key: itself, if it is a UUID. Raises `InvalidInput`.

    Not if it is the caller's own key, which is a secret.
    """
    if key is None:
        return None
    # The header's draft has it in quotation marks, and most clients have not.
    key = check_text(key.strip().strip('"'), "Idempotency-Key", at_most=MAX_IDEMPOTENCY_KEY)
    uuid = None if caller.is_own_key(key) else parse_uuid(key)
    return str(uuid or uuid5(_NAMESPACE, f"message\n{caller.viewer.user_id}\n{key}"))


def _event(name: str, data: Any) -> str:
    return EVENTS.encode_event(name, orjson.dumps(data).decode())
