"""Several processes count together by a real Redis, and nobody waits for one that is away."""

import shutil
import signal
import subprocess
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import RedisError

from graphql_api.rates import Meter
from graphql_api.settings import Settings, SettingsInvalid
from tests.process.processes import free_port, until
from tests.protocol.test_rate_limits import DAY_SECONDS, ask, check_exceeded, send, use_up
from tests.streaming.scripted import ScriptedModel
from tests.streaming.wire import Served, another

REDIS = shutil.which("redis-server")

pytestmark = [
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.skipif(REDIS is None, reason="there is no Redis (Debian: redis-server)"),
]


@dataclass
class RedisServer:
    """A Redis that remembers nothing, on a port of its own."""

    folder: Path
    port: int = field(default_factory=free_port)

    @property
    def url(self) -> SecretStr:
        return SecretStr(f"redis://127.0.0.1:{self.port}/0")

    def start(self) -> None:
        assert REDIS is not None
        options = f"--port {self.port} --bind 127.0.0.1 --save --dir {self.folder}"
        self.process = subprocess.Popen([REDIS, *options.split()], stdout=subprocess.DEVNULL)

    async def answers(self) -> bool:
        client: Any = Redis(port=self.port)
        try:
            return await client.ping()
        except RedisError:
            return False
        finally:
            await client.aclose()

    async def started(self) -> None:
        self.start()
        await until(self.answers, bool)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(autouse=True)
def _soon_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setattr("graphql_api.rates.AWAY_SECONDS", 0.5)


@pytest.fixture
def redis(tmp_path: Path) -> Generator[RedisServer]:
    redis = RedisServer(tmp_path)
    redis.start()
    try:
        yield redis
    finally:
        redis.stop()


@asynccontextmanager
async def replicas(server: Served, **settings: Any) -> AsyncGenerator[tuple[Served, Served]]:
    async with another(server, **settings) as one, another(server, **settings) as other:
        yield one, other


@pytest_asyncio.fixture(loop_scope="package")
async def strict(server: Served, redis: RedisServer) -> AsyncGenerator[tuple[Served, Served]]:
    """Two replicas that allow three requests a day."""
    await until(redis.answers, bool)
    async with replicas(server, rate_limit="3/day", redis_url=redis.url) as strict:
        yield strict


async def test_requests_to_all_replicas_count_together(strict: tuple[Served, Served], key: str):
    one, other = strict
    await use_up(one, key)
    refused = await ask(other, key)
    assert (refused.status, refused.codes) == (429, ["RATE_LIMITED"])
    assert 1 <= int(refused.headers["retry-after"]) <= DAY_SECONDS


async def test_a_quota_is_shared_by_all_replicas(
    server: Served, redis: RedisServer, voices: ScriptedModel, key: str
):
    await until(redis.answers, bool)
    for _ in range(3):
        voices["Question"].finish("Text.")
    async with replicas(server, send_message_quota="2/day", redis_url=redis.url) as (one, other):
        refused = await send(one, key, "")
        assert refused["__typename"] == "InvalidInput"  # and given back
        for replica in (one, other):
            assert (await send(replica, key))["__typename"] == "SendMessageSuccess"
        check_exceeded(await send(one, key))


async def test_while_redis_is_down_nobody_is_turned_away(
    strict: tuple[Served, Served], redis: RedisServer, key: str
):
    await use_up(strict[0], key)
    redis.stop()
    assert {(await ask(strict[0], key)).status for _ in range(5)} == {200}
    await redis.started()
    await until(lambda: ask(strict[0], key), lambda answer: answer.status == 429)


async def test_while_redis_is_silent_nobody_is_turned_away(
    strict: tuple[Served, Served], redis: RedisServer, key: str
):
    await use_up(strict[0], key)
    redis.process.send_signal(signal.SIGSTOP)
    assert {(await ask(strict[0], key)).status for _ in range(5)} == {200}
    redis.process.send_signal(signal.SIGCONT)
    await until(lambda: ask(strict[0], key), lambda answer: answer.status == 429)


@pytest.mark.parametrize("url", ["http://127.0.0.1", "nonsense", "redis://127.0.0.1:none"])
async def test_an_address_that_is_none_of_redis_is_refused(url: str):
    with pytest.raises(SettingsInvalid, match="REDIS_URL has to look like"):
        Meter(Settings.model_construct(redis_url=SecretStr(url)))
