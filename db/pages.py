"""Keyset pages: a slice of an ordered list, found by the sort key of its neighbour.

A page costs the same wherever it lies, and rows that come or go elsewhere never shift it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, bindparam, tuple_
from sqlalchemy.types import TypeEngine

from db.engine import AnySelect

RowT = TypeVar("RowT")

Key = tuple[Any, ...]
"Values of the columns that a list is sorted by, the last of them unique."


@dataclass(frozen=True, slots=True)
class Slice:
    """Which part of a list is asked for: `limit` rows from one end of what lies between two keys.

    `after` and `before` are sort keys and exclusive. `from_end` takes the last rows instead of
    the first; they still come in the list's order.
    """

    limit: int
    after: Key | None = None
    before: Key | None = None
    from_end: bool = False

    @property
    def values(self) -> dict[str, Any]:
        """The values to bind in a statement that `keyset` made."""
        values: dict[str, Any] = {"page_limit": self.limit + 1}
        for name, key in (("after", self.after), ("before", self.before)):
            values |= {f"{name}_{index}": part for index, part in enumerate(key or ())}
        return values


@dataclass(frozen=True, slots=True)
class Page(Generic[RowT]):
    """Rows in the list's order, and whether more lie beyond either end."""

    rows: list[RowT]
    has_next: bool
    has_previous: bool


EMPTY_PAGE: Page[Any] = Page([], has_next=False, has_previous=False)


def keyset(
    statement: AnySelect, order: Sequence[ColumnElement[Any]], wanted: Slice, *, descending: bool
) -> AnySelect:
    """Narrow a statement to a slice, one row longer than asked for (`page` takes it off again).

    The shape depends on which parts of the slice are given, never on their values, so that
    the compiled statement is found again.
    """
    key = tuple_(*order)
    if wanted.after is not None:
        after = _bound("after", order)
        statement = statement.where(key < after if descending else key > after)
    if wanted.before is not None:
        before = _bound("before", order)
        statement = statement.where(key > before if descending else key < before)
    downwards = descending != wanted.from_end
    return statement.order_by(
        *(column.desc() if downwards else column.asc() for column in order)
    ).limit(bindparam("page_limit"))


def page(rows: Sequence[RowT], wanted: Slice) -> Page[RowT]:
    """Make the page of the rows that a `keyset` statement found."""
    more = len(rows) > wanted.limit
    kept = list(rows[: wanted.limit])
    if wanted.from_end:
        kept.reverse()
        return Page(
            kept,
            has_next=wanted.before is not None,
            has_previous=more or wanted.after is not None,
        )
    return Page(
        kept,
        has_next=more or wanted.before is not None,
        has_previous=wanted.after is not None,
    )


def _bound(name: str, order: Sequence[ColumnElement[Any]]) -> Any:
    types: list[TypeEngine[Any]] = [column.type for column in order]
    return tuple_(*(bindparam(f"{name}_{i}", type_=type_) for i, type_ in enumerate(types)))
