"""Two replicas over one database, quick ticks, and a model that the tests speak for."""

from collections.abc import AsyncGenerator

import pytest

from db.viewer import Viewer
from tests.factories import make_viewer
from tests.streaming.scripted import Replica, ScriptedModel, replica


@pytest.fixture(autouse=True)
def _quick_ticks(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:  # pyright: ignore[reportUnusedFunction]
    """Tick more often than the product, but where a test is about the product's own pace."""
    if "product_pace" in request.fixturenames:
        return
    monkeypatch.setattr("resolvers.runs.TICK_SECONDS", 0.02)
    monkeypatch.setattr("resolvers.watches.TICK_SECONDS", 0.02)
    monkeypatch.setattr("resolvers.runs.END_RETRY_SECONDS", 0.05)


@pytest.fixture
def product_pace() -> None:
    """Leave the product's own intervals alone."""


@pytest.fixture
def no_ticks(monkeypatch: pytest.MonkeyPatch, _quick_ticks: None) -> None:
    """Tick only where the test says so."""
    monkeypatch.setattr("resolvers.runs.TICK_SECONDS", 3600)
    monkeypatch.setattr("resolvers.watches.TICK_SECONDS", 3600)


@pytest.fixture
def voices() -> ScriptedModel:
    return ScriptedModel()


@pytest.fixture
async def a(database_url: str, voices: ScriptedModel) -> AsyncGenerator[Replica]:
    async with replica(database_url, voices) as opened:
        yield opened


@pytest.fixture
async def b(database_url: str, voices: ScriptedModel) -> AsyncGenerator[Replica]:
    async with replica(database_url, voices) as opened:
        yield opened


@pytest.fixture
def viewer() -> Viewer:
    return make_viewer()
