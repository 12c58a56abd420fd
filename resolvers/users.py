"""The viewer's own profile."""

from db import audit, users
from db.engine import Database
from db.users import UserRow
from db.viewer import Viewer
from resolvers.errors import InvalidInput
from resolvers.inputs import check_optional_text


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
    async with database.transaction() as transaction:
        await users.ensure_user(viewer, transaction)
        row = await users.update_user(viewer, transaction, name=name, email=email)
        changed = [field for field, value in (("name", name), ("email", email)) if value]
        await audit.record(
            viewer, transaction, "update", "user", row.id, {"fields": changed}, request_id
        )
    return row


def _looks_like_an_address(email: str) -> bool:
    local, at, domain = email.rpartition("@")
    return bool(at and local and domain) and not any(each.isspace() for each in email)
