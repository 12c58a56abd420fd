"""The one on whose behalf something is read or written."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from db.ids import UserId


@dataclass(frozen=True, slots=True)
class Viewer:
    """A checked identity. Only `graphql_api.auth` makes one.

    Every function in `db` that touches owned rows takes it first. `subject` is null for
    an anonymous visitor, whose `realm` is then null too. `is_admin` permits shared documents.
    After `expires_at` it is believed no more, on sockets and streams either; null: it lasts.
    """

    user_id: UserId
    realm: str | None = None
    subject: str | None = None
    email: str | None = field(default=None, repr=False)
    name: str | None = field(default=None, repr=False)
    is_admin: bool = False
    expires_at: datetime | None = None

    @property
    def seconds_left(self) -> float | None:
        """How long it is still believed, not more than 0 once it has expired; null: for ever."""
        if self.expires_at is None:
            return None
        return (self.expires_at - datetime.now(UTC)).total_seconds()

    @property
    def is_anonymous(self) -> bool:
        return self.subject is None
