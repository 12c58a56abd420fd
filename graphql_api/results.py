"""Results of mutations: a success, or a failure that the client can act on."""

from typing import Annotated

import strawberry

from graphql_api.types.chat import ChatMessage, ChatSession
from graphql_api.types.documents import Document
from graphql_api.types.errors import (
    IdConflict,
    InvalidInput,
    NotFound,
    QuotaExceeded,
    ReplyInProgress,
)
from graphql_api.types.users import User

DELETED = "The id of what was deleted."


@strawberry.type(description="The conversation was made, or was there already just so.")
class CreateSessionSuccess:
    session: ChatSession = strawberry.field(description="The conversation.")


@strawberry.type(description="The conversation was renamed.")
class UpdateSessionSuccess:
    session: ChatSession = strawberry.field(description="The conversation as it is now.")


@strawberry.type(description="The conversation is gone.")
class DeleteSessionSuccess:
    deleted_id: strawberry.ID = strawberry.field(description=DELETED)


@strawberry.type(description="The messages are gone.")
class ClearHistorySuccess:
    session: ChatSession = strawberry.field(description="The conversation as it is now.")
    deleted_count: int = strawberry.field(description="How many messages were deleted.")


@strawberry.type(description="The message was taken, and its reply has ended.")
class SendMessageSuccess:
    session: ChatSession = strawberry.field(description="The conversation that they stand in.")
    user_message: ChatMessage = strawberry.field(description="What was said.")
    reply: ChatMessage = strawberry.field(description="The reply; its status says how it ended.")


@strawberry.type(description="The reply has ended: stopped now, or however it ended before.")
class StopReplySuccess:
    reply: ChatMessage = strawberry.field(description="The reply as it stands.")


@strawberry.type(description="The message is gone.")
class DeleteMessageSuccess:
    deleted_id: strawberry.ID = strawberry.field(description=DELETED)


@strawberry.type(description="The document is stored, and will be read if it has not been yet.")
class AddDocumentSuccess:
    document: Document = strawberry.field(description="The document; `status` says how far it is.")


@strawberry.type(description="The document was changed.")
class UpdateDocumentSuccess:
    document: Document = strawberry.field(description="The document as it is now.")


@strawberry.type(description="The document is gone.")
class DeleteDocumentSuccess:
    deleted_id: strawberry.ID = strawberry.field(description=DELETED)


@strawberry.type(description="The profile was changed.")
class UpdateProfileSuccess:
    user: User = strawberry.field(description="The viewer as they are now.")


@strawberry.type(description="What the visitor made is the viewer's now.")
class ClaimAnonymousUserSuccess:
    user: User = strawberry.field(description="The viewer.")
    session_count: int = strawberry.field(
        description="How many of their conversations were the visitor's; claiming again does not"
        " change it, unless the visitor has made more."
    )


CreateSessionResult = Annotated[
    CreateSessionSuccess | InvalidInput | IdConflict,
    strawberry.union("CreateSessionResult", description="How making a conversation went."),
]
UpdateSessionResult = Annotated[
    UpdateSessionSuccess | NotFound | InvalidInput,
    strawberry.union("UpdateSessionResult", description="How renaming a conversation went."),
]
DeleteSessionResult = Annotated[
    DeleteSessionSuccess | NotFound,
    strawberry.union("DeleteSessionResult", description="How deleting a conversation went."),
]
ClearHistoryResult = Annotated[
    ClearHistorySuccess | NotFound,
    strawberry.union("ClearHistoryResult", description="How deleting messages went."),
]
SendMessageResult = Annotated[
    SendMessageSuccess | NotFound | InvalidInput | ReplyInProgress | IdConflict | QuotaExceeded,
    strawberry.union("SendMessageResult", description="How sending a message went."),
]
StopReplyResult = Annotated[
    StopReplySuccess | NotFound,
    strawberry.union("StopReplyResult", description="How stopping a reply went."),
]
DeleteMessageResult = Annotated[
    DeleteMessageSuccess | NotFound,
    strawberry.union("DeleteMessageResult", description="How deleting a message went."),
]
AddDocumentResult = Annotated[
    AddDocumentSuccess | InvalidInput | QuotaExceeded,
    strawberry.union("AddDocumentResult", description="How adding a document went."),
]
UpdateDocumentResult = Annotated[
    UpdateDocumentSuccess | NotFound | InvalidInput,
    strawberry.union("UpdateDocumentResult", description="How changing a document went."),
]
DeleteDocumentResult = Annotated[
    DeleteDocumentSuccess | NotFound,
    strawberry.union("DeleteDocumentResult", description="How deleting a document went."),
]
UpdateProfileResult = Annotated[
    UpdateProfileSuccess | InvalidInput,
    strawberry.union("UpdateProfileResult", description="How changing the profile went."),
]
ClaimAnonymousUserResult = Annotated[
    ClaimAnonymousUserSuccess | NotFound | InvalidInput,
    strawberry.union("ClaimAnonymousUserResult", description="How claiming a visitor went."),
]
