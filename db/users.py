"""Users: rows made by the first write, found by id and by e-mail address."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import bindparam, case, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from db.engine import Reader, Transaction, many, one
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


class KnownUser(NamedTuple):
    """A user as an operator looks them up. `realm` and `subject` are null for an anonymous one."""

    id: UserId
    realm: str | None
    subject: str | None


_COLUMNS = [User.__table__.c[name] for name in UserRow._fields]
_BY_ID = select(*_COLUMNS).where(User.id == bindparam("id"))
_BY_EMAIL = (
    select(User.id, User.realm, User.subject)
    .where(func.lower(User.email) == func.lower(bindparam("email")))
    .order_by(User.id)
)
_EMAIL = bindparam("said_email", type_=User.email.type)
_NAME = bindparam("said_name", type_=User.name.type)
_MAKE = (
    insert(User)
    .values(
        id=bindparam("viewer"),
        realm=bindparam("of_realm"),
        subject=bindparam("of_subject"),
        email=_EMAIL,
        email_claim=_EMAIL,
        name=_NAME,
        name_claim=_NAME,
        is_anonymous=bindparam("anonymous"),
    )
    .on_conflict_do_nothing()
)
_NEW_EMAIL = func.coalesce(_EMAIL, User.email_claim)
_NEW_NAME = func.coalesce(_NAME, User.name_claim)
_EMAIL_CHANGED = User.email_claim.is_distinct_from(_NEW_EMAIL)
_NAME_CHANGED = User.name_claim.is_distinct_from(_NEW_NAME)
# One statement, that locks the row only where a claim has changed.
_MAKE_OR_TELL = (
    update(User)
    .where(User.id == bindparam("viewer"), or_(_EMAIL_CHANGED, _NAME_CHANGED))
    .values(
        email=case((_EMAIL_CHANGED, _NEW_EMAIL), else_=User.email),
        name=case((_NAME_CHANGED, _NEW_NAME), else_=User.name),
        email_claim=_NEW_EMAIL,
        name_claim=_NEW_NAME,
        updated_at=func.now(),
    )
    .add_cte(_MAKE.cte("made"))
)
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


async def users_by_email(reader: Reader, email: str) -> list[KnownUser]:
    """Find users by address, in any case of letters; nothing says that it is one user's alone."""
    return await many(reader, KnownUser, _BY_EMAIL, {"email": email})


async def ensure_user(viewer: Viewer, transaction: Transaction) -> None:
    """Make the viewer's row where there is none, and note what their token newly says of them."""
    says_something = viewer.email is not None or viewer.name is not None
    await transaction.rows(
        _MAKE_OR_TELL if says_something else _MAKE,
        {
            "viewer": viewer.user_id,
            "of_realm": viewer.realm,
            "of_subject": viewer.subject,
            "said_email": viewer.email,
            "said_name": viewer.name,
            "anonymous": viewer.is_anonymous,
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
