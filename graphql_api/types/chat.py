"""Sessions and messages."""

from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Self, cast

import strawberry

from db.messages import MessageRow
from db.sessions import SessionRow
from graphql_api.context import Info
from graphql_api.types.documents import Citation
from graphql_api.types.node import Node
from graphql_api.types.pages import After, Before, Connection, First, Last, connection
from resolvers.citations import citations_of
from resolvers.cursors import MESSAGES, PageArguments, message_cursor, slice_of
from resolvers.errors import NotFound
from resolvers.inputs import check_filter
from resolvers.loaders import CountKey, HistoryKey, Loaders


@strawberry.enum(description="Who speaks.")
class MessageRole(Enum):
    USER = strawberry.enum_value("USER", description="The viewer.")
    ASSISTANT = strawberry.enum_value("ASSISTANT", description="The agent.")
    SYSTEM = strawberry.enum_value("SYSTEM", description="Neither: a note of the application's.")


@strawberry.enum(description="How far a message is. STREAMING is the only state that changes.")
class MessageStatus(Enum):
    STREAMING = strawberry.enum_value("STREAMING", description="It is being written.")
    COMPLETE = strawberry.enum_value("COMPLETE", description="It is whole.")
    STOPPED = strawberry.enum_value("STOPPED", description="The viewer stopped it.")
    FAILED = strawberry.enum_value("FAILED", description="The agent failed; `error` says how.")
    INTERRUPTED = strawberry.enum_value(
        "INTERRUPTED",
        description="Its server died, or the database was away for longer than the lease.",
    )


@strawberry.enum(description="Why a reply failed.")
class ReplyErrorCode(Enum):
    MODEL_UNAVAILABLE = strawberry.enum_value(
        "MODEL_UNAVAILABLE", description="The model can't be reached, or broke off."
    )
    MODEL_REFUSED = strawberry.enum_value(
        "MODEL_REFUSED", description="The model declined to answer."
    )
    CONTEXT_TOO_LONG = strawberry.enum_value(
        "CONTEXT_TOO_LONG", description="The conversation is longer than the model can read."
    )
    RETRIEVAL_UNAVAILABLE = strawberry.enum_value(
        "RETRIEVAL_UNAVAILABLE", description="The documents can't be searched at the moment."
    )
    INTERRUPTED = strawberry.enum_value(
        "INTERRUPTED", description="The server that was writing it went away."
    )
    TIMEOUT = strawberry.enum_value("TIMEOUT", description="It took too long.")
    INTERNAL = strawberry.enum_value("INTERNAL", description="A fault of the server.")


@strawberry.type(description="What went wrong with a reply.")
class ReplyError:
    code: ReplyErrorCode = strawberry.field(description="For programs.")
    message: str = strawberry.field(description="For people.")
    retryable: bool = strawberry.field(
        description="Whether asking again, in a new message, may help."
    )

    @classmethod
    def of_stored(cls, error: dict[str, Any]) -> Self:
        return cls(
            code=ReplyErrorCode[error["code"]],
            message=error["message"],
            retryable=error["retryable"],
        )


Chapter = Annotated[str | None, strawberry.argument(description="Only messages of this chapter.")]


