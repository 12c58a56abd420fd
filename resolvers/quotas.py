"""Quotas: how much of what costs money a viewer may have. They are counted elsewhere."""

from collections.abc import AsyncGenerator
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


@asynccontextmanager
async def taken(quotas: Quotas, viewer: Viewer, quota: Quota) -> AsyncGenerator[None]:
    """Take one for what the block does, and give it back if that fails."""
    await quotas.take(viewer, quota)
    try:
        yield
    except BaseException:
        await quotas.give_back(viewer, quota)
        raise
