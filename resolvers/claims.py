"""Claiming: a signed-in user takes over what they made as an anonymous visitor."""

from typing import NamedTuple

from db import audit, claims, users
from db.audit import Action, Entity
from db.claims import ClaimCollided, Moved
from db.engine import Database, Transaction
from db.users import UserRow
from db.viewer import Viewer
from resolvers.documents import Library
from resolvers.errors import InvalidInput, NotFound, Unavailable

CLAIM_ATTEMPTS = 5
"A claim that collides is made anew; colliding this often means something is wrong."


class Claimed(NamedTuple):
    """The user, and how many sessions of the visitor's have become theirs, in all claims."""

    user: UserRow
    session_count: int


async def claim_anonymous_user(
    viewer: Viewer, database: Database, library: Library, *, visitor: Viewer, request_id: str
) -> Claimed:
    """Move everything that a visitor made to the viewer.

    Again, it moves what the visitor made since. Raises `InvalidInput` where the viewer is
    anonymous, and `NotFound` for a visitor who made nothing, or whom someone else has claimed.
    """
    if viewer.is_anonymous:
        raise InvalidInput("Only who is signed in can claim: send a bearer token.")
    for _ in range(CLAIM_ATTEMPTS):
        try:
            claimed, moved = await _claim(viewer, visitor, database, request_id)
        except ClaimCollided:
            continue
        await library.follow_moved(moved.documents, viewer.user_id)
        await library.forget([*moved.forgotten])
        return claimed
    raise Unavailable


async def _claim(
    viewer: Viewer, visitor: Viewer, database: Database, request_id: str
) -> tuple[Claimed, Moved]:
    async def claim(transaction: Transaction) -> tuple[Claimed, Moved]:
        row = await claims.lock_visitor(visitor, transaction)
        if row is None or row.claimed_by not in (None, viewer.user_id):
            raise NotFound
        await users.ensure_user(viewer, transaction)
        moved = await claims.move_everything(viewer, visitor, transaction)
        if row.claimed_by is None or not moved.is_nothing:
            detail = {
                "session_count": moved.sessions,
                "message_count": moved.messages,
                "document_count": len(moved.documents),
                "duplicate_count": len(moved.forgotten),
            }
            await audit.record(
                viewer, transaction, Action.CLAIM, Entity.USER, row.id, detail, request_id
            )
        session_count = await audit.claimed_sessions(viewer, transaction, row.id)
        user = await users.user(viewer, transaction)
        return Claimed(user, session_count), moved

    return await database.transact(claim)