@strawberry.type(description="One turn of a conversation.")
class ChatMessage(Node):
    role: MessageRole = strawberry.field(description="Who speaks.")
    status: MessageStatus = strawberry.field(description="How far it is.")
    content: str = strawberry.field(
        description="The text, as far as it is stored. Its length is the offset to resume from."
    )
    chapter: str | None = strawberry.field(description="The chapter that it was asked about.")
    selected_text: str | None = strawberry.field(
        description="The text that the reader had selected when asking."
    )
    token_count: int | None = strawberry.field(
        description="Tokens of the text itself, as the model counted them."
    )
    prompt_tokens: int | None = strawberry.field(
        description="Tokens that the model read for this reply, over all its calls."
    )
    completion_tokens: int | None = strawberry.field(
        description="Tokens that the model wrote for this reply, over all its calls."
    )
    model: str | None = strawberry.field(description="The model that wrote it.")
    created_at: datetime = strawberry.field(description="When it was sent, or begun.")
    completed_at: datetime | None = strawberry.field(description="When the reply ended.")

    @strawberry.field(description="The conversation that it stands in.")
    @staticmethod
    async def session(root: strawberry.Parent[MessageRow], info: Info) -> "ChatSession":
        row = await info.context.loaders.session_by_id.load(root.session_id)
        if row is None:  # deleted, or claimed, since the message was read
            raise NotFound
        return ChatSession.of(row)

    @strawberry.field(description="The passages that the text cites, by marker.")
    @staticmethod
    def citations(root: strawberry.Parent[MessageRow]) -> list[Citation]:
        return [Citation.of_stored(each) for each in citations_of(root)]

    @strawberry.field(description="What the agent searched for, in order.")
    @staticmethod
    def searches(root: strawberry.Parent[MessageRow]) -> list[str]:
        return [each["query"] for each in root.searches]

    @strawberry.field(description="The user message that an assistant message answers.")
    @staticmethod
    async def reply_to(root: strawberry.Parent[MessageRow], info: Info) -> "ChatMessage | None":
        if root.reply_to is None:
            return None
        row = await info.context.loaders.message_by_id.load(root.reply_to)
        return row and ChatMessage.of(row)

    @strawberry.field(description="What went wrong, if the reply failed or was interrupted.")
    @staticmethod
    def error(root: strawberry.Parent[MessageRow]) -> ReplyError | None:
        return ReplyError.of_stored(root.error) if root.error else None

    @classmethod
    def is_type_of(cls, obj: object, _: object) -> bool:
        return isinstance(obj, MessageRow)

    @classmethod
    def of(cls, row: MessageRow) -> Self:
        """Let a row stand in for the type."""
        return cast("Self", row)


@strawberry.type(description="A conversation.")
class ChatSession(Node):
    title: str | None = strawberry.field(
        description="Its title; if none was given, taken from the first question."
    )
    created_at: datetime = strawberry.field(description="When it was begun.")
    updated_at: datetime = strawberry.field(description="When it was last used or renamed.")
    message_count: int = strawberry.field(description="How many messages it has.")

    @strawberry.field(description="The last message in reading order.")
    @staticmethod
    async def last_message(root: strawberry.Parent[SessionRow], info: Info) -> ChatMessage | None:
        row = await info.context.loaders.last_message_by_session.load(root.id)
        return row and ChatMessage.of(row)

    @strawberry.field(
        description="The reply now being written, so that a reloaded page knows what to follow."
    )
    @staticmethod
    async def active_reply(root: strawberry.Parent[SessionRow], info: Info) -> ChatMessage | None:
        row = await info.context.loaders.active_reply_by_session.load(root.id)
        return row and ChatMessage.of(row)

    @strawberry.field(description="The history in reading order.")
    @staticmethod
    async def messages(
        root: strawberry.Parent[SessionRow],
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
        chapter: Chapter = None,
    ) -> Connection[ChatMessage]:
        asked = PageArguments(first, after, last, before)
        return await history(info.context.loaders, root, asked, chapter)

    @classmethod
    def is_type_of(cls, obj: object, _: object) -> bool:
        return isinstance(obj, SessionRow)

    @classmethod
    def of(cls, row: SessionRow) -> Self:
        """Let a row stand in for the type."""
        return cast("Self", row)


async def history(
    loaders: Loaders, session: SessionRow, asked: PageArguments, chapter: str | None
) -> Connection[ChatMessage]:
    """Give a page of a session's messages. Raises `BadRequest`."""
    check_filter(chapter, "chapter")
    wanted = slice_of(asked, MESSAGES)
    page = await loaders.messages_by_session.load(HistoryKey(session.id, wanted, chapter))

    async def count() -> int:
        if chapter is None:
            return session.message_count
        return await loaders.message_count_by_session.load(CountKey(session.id, chapter))

    return connection(page, message_cursor, count)
