"""Users."""

from datetime import datetime
from typing import Self, cast

import strawberry

from db.users import UserRow
from graphql_api.types.node import Node


@strawberry.type(description="Someone who chats. Nobody sees anyone but themselves.")
class User(Node):
    email: str | None = strawberry.field(description="Their e-mail address, if they gave one.")
    name: str | None = strawberry.field(description="Their name, if they gave one.")
    is_anonymous: bool = strawberry.field(
        description="Whether they are known by a key of their browser's alone."
    )
    created_at: datetime | None = strawberry.field(
        description="When they first wrote something; null until then."
    )

    @classmethod
    def is_type_of(cls, obj: object, _: object) -> bool:
        return isinstance(obj, UserRow)

    @classmethod
    def of(cls, row: UserRow) -> Self:
        """Let a row stand in for the type."""
        return cast("Self", row)
