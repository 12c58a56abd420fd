"""How long an answer takes does not tell whether a stranger has what was asked for.

What one statement more takes is lost in the noise of a busy machine: that there is none is seen
by counting them. The clock sees what else there may be, if it is much.
"""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Generator
from random import Random
from uuid import uuid4

import pytest

from tests.isolation.answers import WAYS, answered
from tests.isolation.operations import OPERATIONS, Operation
from tests.isolation.routes import ROUTES, Try, tried
from tests.isolation.scenes import Scene, Thing, make_hers
from tests.isolation.timings import PAIRS, TELLING, ToldApart, check_alike, difference
from tests.people import Parley, Person
from tests.statements import recorded

Ask = Callable[[str], Awaitable[object]]


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


async def test_an_operation_asks_the_database_alike_for_hers_and_for_nothing(
    alice: Person, parley: Parley
):
    hers = await make_hers(alice, parley)
    for path, operation in OPERATIONS.items():
        if operation.opens:
            ask = asking(parley, parley.person(), operation)
            for_hers, for_nothing = await statements(parley, ask, hers.things[operation.opens])
            assert for_hers
            assert for_hers == for_nothing, path


async def test_a_route_asks_the_database_alike_for_hers_and_for_nothing(
    alice: Person, parley: Parley
):
    hers = await make_hers(alice, parley)
    for path, route in ROUTES.items():
        for one in route.tries:
            ask = trying(parley.person(), one)
            for_hers, for_nothing = await statements(parley, ask, hers.things[route.opens])
            assert for_hers
            assert for_hers == for_nothing, path


def asking(parley: Parley, person: Person, operation: Operation) -> Ask:
    """Give what asks, for a name."""
    way = WAYS[operation.kind][0]
    return lambda name: answered(
        *(parley, person, way, operation.text), id=name, message=str(uuid4())
    )


def trying(person: Person, one: Try) -> Ask:
    return lambda name: tried(person, one(name))


async def statements(parley: Parley, ask: Ask, thing: Thing) -> list[list[str]]:
    """Give what the database is asked for something of hers, and for nothing, in any order."""
    asked: list[list[str]] = []
    await ask(thing.of_nothing())  # who has never written before is made a user
    for name in (thing.name, thing.of_nothing()):
        with recorded(parley.database) as sent:
            await ask(name)
        asked.append(sorted(sent))
    return asked


@pytest.mark.asyncio(loop_scope="package")
@pytest.mark.parametrize("scene", ["visitors"], indirect=True)
@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("path", [path for path, each in OPERATIONS.items() if each.opens])
async def test_an_operation_takes_as_long_for_hers_as_for_nothing(path: str, scene: Scene):
    operation = OPERATIONS[path]
    thing = scene.hers.things[operation.opens]

    async def ask(name: str) -> None:
        await asking(scene.parley, scene.stranger(), operation)(name)

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
