"""Input types, as clients send them. What may stand in them is checked by `resolvers`."""

from enum import Enum

import strawberry
from strawberry.file_uploads import Upload

from graphql_api.types.documents import Visibility


@strawberry.enum(description="What to do when another reply is under way in the session.")
class IfBusy(Enum):
    REJECT = strawberry.enum_value("REJECT", description="Refuse, with ReplyInProgress.")
    INTERRUPT = strawberry.enum_value("INTERRUPT", description="Stop that reply first.")


@strawberry.input(description="A new conversation.")
class CreateSessionInput:
    id: strawberry.ID | None = strawberry.field(
        default=None, description="A UUID made by the client; left out, the server makes one."
    )
    title: str | None = strawberry.field(
        default=None, description="Left out: taken from the first question."
    )


@strawberry.input(description="Another title for a conversation.")
class UpdateSessionInput:
    id: strawberry.ID = strawberry.field(description="Which conversation.")
    title: str = strawberry.field(description="Its new title.")


@strawberry.input(description="The conversation to delete, with all its messages.")
class DeleteSessionInput:
    id: strawberry.ID = strawberry.field(description="Which conversation.")


@strawberry.input(description="The messages to delete, all of a conversation or of one chapter.")
class ClearHistoryInput:
    session_id: strawberry.ID = strawberry.field(description="Whose messages.")
    chapter: str | None = strawberry.field(default=None, description="Only those of this chapter.")


@strawberry.input(description="A message to the agent.")
class SendMessageInput:
    content: str = strawberry.field(description="What to say.")
    session_id: strawberry.ID | None = strawberry.field(
        default=None,
        description="Left out: a new conversation. A UUID that names none of the viewer's: a new"
        " conversation of that id.",
    )
    message_id: strawberry.ID | None = strawberry.field(
        default=None,
        description="A UUID that the client made for its message. Sending the same one again"
        " never asks twice.",
    )
    chapter: str | None = strawberry.field(
        default=None, description="The chapter that the reader is in."
    )
    selected_text: str | None = strawberry.field(
        default=None,
        description="Text that the reader had selected; the agent is told to answer about it.",
    )
    document_ids: list[strawberry.ID] | None = strawberry.field(
        default=None,
        description="Only these documents are searched; one that the viewer can't read is"
        " NotFound.",
    )
    if_busy: IfBusy | None = strawberry.field(
        default=IfBusy.REJECT,
        description="When another reply is under way in this conversation: refuse, or stop that"
        " one first.",
    )


@strawberry.input(description="The reply to stop.")
class StopReplyInput:
    message_id: strawberry.ID = strawberry.field(description="The reply's id, or its question's.")


@strawberry.input(description="The message to delete.")
class DeleteMessageInput:
    id: strawberry.ID = strawberry.field(description="Which message.")


@strawberry.input(one_of=True, description="Where a document comes from: one of these.")
class DocumentSource:
    url: strawberry.Maybe[str] = strawberry.field(
        description="A public web address to fetch it from."
    )
    text: strawberry.Maybe[str] = strawberry.field(description="The text itself, or Markdown.")
    file: strawberry.Maybe[Upload] = strawberry.field(
        description="An uploaded file (GraphQL multipart request)."
    )


@strawberry.input(
    description="A document to add. The same bytes added again by the same owner are the same"
    " document: nothing is done twice."
)
class AddDocumentInput:
    source: DocumentSource = strawberry.field(description="Where it comes from.")
    title: str | None = strawberry.field(default=None, description="Left out: its own title.")
    visibility: Visibility | None = strawberry.field(
        default=Visibility.PRIVATE, description="SHARED is for administrators."
    )


@strawberry.input(description="What to change of a document; what is left out stays.")
class UpdateDocumentInput:
    id: strawberry.ID = strawberry.field(description="Which document.")
    title: str | None = strawberry.field(default=None, description="Its new title.")
    visibility: Visibility | None = strawberry.field(
        default=None, description="Who may read it now; SHARED is for administrators."
    )


@strawberry.input(description="The document to delete. What cites it keeps its snapshots.")
class DeleteDocumentInput:
    id: strawberry.ID = strawberry.field(description="Which document.")


@strawberry.input(description="The anonymous visitor that the viewer was before signing in.")
class ClaimAnonymousUserInput:
    anonymous_key: str = strawberry.field(
        description="What was sent as X-Session-ID then. Knowing it is what proves the claim."
    )


@strawberry.input(description="What to change of the viewer's profile; what is left out stays.")
class UpdateProfileInput:
    name: str | None = strawberry.field(default=None, description="Their name.")
    email: str | None = strawberry.field(default=None, description="Their e-mail address.")
