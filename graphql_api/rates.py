"""How often a viewer may ask: a rate for all requests, and quotas for what costs money.

Counted in memory, or by Redis for all processes together. When Redis is away nobody is turned
away: a chat that works without its limits is better than none.
"""

import time
from datetime import UTC, datetime
from math import ceil
from typing import Any

import structlog
from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.aio.strategies import FixedWindowRateLimiter, SlidingWindowCounterRateLimiter
from limits.errors import ConfigurationError, StorageError
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from db.viewer import Viewer
from graphql_api.settings import Settings, SettingsInvalid
from resolvers.errors import QuotaExceeded, RateLimited
from resolvers.quotas import Quota

ANSWER_SECONDS = 0.5
"Redis answers in less than a thousandth of that; nobody's request shall wait for one that doesn't."
AWAY_SECONDS = 5.0
"For so long a Redis that was away is left alone."

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
        self._away_until = 0.0
        self._window = SlidingWindowCounterRateLimiter(storage)
        self._fixed = FixedWindowRateLimiter(storage)

    async def count_request(self, viewer: Viewer, cost: int = 1) -> None:
        """Count a request. Raises `RateLimited` where the viewer has made too many."""
        rate = self._rate
        if rate is None:
            return
        reset = await self._refused_until(self._window, rate, "requests", viewer, cost)
        if reset is not None:
            raise RateLimited(str(rate), retry_after_seconds=max(1, ceil(reset - time.time())))

    async def take(self, viewer: Viewer, quota: Quota) -> None:
        """Take one of a viewer's quota. Raises `QuotaExceeded` where it is used up."""
        allowed = self._quotas.get(quota)
        if allowed is None:
            return
        reset = await self._refused_until(self._fixed, allowed, quota.value, viewer)
        if reset is not None:
            await self.give_back(viewer, quota)  # what was refused was counted all the same
            raise QuotaExceeded(str(allowed), resets_at=datetime.fromtimestamp(reset, UTC))

    async def give_back(self, viewer: Viewer, quota: Quota) -> None:
        """Give one back that was taken for nothing."""
        allowed = self._quotas.get(quota)
        if allowed is None or self._is_away:
            return
        key = allowed.key_for(quota.value, str(viewer.user_id))
        try:
            await self._storage.incr(key, allowed.get_expiry(), amount=-1)
        except StorageError as error:
            self._goes_away(error)

    async def _refused_until(
        self,
        limiter: FixedWindowRateLimiter | SlidingWindowCounterRateLimiter,
        allowed: RateLimitItem,
        what: str,
        viewer: Viewer,
        cost: int = 1,
    ) -> float | None:
        """Count it. Where that is too much, tell when there will be more, in Unix time."""
        if self._is_away:
            return None
        who = str(viewer.user_id)
        try:
            if await limiter.hit(allowed, what, who, cost=cost):
                return None
            return (await limiter.get_window_stats(allowed, what, who)).reset_time
        except StorageError as error:
            self._goes_away(error)
            return None

    @property
    def _is_away(self) -> bool:
        return time.monotonic() < self._away_until

    def _goes_away(self, error: StorageError) -> None:
        self._away_until = time.monotonic() + AWAY_SECONDS
        log.warning("limits.not_counted", reason=type(error.storage_error).__name__)


def _rate(text: str) -> RateLimitItem | None:
    return None if text == "off" else parse(text)


def _storage(redis_url: str | None) -> Storage:
    if redis_url is None:
        return MemoryStorage()
    # Once more: a connection that was idle may have been closed.
    options: dict[str, Any] = {"retry": Retry(NoBackoff(), 1)}
    try:
        return RedisStorage(
            f"async+{redis_url}",
            wrap_exceptions=True,
            implementation="redispy",
            socket_connect_timeout=ANSWER_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            **options,
        )
    except (ValueError, ConfigurationError):
        message = "REDIS_URL has to look like redis://host:6379/0, or rediss:// for TLS"
        raise SettingsInvalid(message) from None
