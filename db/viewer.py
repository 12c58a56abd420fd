"""The one on whose behalf something is read or written."""

from dataclasses import dataclass, field

from db.ids import UserId


@dataclass(frozen=True, slots=True)
class Viewer:
    """A checked identity. Only `graphql_api.auth` makes one.

    Every function in `db` that touches owned rows takes it first. `subject` is null for
    an anonymous visitor, whose `realm` is then null too. `is_admin` permits shared documents.
    """

    user_id: UserId
    realm: str | None = None
    subject: str | None = None
    email: str | None = field(default=None, repr=False)
    name: str | None = field(default=None, repr=False)
    is_admin: bool = False

    @property
    def is_anonymous(self) -> bool:
        return self.subject is None
