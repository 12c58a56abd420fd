"""Users: rows made by the first write, read by id."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.dialects.postgresql import insert

from db.engine import Reader, Transaction, one
from db.ids import UserId
from db.models import User
from db.viewer import Viewer


class UserRow(NamedTuple):
    """A user. `created_at` is null for a viewer who has not written anything yet."""

    id: UserId
    email: str | None
    name: str | None
    is_anonymous: bool
    created_at: datetime | None


_COLUMNS = [User.__table__.c[name] for name in UserRow._fields]
_BY_ID = select(*_COLUMNS).where(User.id == bindparam("id"))
_MAKE = insert(User).on_conflict_do_nothing()
_RENAME = (
    update(User)
    .where(User.id == bindparam("viewer"))
    .values(
        name=func.coalesce(bindparam("new_name", type_=User.name.type), User.name),
        email=func.coalesce(bindparam("new_email", type_=User.email.type), User.email),
        updated_at=func.now(),
    )
    .returning(*_COLUMNS)
)


async def user(viewer: Viewer, reader: Reader) -> UserRow:
    """Give the viewer's own row; before their first write, what it would be."""
    found = await one(reader, UserRow, _BY_ID, {"id": viewer.user_id})
    return found or UserRow(
        viewer.user_id, viewer.email, viewer.name, viewer.is_anonymous, created_at=None
    )


async def ensure_user(viewer: Viewer, transaction: Transaction) -> None:
    """Make the viewer's row where there is none."""
    await transaction.rows(
        _MAKE,
        {
            "id": viewer.user_id,
            "realm": viewer.realm,
            "subject": viewer.subject,
            "email": viewer.email,
            "name": viewer.name,
            "is_anonymous": viewer.is_anonymous,
        },
    )


async def update_user(
    viewer: Viewer, transaction: Transaction, *, name: str | None, email: str | None
) -> UserRow:
    """Change what is given and leave the rest; the row must be there (`ensure_user`)."""
    changed = await one(
        transaction,
        UserRow,
        _RENAME,
        {"viewer": viewer.user_id, "new_name": name, "new_email": email},
    )
    assert changed is not None, "ensure_user comes first"
    return changed
