"""Relay's paging arguments and cursors, as slices of keyset pages.

A cursor is the sort key of its row, under a letter that names the list it belongs to, in
URL-safe Base64. It says nothing that its reader may not know, and is used only together
with the viewer, so a borrowed one opens nothing.
"""

import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from db.audit import AuditRow
from db.documents import DocumentRow
from db.messages import MessageRow
from db.pages import Key, Slice
from db.sessions import SessionRow
from resolvers.errors import BadRequest

DEFAULT_PAGE_SIZE = 20
MAX_PAGE_SIZE = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class PageArguments:
    """The arguments of a connection field, as the client gave them."""

    first: int | None = None
    after: str | None = None
    last: int | None = None
    before: str | None = None


KeyPart = type[datetime] | type[int] | type[UUID]


@dataclass(frozen=True, slots=True)
class CursorFormat:
    """How one list's sort key becomes a cursor. `tag` is one byte, and no other list's."""

    tag: bytes
    parts: tuple[KeyPart, ...]

    def cursor(self, *key: datetime | int | UUID) -> str:
        data = self.tag + b"".join(map(_packed, key))
        return urlsafe_b64encode(data).rstrip(b"=").decode()

    def key(self, cursor: str) -> Key:
        """Read a cursor. Raises `BadRequest` for one that is not of this list."""
        try:
            data = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
            if data[:1] == self.tag:
                return self._unpacked(data[1:])
        except (Base64Error, ValueError, OverflowError, struct.error):
            pass
        raise BadRequest("That is no cursor of this field.")

    def _unpacked(self, data: bytes) -> Key:
        layout = struct.Struct(">" + "".join("16s" if part is UUID else "q" for part in self.parts))
        values = layout.unpack(data)
        return tuple(_read(part, value) for part, value in zip(self.parts, values, strict=True))


def _packed(part: datetime | int | UUID) -> bytes:
    match part:
        case UUID():
            return part.bytes
        case datetime():
            return struct.pack(">q", (part - _EPOCH) // _MICROSECOND)
        case int():
            return struct.pack(">q", part)


def _read(part: KeyPart, value: Any) -> datetime | int | UUID:
    if part is UUID:
        return UUID(bytes=value)
    if part is datetime:
        return _EPOCH + value * _MICROSECOND
    if not 0 <= value < 2**31:
        raise ValueError("no position")
    return value


SESSIONS = CursorFormat(b"s", (datetime, UUID))
MESSAGES = CursorFormat(b"m", (int,))
DOCUMENTS = CursorFormat(b"d", (UUID,))
AUDIT = CursorFormat(b"a", (UUID,))


def session_cursor(row: SessionRow) -> str:
    return SESSIONS.cursor(row.updated_at, row.id)


def message_cursor(row: MessageRow) -> str:
    return MESSAGES.cursor(row.position)


def document_cursor(row: DocumentRow) -> str:
    return DOCUMENTS.cursor(row.id)


def audit_cursor(row: AuditRow) -> str:
    return AUDIT.cursor(row.id)


def slice_of(asked: PageArguments, cursors: CursorFormat) -> Slice:
    """Say which slice the arguments ask for. Raises `BadRequest` where they make no sense."""
    if asked.first is not None and asked.last is not None:
        raise BadRequest("Give either first or last, not both.")
    for name, size in (("first", asked.first), ("last", asked.last)):
        if size is not None and not 0 <= size <= MAX_PAGE_SIZE:
            raise BadRequest(f"{name} is a number from 0 to {MAX_PAGE_SIZE}, not {size}.")
    size = asked.last if asked.last is not None else asked.first
    return Slice(
        limit=DEFAULT_PAGE_SIZE if size is None else size,
        after=None if asked.after is None else cursors.key(asked.after),
        before=None if asked.before is None else cursors.key(asked.before),
        from_end=asked.last is not None,
    )
