"""The Mutation type. Expected failures become members of its results (`UNION_MEMBERS`)."""

from typing import Annotated, TypeVar, cast

import strawberry
from starlette.datastructures import UploadFile

from graphql_api import inputs, results
from graphql_api.auth import claimed_visitor
from graphql_api.context import Context, Info
from graphql_api.types.chat import ChatMessage, ChatSession
from graphql_api.types.documents import Document, Visibility
from graphql_api.types.users import User
from resolvers import messages, sessions, users
from resolvers.claims import claim_anonymous_user
from resolvers.errors import InvalidInput
from resolvers.intake import FileSource, Source, TextSource, UrlSource
from resolvers.new_messages import IfBusy, NewMessage

InputT = TypeVar("InputT")
Given = Annotated[InputT, strawberry.argument(description="What to do.")]


@strawberry.type(description="What can be changed. Each is one transaction.")
class Mutation:
    @strawberry.mutation(description="Makes an empty conversation.")
    async def create_session(
        self, info: Info, input: Given[inputs.CreateSessionInput]
    ) -> results.CreateSessionResult:
        context = _acting(info)
        row = await sessions.create_session(
            context.viewer,
            context.database,
            id=input.id,
            title=input.title,
            request_id=context.request_id,
        )
        return results.CreateSessionSuccess(session=ChatSession.of(row))

    @strawberry.mutation(description="Renames a conversation.")
    async def update_session(
        self, info: Info, input: Given[inputs.UpdateSessionInput]
    ) -> results.UpdateSessionResult:
        context = _acting(info)
        row = await sessions.update_session(
            context.viewer,
            context.database,
            id=input.id,
            title=input.title,
            request_id=context.request_id,
        )
        return results.UpdateSessionSuccess(session=ChatSession.of(row))

    @strawberry.mutation(description="Deletes a conversation and all its messages.")
    async def delete_session(
        self, info: Info, input: Given[inputs.DeleteSessionInput]
    ) -> results.DeleteSessionResult:
        context = _acting(info)
        deleted = await sessions.delete_session(
            context.viewer,
            context.database,
            context.services.replies,
            id=input.id,
            request_id=context.request_id,
        )
        return results.DeleteSessionSuccess(deleted_id=strawberry.ID(str(deleted)))

    @strawberry.mutation(
        description="Deletes a conversation's messages (of one chapter, if given) and keeps the"
        " conversation."
    )
    async def clear_history(
        self, info: Info, input: Given[inputs.ClearHistoryInput]
    ) -> results.ClearHistoryResult:
        context = _acting(info)
        row, count = await sessions.clear_history(
            context.viewer,
            context.database,
            context.services.replies,
            id=input.session_id,
            chapter=input.chapter,
            request_id=context.request_id,
        )
        return results.ClearHistorySuccess(session=ChatSession.of(row), deleted_count=count)

    @strawberry.mutation(
        description="Runs the agent and persists both turns. Answers when the reply has ended;"
        " the reply goes on if the client goes away."
    )
    async def send_message(
        self, info: Info, input: Given[inputs.SendMessageInput]
    ) -> results.SendMessageResult:
        context = _acting(info)
        sent = await context.services.turns.send(
            context.viewer, message_of(input), context.request_id
        )
        reply = await context.services.replies.ended(context.viewer, sent.reply)
        return results.SendMessageSuccess(
            session=ChatSession.of(sent.session),
            user_message=ChatMessage.of(sent.question),
            reply=ChatMessage.of(reply),
        )

    @strawberry.mutation(
        description="Stops a reply, wherever it is written. One that has ended stays as it is."
    )
    async def stop_reply(
        self, info: Info, input: Given[inputs.StopReplyInput]
    ) -> results.StopReplyResult:
        context = _acting(info)
        reply = await context.services.replies.stop(
            context.viewer, input.message_id, context.request_id
        )
        return results.StopReplySuccess(reply=ChatMessage.of(reply))

    @strawberry.mutation(description="Deletes one message.")
    async def delete_message(
        self, info: Info, input: Given[inputs.DeleteMessageInput]
    ) -> results.DeleteMessageResult:
        context = _acting(info)
        deleted = await messages.delete_message(
            context.viewer,
            context.database,
            context.services.replies,
            id=input.id,
            request_id=context.request_id,
        )
        return results.DeleteMessageSuccess(deleted_id=strawberry.ID(str(deleted)))

    @strawberry.mutation(description="Stores a document and begins to read it.")
    async def add_document(
        self, info: Info, input: Given[inputs.AddDocumentInput]
    ) -> results.AddDocumentResult:
        context = _acting(info)
        added = await context.services.intake.add(
            context.viewer,
            await _source(input.source),
            title=input.title,
            shared=input.visibility is Visibility.SHARED,
            request_id=context.request_id,
        )
        return results.AddDocumentSuccess(document=Document.of(added.document))

    @strawberry.mutation(description="Renames a document, or changes who may read it.")
    async def update_document(
        self, info: Info, input: Given[inputs.UpdateDocumentInput]
    ) -> results.UpdateDocumentResult:
        context = _acting(info)
        row = await context.services.library.update(
            context.viewer,
            id=input.id,
            title=input.title,
            shared=None if input.visibility is None else input.visibility is Visibility.SHARED,
            request_id=context.request_id,
        )
        return results.UpdateDocumentSuccess(document=Document.of(row))

    @strawberry.mutation(description="Deletes a document and its passages.")
    async def delete_document(
        self, info: Info, input: Given[inputs.DeleteDocumentInput]
    ) -> results.DeleteDocumentResult:
        context = _acting(info)
        deleted = await context.services.library.delete(
            context.viewer, id=input.id, request_id=context.request_id
        )
        return results.DeleteDocumentSuccess(deleted_id=strawberry.ID(str(deleted)))

    @strawberry.mutation(description="Changes the viewer's name or e-mail address.")
    async def update_profile(
        self, info: Info, input: Given[inputs.UpdateProfileInput]
    ) -> results.UpdateProfileResult:
        context = _acting(info)
        row = await users.update_profile(
            context.viewer,
            context.database,
            name=input.name,
            email=input.email,
            request_id=context.request_id,
        )
        return results.UpdateProfileSuccess(user=User.of(row))

    @strawberry.mutation(
        description="Moves everything that an anonymous visitor made to the signed-in viewer, in"
        " one transaction. A reply that is being written goes on."
    )
    async def claim_anonymous_user(
        self, info: Info, input: Given[inputs.ClaimAnonymousUserInput]
    ) -> results.ClaimAnonymousUserResult:
        context = _acting(info)
        claimed = await claim_anonymous_user(
            context.viewer,
            context.database,
            context.services.library,
            visitor=claimed_visitor(input.anonymous_key),
            request_id=context.request_id,
        )
        return results.ClaimAnonymousUserSuccess(
            user=User.of(claimed.user), session_count=claimed.session_count
        )


def _acting(info: Info) -> Context:
    """Begin a mutation: one after another in an operation, each sees what those before it did."""
    info.context.forget()
    return info.context


def message_of(input: inputs.SendMessageInput) -> NewMessage:
    return NewMessage(
        content=input.content,
        session_id=input.session_id,
        message_id=input.message_id,
        chapter=input.chapter,
        selected_text=input.selected_text,
        document_ids=None if input.document_ids is None else tuple(input.document_ids),
        if_busy=IfBusy[input.if_busy.name] if input.if_busy else IfBusy.REJECT,
    )


async def _source(source: inputs.DocumentSource) -> Source:
    """Read which one of the sources was given. Raises `InvalidInput` for an upload that is none."""
    if source.url is not None:
        return UrlSource(source.url.value)
    if source.text is not None:
        return TextSource(source.text.value)
    # Strawberry's Upload stands for whatever the framework made of the file, or the client sent.
    file = cast("object", source.file.value) if source.file is not None else None
    if not isinstance(file, UploadFile):
        raise InvalidInput("Send the file as a GraphQL multipart request.", "source.file")
    await file.seek(0)  # the same file may stand in several places
    return FileSource(await file.read(), file.filename, file.content_type)
