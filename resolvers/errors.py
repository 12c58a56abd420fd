"""What can go wrong in a way that a client can act on.

    UserError
    ├── NotFound          not there, or not the viewer's: one answer, one text
    ├── InvalidInput      a value that can't be taken, and the path of its field
    ├── IdConflict        the client's id already names something else
    ├── ReplyInProgress   another reply is being written in the session
    ├── QuotaExceeded     the viewer has used up what they may, for now
    ├── BadRequest        what no client should send: a cursor of another field, first: -1
    ├── Unauthenticated   whoever asks has not said who they are
    ├── RateLimited       the viewer asks too often
    └── Unavailable       the server can't at the moment; try again

The first five are members of result unions. The others are top-level errors with a code.
"""

from datetime import datetime

from db.messages import MessageRow


class UserError(Exception):
    """What every expected failure has in common: a message for people."""

    @property
    def message(self) -> str:
        return str(self)


class NotFound(UserError):
    """There is nothing of yours by this id."""

    def __init__(self) -> None:
        super().__init__("There is nothing of yours by this id.")


class InvalidInput(UserError):
    """A value that can't be taken. `field` is its path inside the input, or null."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class IdConflict(UserError):
    """The id that the client made already names something else."""


class ReplyInProgress(UserError):
    """Another reply is being written in this session."""

    def __init__(self, reply: MessageRow) -> None:
        super().__init__("Another reply is being written in this session.")
        self.reply = reply


class QuotaExceeded(UserError):
    """More than the viewer may. `resets_at` is when there is more."""

    def __init__(self, allowed: str, resets_at: datetime) -> None:
        super().__init__(f"You have used up what you may: {allowed}.")
        self.resets_at = resets_at


class RateLimited(UserError):
    """Requests come faster than is allowed."""

    def __init__(self, allowed: str, retry_after_seconds: int) -> None:
        super().__init__(f"Too many requests: {allowed} are allowed.")
        self.retry_after_seconds = retry_after_seconds


class BadRequest(UserError):
    """A request that no correct client sends."""


class Unauthenticated(UserError):
    """The request does not say who asks, or says it in a way that can't be believed."""


class Unavailable(UserError):
    """The server can't do this at the moment. Trying again later may help."""

    def __init__(
        self, message: str = "Try again in a moment.", retry_after_seconds: int = 1
    ) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
