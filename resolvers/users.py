"""The viewer's own profile, and what they have changed."""

from db import audit, users
from db.audit import Action, AuditRow, Entity
from db.engine import Database, Transaction
from db.pages import Page
from db.users import UserRow
from db.viewer import Viewer
from resolvers.cursors import AUDIT, PageArguments, slice_of
from resolvers.errors import InvalidInput
from resolvers.inputs import check_optional_text


async def audit_page(viewer: Viewer, database: Database, asked: PageArguments) -> Page[AuditRow]:
    """Give a page of what the viewer has changed, the last first. Raises `BadRequest`."""
    return await audit.audit_page(viewer, database, slice_of(asked, AUDIT))


async def viewer_profile(viewer: Viewer, database: Database) -> UserRow:
    return await users.user(viewer, database)


async def update_profile(
    viewer: Viewer, database: Database, *, name: str | None, email: str | None, request_id: str
) -> UserRow:
    """Change what is given. Raises `InvalidInput`."""
    check_optional_text(name, "name")
    check_optional_text(email, "email")
    if email is not None and not _looks_like_an_address(email):
        raise InvalidInput("That is no e-mail address.", "email")

    async def change(transaction: Transaction) -> UserRow:
        await users.ensure_user(viewer, transaction)
        row = await users.update_user(viewer, transaction, name=name, email=email)
        changed = [field for field, value in (("name", name), ("email", email)) if value]
        await audit.record(
            viewer, transaction, Action.UPDATE, Entity.USER, row.id, {"fields": changed}, request_id
        )
        return row

    return await database.transact(change)


def _looks_like_an_address(email: str) -> bool:
    local, at, domain = email.rpartition("@")
    return bool(at and local and domain) and not any(each.isspace() for each in email)
