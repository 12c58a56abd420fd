"""How often a viewer may ask: a rate for all requests, and quotas for what costs money.

Counted in memory, or by Redis for all processes together. When Redis is away nobody is turned
away: a chat that works without its limits is better than none.
"""

import time
from datetime import UTC, datetime
from math import ceil

import structlog
from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.aio.strategies import FixedWindowRateLimiter, SlidingWindowCounterRateLimiter
from limits.errors import StorageError

from db.viewer import Viewer
from graphql_api.settings import Settings, SettingsInvalid
from resolvers.errors import QuotaExceeded, RateLimited
from resolvers.quotas import Quota

log = structlog.get_logger(__name__)


class Meter:
    """Counts what viewers do."""

    def __init__(self, settings: Settings) -> None:
        """Raise `SettingsInvalid` for an address that is none of Redis."""
        redis_url = settings.redis_url
        storage = _storage(redis_url.get_secret_value() if redis_url else None)
        self._rate = _rate(settings.rate_limit)
        self._quotas = {
            Quota.SEND_MESSAGE: _rate(settings.send_message_quota),
            Quota.ADD_DOCUMENT: _rate(settings.add_document_quota),
        }
        self._storage = storage
        self._window = SlidingWindowCounterRateLimiter(storage)
        self._fixed = FixedWindowRateLimiter(storage)

    async def count_request(self, viewer: Viewer, cost: int = 1) -> None:
        """Count a request. Raises `RateLimited` where the viewer has made too many."""
        rate = self._rate
        if rate is None:
            return
        who = str(viewer.user_id)
        try:
            if await self._window.hit(rate, "requests", who, cost=cost):
                return
            reset = (await self._window.get_window_stats(rate, "requests", who)).reset_time
        except StorageError as error:
            log.warning("rate_limit.not_counted", reason=type(error.storage_error).__name__)
            return
        raise RateLimited(str(rate), retry_after_seconds=max(1, ceil(reset - time.time())))

    async def take(self, viewer: Viewer, quota: Quota) -> None:
        """Take one of a viewer's quota. Raises `QuotaExceeded` where it is used up."""
        allowed = self._quotas.get(quota)
        if allowed is None:
            return
        who = str(viewer.user_id)
        try:
            if await self._fixed.hit(allowed, quota.value, who):
                return
            reset = (await self._fixed.get_window_stats(allowed, quota.value, who)).reset_time
        except StorageError as error:
            log.warning("quota.not_counted", reason=type(error.storage_error).__name__)
            return
        raise QuotaExceeded(str(allowed), resets_at=datetime.fromtimestamp(reset, UTC))

    async def give_back(self, viewer: Viewer, quota: Quota) -> None:
        """Give one back that was taken for nothing."""
        allowed = self._quotas.get(quota)
        if allowed is None:
            return
        key = allowed.key_for(quota.value, str(viewer.user_id))
        try:
            await self._storage.incr(key, allowed.get_expiry(), amount=-1)
        except StorageError as error:
            log.warning("quota.not_given_back", reason=type(error.storage_error).__name__)


def _rate(text: str) -> RateLimitItem | None:
    return None if text == "off" else parse(text)


def _storage(redis_url: str | None) -> Storage:
    if redis_url is None:
        return MemoryStorage()
    try:
        return RedisStorage(f"async+{redis_url}", wrap_exceptions=True, implementation="redispy")
    except ValueError as error:
        raise SettingsInvalid(f"REDIS_URL: {error}") from None
