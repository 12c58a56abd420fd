"""Relay's connections over keyset pages."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Generic, TypeVar

import strawberry

from db.pages import Page

NodeT = TypeVar("NodeT")
RowT = TypeVar("RowT")

First = Annotated[
    int | None, strawberry.argument(description="How many from the front; at most 100.")
]
After = Annotated[str | None, strawberry.argument(description="Only what follows this cursor.")]
Last = Annotated[
    int | None, strawberry.argument(description="How many from the back; at most 100.")
]
Before = Annotated[str | None, strawberry.argument(description="Only what precedes this cursor.")]


@strawberry.type(description="Where a page lies in its list.")
class PageInfo:
    has_next_page: bool = strawberry.field(description="Whether more follows this page.")
    has_previous_page: bool = strawberry.field(description="Whether more stands before this page.")
    start_cursor: str | None = strawberry.field(description="The first edge's cursor.")
    end_cursor: str | None = strawberry.field(description="The last edge's cursor.")


@strawberry.type(description="A place in a list, and what stands there.")
class Edge(Generic[NodeT]):
    cursor: str = strawberry.field(description="Names this place, for `after` and `before`.")
    node: NodeT = strawberry.field(description="What stands at this place.")


@strawberry.type(description="A page of a list.")
class Connection(Generic[NodeT]):
    edges: list[Edge[NodeT]] = strawberry.field(description="The page's places, in list order.")
    page_info: PageInfo = strawberry.field(description="Where the page lies in its list.")
    count: strawberry.Private[Callable[[], Awaitable[int]]]

    @strawberry.field(description="How long the whole list is. Counted only when asked for.")
    async def total_count(self) -> int:
        return await self.count()


def connection(
    page: Page[RowT], cursor: Callable[[RowT], str], count: Callable[[], Awaitable[int]]
) -> Connection[Any]:
    """Show a page. A row stands in for its node."""
    edges = [Edge[Any](cursor=cursor(row), node=row) for row in page.rows]
    info = PageInfo(
        has_next_page=page.has_next,
        has_previous_page=page.has_previous,
        start_cursor=edges[0].cursor if edges else None,
        end_cursor=edges[-1].cursor if edges else None,
    )
    return Connection(edges=edges, page_info=info, count=count)
