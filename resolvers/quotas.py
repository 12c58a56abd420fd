"""Quotas: how much of what costs money a viewer may have. They are counted elsewhere."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Protocol

from db.viewer import Viewer


class Quota(StrEnum):
    """What is counted."""

    SEND_MESSAGE = "sendMessage"
    ADD_DOCUMENT = "addDocument"


class Quotas(Protocol):
    """Whoever counts."""

    async def take(self, viewer: Viewer, quota: Quota) -> None:
        """Take one of a viewer's quota. Raises `QuotaExceeded` where it is used up."""
        ...

    async def give_back(self, viewer: Viewer, quota: Quota) -> None:
        """Give one back that was taken for nothing."""
        ...


class NoQuotas:
    """Counts nothing: for the command line, and where none are set."""

    async def take(self, viewer: Viewer, quota: Quota) -> None:
        pass

    async def give_back(self, viewer: Viewer, quota: Quota) -> None:
        pass


Take = Callable[[], Awaitable[None]]


@asynccontextmanager
async def taking(quotas: Quotas, viewer: Viewer, quota: Quota) -> AsyncGenerator[Take]:
    """Give what takes one, once, however often it is called; if the block fails, it is given back.

    A unit of work calls it when it knows that there is something new to pay for. That is within
    its transaction: whoever sends the same at the same time waits for how it ends, and joins it.
    Whoever counts must not keep it waiting, then, though it be away.
    """
    is_taken = False

    async def take() -> None:
        nonlocal is_taken
        if not is_taken:
            await quotas.take(viewer, quota)
            is_taken = True

    try:
        yield take
    except BaseException:
        if is_taken:
            await quotas.give_back(viewer, quota)
        raise
