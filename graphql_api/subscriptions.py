"""The Subscription type: replies as they are written, documents as they are read."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

import strawberry
from starlette.requests import Request

from graphql_api.context import Context, Info
from graphql_api.expiry import while_believed
from graphql_api.inputs import SendMessageInput
from graphql_api.mutations import message_of
from graphql_api.types.documents import Document
from graphql_api.types.replies import ReplyEvent, shown_event
from resolvers import events
from resolvers.errors import BadRequest, InvalidInput, UserError

Offset = Annotated[
    int | None,
    strawberry.argument(
        description="How much of the text you have, in UTF-16 code units; only what follows is"
        " told."
    ),
]


@strawberry.type(description="What can be followed. Resubscribing is always safe.")
class Subscription:
    @strawberry.subscription(
        description="`sendMessage` as a stream. Sending the same input again after a lost"
        " connection joins the reply that is under way instead of asking twice; `messageId` is"
        " required here, since clients resubscribe by themselves."
    )
    async def send_message(
        self,
        info: Info,
        input: Annotated[SendMessageInput, strawberry.argument(description="What to send.")],
        offset: Offset = 0,
    ) -> AsyncGenerator[ReplyEvent, None]:
        _refuse_get(info.context)
        happening = _sent(info.context, input, offset or 0)
        async with aclosing(while_believed(info.context, happening)) as following:
            async for event in following:
                yield shown_event(event)

    @strawberry.subscription(
        description="Follows a reply from an offset: one that is under way live, one that has ended"
        " from what was stored."
    )
    async def reply(
        self,
        info: Info,
        message_id: Annotated[
            strawberry.ID, strawberry.argument(description="The reply's id, or its question's.")
        ],
        offset: Offset = 0,
    ) -> AsyncGenerator[ReplyEvent, None]:
        replies = info.context.services.replies
        happening = replies.follow(info.context.viewer, message_id, offset or 0)
        async with aclosing(while_believed(info.context, happening)) as following:
            async for event in following:
                yield shown_event(event)

    @strawberry.subscription(
        description="Ingestion of one document, from its present state to its end; an error"
        " NOT_FOUND where there is none of the viewer's."
    )
    async def document_progress(
        self,
        info: Info,
        document_id: Annotated[strawberry.ID, strawberry.argument(description="Which document.")],
    ) -> AsyncGenerator[Document, None]:
        library = info.context.services.library
        rows = library.progress(info.context.viewer, document_id)
        async with aclosing(while_believed(info.context, rows)) as following:
            async for row in following:
                yield Document.of(row)


async def _sent(
    context: Context, input: SendMessageInput, offset: int
) -> AsyncGenerator[events.ReplyEvent]:
    viewer, services = context.viewer, context.services
    try:
        if input.message_id is None:
            raise InvalidInput("A subscription needs it, to be safe to repeat.", "messageId")
        if offset < 0:
            raise InvalidInput("An offset is not negative.", "offset")
        sent = await services.turns.send(viewer, message_of(input), context.request_id)
    except UserError as error:
        yield events.Rejected(error)
        return
    turn = services.replies.follow_turn(viewer, sent.question, sent.reply, offset)
    async with aclosing(turn) as following:
        async for event in following:
            yield event


def _refuse_get(context: Context) -> None:
    """Raise `BadRequest` for a GET: it must not write."""
    if isinstance(context.request, Request) and context.request.method == "GET":
        raise BadRequest("sendMessage writes: subscribe to it by POST.")
