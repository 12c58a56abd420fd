"""Who is asking. The only place that makes a `Viewer`.

A user's id is made of what identifies them, so a viewer costs no look-up: the same key or
the same subject of the same realm is the same user, everywhere and always.
"""

from collections.abc import Mapping
from uuid import UUID, uuid5

from db.ids import UserId
from db.viewer import Viewer
from resolvers.errors import Unauthenticated

SESSION_HEADER = "X-Session-ID"

_NAMESPACE = UUID("b1a1a6f0-5a3e-5c0b-9f57-0d8a5c3b7e11")
"Any fixed UUID; changing it would orphan every user."


def viewer_from_headers(headers: Mapping[str, str], admins: frozenset[str]) -> Viewer | None:
    """Read the identity that a request carries; null: it carries none.

    Raises `Unauthenticated` for one that can't be believed.
    """
    key = headers.get(SESSION_HEADER)
    return None if key is None else anonymous_viewer(key, admins)


def anonymous_viewer(key: str, admins: frozenset[str] = frozenset()) -> Viewer:
    """Give the visitor whose browser made this key. Raises `Unauthenticated` if it is no key.

    A key is a secret that its holder drew at random, which only a UUID of version 4 is sure
    to be. Capitals and braces are the same key.
    """
    try:
        uuid = UUID(key)
    except ValueError:
        uuid = None
    if uuid is None or uuid.version != 4:
        raise Unauthenticated(
            f"{SESSION_HEADER} must be a random UUID (version 4) that the client made"
            " and keeps to itself."
        )
    is_admin = str(uuid) in {admin.lower() for admin in admins}
    return Viewer(UserId(uuid5(_NAMESPACE, f"anonymous\n{uuid}")), is_admin=is_admin)


def subject_viewer(realm: str, subject: str) -> Viewer:
    """Give the user whom an issuer's tokens call `subject`."""
    return Viewer(UserId(uuid5(_NAMESPACE, f"{realm}\n{subject}")), realm=realm, subject=subject)


def operator() -> Viewer:
    """Give the one who runs the server and its command line."""
    user_id = UserId(uuid5(_NAMESPACE, "operator"))
    return Viewer(user_id, realm="parley", subject="operator", is_admin=True)
