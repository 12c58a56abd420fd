"""Streams end with the credential that began them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

from graphql_api.context import EXPIRED, Context
from resolvers.errors import Unauthenticated

EventT = TypeVar("EventT")


async def while_believed(
    context: Context, source: AsyncGenerator[EventT]
) -> AsyncGenerator[EventT]:
    """Pass events on, each with fresh loaders, until the viewer's credential expires.

    Raises `Unauthenticated` then; what the events tell of goes on.
    """
    viewer = context.viewer
    async with aclosing(source):
        while True:
            try:
                event = await asyncio.wait_for(anext(source), viewer.seconds_left)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise Unauthenticated(EXPIRED) from None
            context.forget()
            yield event
