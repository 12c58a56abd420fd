"""Users, and what they have changed."""

from datetime import datetime
from enum import Enum
from typing import Self, cast

import strawberry
from strawberry.scalars import JSON

from db import audit
from db.audit import AuditRow
from db.users import UserRow
from graphql_api.context import Info
from graphql_api.types.node import Node
from graphql_api.types.pages import After, Before, Connection, First, Last, connection
from resolvers.cursors import PageArguments, audit_cursor
from resolvers.users import audit_page


@strawberry.enum(description="What was done.")
class AuditAction(Enum):
    CREATE = strawberry.enum_value("create", description="It was made.")
    UPDATE = strawberry.enum_value("update", description="It was changed; `fields` says in what.")
    DELETE = strawberry.enum_value("delete", description="It was deleted.")
    CLEAR = strawberry.enum_value("clear", description="A conversation's messages were deleted.")
    SEND = strawberry.enum_value("send", description="A message was sent to the agent.")
    STOP = strawberry.enum_value("stop", description="A reply was told to stop.")
    CLAIM = strawberry.enum_value(
        "claim", description="What an anonymous visitor had made was taken over."
    )


@strawberry.enum(description="What it was done to.")
class AuditEntity(Enum):
    USER = strawberry.enum_value("user", description="The viewer, or a visitor they claimed.")
    SESSION = strawberry.enum_value("session", description="A conversation.")
    MESSAGE = strawberry.enum_value("message", description="One turn of a conversation.")
    DOCUMENT = strawberry.enum_value("document", description="Something that the agent can search.")


@strawberry.type(
    description="Something that was changed. Entries are never changed themselves, outlive what"
    " they speak of, and never hold what was said."
)
class AuditEntry(Node):
    user_id: strawberry.ID = strawberry.field(
        description="Who changed it: the viewer, or a visitor whom they have claimed since."
    )
    entity_id: strawberry.ID = strawberry.field(description="The id of what was changed.")
    detail: JSON = strawberry.field(
        description="Names and counts: `fields` that were changed, `message_count` of those"
        " deleted."
    )
    request_id: str | None = strawberry.field(
        description="The request that changed it, as the server's log names it."
    )
    created_at: datetime = strawberry.field(description="When it was changed.")

    @strawberry.field(description="What was done.")
    @staticmethod
    def action(root: strawberry.Parent[AuditRow]) -> AuditAction:
        return AuditAction(root.action)

    @strawberry.field(description="What it was done to.")
    @staticmethod
    def entity(root: strawberry.Parent[AuditRow]) -> AuditEntity:
        return AuditEntity(root.entity)

    @classmethod
    def is_type_of(cls, obj: object, _: object) -> bool:
        return isinstance(obj, AuditRow)


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

    @strawberry.field(
        description="What they have changed, the last first; also as anonymous visitors whom they"
        " have claimed since."
    )
    @staticmethod
    async def audit_log(
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[AuditEntry]:
        # Only the viewer is ever shown as a user.
        viewer, database = info.context.viewer, info.context.database
        page = await audit_page(viewer, database, PageArguments(first, after, last, before))
        return connection(page, audit_cursor, lambda: audit.audit_count(viewer, database))

    @classmethod
    def is_type_of(cls, obj: object, _: object) -> bool:
        return isinstance(obj, UserRow)

    @classmethod
    def of(cls, row: UserRow) -> Self:
        """Let a row stand in for the type."""
        return cast("Self", row)
