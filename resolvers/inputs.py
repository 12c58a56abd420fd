"""Checks of what clients send: every string that reaches the database has passed here."""

import re
from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

from resolvers.errors import BadRequest, InvalidInput

IdT = TypeVar("IdT", bound=UUID)

MAX_CONTENT_LENGTH = 100_000
"Characters of a message. Several times what the usual model can read in one go."
MAX_LABEL_LENGTH = 500
"Characters of a title, a chapter, a name or an address."


_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
"As RFC 9562 writes them. Python's own reader takes any 32 digits, and what stands among them."


def parse_uuid(text: str) -> UUID | None:
    """Read a UUID. Null: it is none."""
    return UUID(text) if _UUID.fullmatch(text) else None


def parse_id(text: str, kind: Callable[[UUID], IdT]) -> IdT | None:
    """Read an id that should name something. What is no UUID names nothing: null."""
    uuid = parse_uuid(text)
    return None if uuid is None else kind(uuid)


def parse_made_id(text: str | None, field: str) -> UUID | None:
    """Read an id that the client made; null stays null. Raises `InvalidInput`."""
    if text is None:
        return None
    uuid = parse_uuid(text)
    if uuid is None:
        raise InvalidInput("An id is a UUID.", field)
    return uuid


def check_text(
    text: str, field: str, *, at_most: int = MAX_LABEL_LENGTH, empty: bool = False
) -> str:
    """Let through what Postgres can hold: no NUL, no half of a surrogate pair, not too long.

    Raises `InvalidInput`. Without `empty`, text of white space alone is refused too.
    """
    if not empty and not text.strip():
        raise InvalidInput("It must not be empty.", field)
    if len(text) > at_most:
        raise InvalidInput(f"It is longer than {at_most:,} characters.", field)
    if not is_storable(text):
        raise InvalidInput("It holds a NUL character or half of a surrogate pair.", field)
    return text


def is_storable(text: str) -> bool:
    """Tell whether Postgres can hold a text."""
    return "\0" not in text and not any("\ud800" <= each <= "\udfff" for each in text)


def check_optional_text(
    text: str | None, field: str, *, at_most: int = MAX_LABEL_LENGTH
) -> str | None:
    """Check a text that may be left out."""
    return None if text is None else check_text(text, field, at_most=at_most)


def check_filter(text: str | None, name: str) -> None:
    """Refuse an argument that no stored text can equal. Raises `BadRequest`."""
    try:
        check_optional_text(text, name, at_most=MAX_CONTENT_LENGTH)
    except InvalidInput as error:
        raise BadRequest(f"{name}: {error}") from error
