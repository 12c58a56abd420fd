"""Expected failures, as members of result unions."""

from datetime import datetime
from typing import Self

import strawberry

from graphql_api.types.chat import ChatMessage
from resolvers import errors


@strawberry.interface(
    description="What every expected failure has in common. An unexpected one is a top-level error"
    " with the code INTERNAL and a requestId, and says nothing of its cause."
)
class UserError:
    message: str = strawberry.field(description="What went wrong, for people.")


@strawberry.type(description="It is not there, or not yours: one answer.")
class NotFound(UserError):
    @classmethod
    def of(cls, error: errors.NotFound) -> Self:
        return cls(message=error.message)


@strawberry.type(description="A value that can't be taken.")
class InvalidInput(UserError):
    field: str | None = strawberry.field(
        description="Its path inside the input, such as `content`; null if it is none alone."
    )

    @classmethod
    def of(cls, error: errors.InvalidInput) -> Self:
        return cls(message=error.message, field=error.field)


@strawberry.type(description="Another reply is being written in the session.")
class ReplyInProgress(UserError):
    reply: ChatMessage = strawberry.field(description="The reply that is being written.")

    @classmethod
    def of(cls, error: errors.ReplyInProgress) -> Self:
        return cls(message=error.message, reply=ChatMessage.of(error.reply))


@strawberry.type(description="The id that the client made already names something else.")
class IdConflict(UserError):
    @classmethod
    def of(cls, error: errors.IdConflict) -> Self:
        return cls(message=error.message)


@strawberry.type(description="The viewer has used up what they may.")
class QuotaExceeded(UserError):
    resets_at: datetime = strawberry.field(description="When there is more.")

    @classmethod
    def of(cls, error: errors.QuotaExceeded) -> Self:
        return cls(message=error.message, resets_at=error.resets_at)


def shown_error(error: errors.UserError) -> UserError:
    """Show an expected failure as the schema has it; one that is no member of a union is raised."""
    match error:
        case errors.NotFound():
            return NotFound.of(error)
        case errors.InvalidInput():
            return InvalidInput.of(error)
        case errors.IdConflict():
            return IdConflict.of(error)
        case errors.ReplyInProgress():
            return ReplyInProgress.of(error)
        case errors.QuotaExceeded():
            return QuotaExceeded.of(error)
        case _:
            raise error
