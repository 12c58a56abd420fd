"""How long an answer takes does not tell whether a stranger has what was asked for."""

import asyncio
import gc
from collections.abc import Generator
from random import Random
from uuid import uuid4

import pytest

from tests.isolation.answers import WAYS, answered
from tests.isolation.operations import OPERATIONS
from tests.isolation.routes import ROUTES, tried
from tests.isolation.scenes import Scene
from tests.isolation.timings import PAIRS, TELLING, ToldApart, check_alike, difference


@pytest.fixture
def no_pauses() -> Generator[None]:
    """Collect garbage before, not while times are taken."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def test_what_takes_longer_is_told_apart():
    async def quick() -> None:
        await asyncio.sleep(0.001)

    async def slow() -> None:
        await asyncio.sleep(0.006)

    with pytest.raises(ToldApart):
        await check_alike(slow, quick)
    with pytest.raises(ToldApart):
        await check_alike(quick, slow)
    await check_alike(quick, quick)


def test_outliers_tell_nothing_apart():
    random = Random(7)

    def times(longer: float = 0.0) -> list[float]:
        """Mostly 5 ms, and now and then a tenth of a second, as on a busy machine."""
        return [
            0.1 * random.random()
            if random.random() < 1 / 25
            else random.gauss(0.005 + longer, 0.0005)
            for _ in range(PAIRS)
        ]

    assert max(abs(difference(times(), times())) for _ in range(1_000)) < TELLING
    longer = sorted(difference(times(0.002), times()) for _ in range(1_000))
    assert longer[10] > TELLING, "all but one in a hundred"


@pytest.mark.asyncio(loop_scope="package")
@pytest.mark.parametrize("scene", ["visitors"], indirect=True)
@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("path", [path for path, each in OPERATIONS.items() if each.opens])
async def test_an_operation_takes_as_long_for_hers_as_for_nothing(path: str, scene: Scene):
    operation = OPERATIONS[path]
    thing, way = scene.hers.things[operation.opens], WAYS[operation.kind][0]

    async def ask(name: str) -> None:
        await answered(
            *(scene.parley, scene.stranger(), way, operation.text), id=name, message=str(uuid4())
        )

    await check_alike(lambda: ask(thing.name), lambda: ask(thing.of_nothing()))


@pytest.mark.asyncio(loop_scope="package")
@pytest.mark.parametrize("scene", ["visitors"], indirect=True)
@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("path", ROUTES)
async def test_a_route_takes_as_long_for_hers_as_for_nothing(path: str, scene: Scene):
    thing, one = scene.hers.things[ROUTES[path].opens], ROUTES[path].tries[0]

    async def ask(name: str) -> None:
        await tried(scene.stranger(), one(name))

    await check_alike(lambda: ask(thing.name), lambda: ask(thing.of_nothing()))
