"""The wire to Postgres breaks at every statement of a turn: there is one turn, and it is whole."""

from dataclasses import replace
from functools import partial
from typing import NamedTuple
from uuid import uuid4

import pytest

from db.connections import Patience
from db.engine import Database
from db.errors import DatabaseUnavailable
from db.messages import MessageRow
from db.models import MessageStatus
from db.viewer import Viewer
from resolvers.turns import SentTurn
from tests.factories import make_viewer
from tests.operations import until
from tests.outages.conftest import IS_LONG, PATIENCE
from tests.outages.faults import How, Moment, Wire
from tests.outages.invariants import broken_in
from tests.streaming.scripted import Replica, ScriptedModel, replica, stored

TURN = (
    "SELECT chat_messages",  # is it there already?
    "BEGIN",
    "INSERT INTO users",
    "UPDATE chat_sessions",  # claim it
    "INSERT INTO chat_sessions",
    "UPDATE chat_messages SET status",  # settle what died there
    "INSERT INTO chat_messages",  # the question
    "INSERT INTO chat_messages",  # the reply
    "INSERT INTO audit_logs",
    "COMMIT",
    "SELECT chat_messages",  # the history
    "UPDATE chat_messages SET content",  # the end
)
"All that is asked of Postgres from a message to the end of its reply, if that comes at once."
AWAY_SECONDS = 2.0
SILENT_SECONDS = 0.5
"How long a statement is waited for: an answer takes some milliseconds."


@pytest.fixture
def database_url(shared_url: str) -> str:
    return shared_url


@pytest.fixture
def tick_seconds() -> float:
    """Hardly ever: a tick in between would be counted as a statement of the turn."""
    return 60.0


class Point(NamedTuple):
    """A statement of a turn, by its number and how it begins."""

    number: int
    beginning: str

    def __str__(self) -> str:
        return f"{self.number} {self.beginning}"


POINTS = [Point(*each) for each in enumerate(TURN, 1)]
SOME = [point for point in POINTS if IS_LONG or point.number in (4, 10, 12)]
"A lock, the commit and the end; all where there is time."
BEGIN, LOCKING, COMMIT = POINTS[1], POINTS[2:9], POINTS[9]


class Message(NamedTuple):
    """What a client sends, and would send again."""

    viewer: Viewer
    message_id: str
    session_id: str


def message(viewer: Viewer) -> Message:
    return Message(viewer, str(uuid4()), str(uuid4()))


async def send(a: Replica, sent: Message) -> SentTurn:
    return await a.send(sent.viewer, message_id=sent.message_id, session_id=sent.session_id)


async def warm(a: Replica, voices: ScriptedModel) -> None:
    """Open a connection, and have every statement of a turn prepared on it."""
    voices["Question"].finish("Hello.")
    sent = await send(a, message(viewer := make_viewer()))
    await a.replies.ended(viewer, sent.reply)


async def check(onlooker: Database, sent: Message, ended: MessageRow) -> None:
    """One turn stands, the one that was told, and all else is as it always is."""
    assert (ended.status, ended.content) == (MessageStatus.COMPLETE, "Here.")
    assert str(ended.reply_to) == sent.message_id
    assert ended == await stored(onlooker, sent.viewer, ended.id)
    assert await broken_in(onlooker, at_rest=True) == {}


async def test_a_turn_asks_no_more_and_no_less(
    a: Replica, wire: Wire, voices: ScriptedModel, viewer: Viewer
):
    await warm(a, voices)
    before = len(wire.statements)
    voices["Question"].finish("Here.")
    sent = await send(a, message(viewer))
    await a.replies.ended(viewer, sent.reply)
    asked = wire.statements[before:]
    assert len(asked) == len(TURN)
    for statement, beginning in zip(asked, TURN, strict=True):
        assert statement.startswith(beginning)


@pytest.mark.parametrize("point", POINTS, ids=str)
async def test_a_turn_that_breaks_is_done_once(
    a: Replica, wire: Wire, voices: ScriptedModel, onlooker: Database, point: Point
):
    for moment in Moment:
        await warm(a, voices)
        voices["Question"].finish("Here.")
        before = voices["Question"].calls
        planned = wire.break_at("", moment, nth=point.number)
        sent = await send(a, turn := message(make_viewer()))
        ended = await a.replies.ended(turn.viewer, sent.reply)
        assert planned.statement, moment
        assert planned.statement.startswith(point.beginning), moment
        assert voices["Question"].calls == before + 1, moment
        await check(onlooker, turn, ended)


@pytest.mark.parametrize("point", SOME, ids=str)
async def test_a_turn_after_whose_break_postgres_is_away_is_done_once(
    a: Replica,
    wire: Wire,
    voices: ScriptedModel,
    viewer: Viewer,
    onlooker: Database,
    point: Point,
):
    await warm(a, voices)
    voices["Question"].finish("Here.")
    refuse = partial(wire.refuse_for, AWAY_SECONDS, "57P03")
    planned = wire.break_at("", Moment.AFTER, nth=point.number, then=refuse)
    sent = await send(a, turn := message(viewer))
    ended = await a.replies.ended(viewer, sent.reply)
    assert planned.sprung
    assert wire.refused
    assert voices["Question"].calls == 2
    await check(onlooker, turn, ended)


@pytest.mark.parametrize("point", SOME, ids=str)
async def test_a_turn_that_breaks_at_one_point_again_and_again_is_done_once(
    a: Replica,
    wire: Wire,
    voices: ScriptedModel,
    viewer: Viewer,
    onlooker: Database,
    point: Point,
):
    await warm(a, voices)
    voices["Question"].finish("Here.")
    nth = TURN[: point.number].count(point.beginning)
    planned = [
        wire.break_at(point.beginning, moment, nth=nth)
        for moment in (Moment.BEFORE, Moment.AMID, Moment.BEFORE)
    ]
    sent = await send(a, turn := message(viewer))
    ended = await a.replies.ended(viewer, sent.reply)
    assert planned[0].sprung
    assert voices["Question"].calls == 2
    await check(onlooker, turn, ended)


@pytest.mark.parametrize(
    ("point", "moment"),
    [
        *((point, Moment.AFTER) for point in SOME if point not in LOCKING),
        (BEGIN, Moment.BEFORE),
    ],
    ids=str,
)
async def test_a_turn_that_falls_silent_and_locks_nothing_is_done_once(
    wire: Wire,
    voices: ScriptedModel,
    viewer: Viewer,
    onlooker: Database,
    point: Point,
    moment: Moment,
):
    patience = replace(PATIENCE, statement=SILENT_SECONDS)
    async with replica(wire.url, voices, pool_size=1, patience=patience) as a:
        await warm(a, voices)
        voices["Question"].finish("Here.")
        planned = wire.break_at("", moment, How.SILENT, nth=point.number)
        sent = await send(a, turn := message(viewer))
        ended = await a.replies.ended(viewer, sent.reply)
        assert planned.sprung
        assert voices["Question"].calls == 2
        await check(onlooker, turn, ended)


@pytest.mark.parametrize(
    ("point", "moment"),
    [*((point, Moment.AFTER) for point in SOME if point in LOCKING), (COMMIT, Moment.BEFORE)],
    ids=str,
)
async def test_a_turn_whose_locks_outlast_it_is_unavailable_until_postgres_notices(
    wire: Wire,
    a: Replica,
    voices: ScriptedModel,
    viewer: Viewer,
    onlooker: Database,
    point: Point,
    moment: Moment,
):
    """Postgres does not hear that we are gone, and goes on to hold what it had locked for us."""
    quick, turn = Patience(statement=SILENT_SECONDS, retry=2 * SILENT_SECONDS), message(viewer)
    async with replica(wire.url, voices, pool_size=1, patience=quick) as b:
        await warm(b, voices)
        planned = wire.break_at("", moment, How.SILENT, nth=point.number)
        with pytest.raises(DatabaseUnavailable):
            await send(b, turn)
    assert planned.sprung
    wire.end_silence()
    voices["Question"].finish("Here.")
    sent = await send(a, turn)
    await check(onlooker, turn, await a.replies.ended(viewer, sent.reply))
    assert voices["Question"].calls == 2


@pytest.mark.parametrize("tick_seconds", [0.02], ids=["ticking"])
@pytest.mark.parametrize("moment", Moment)
async def test_a_tick_that_breaks_writes_its_text_once(
    a: Replica,
    wire: Wire,
    voices: ScriptedModel,
    viewer: Viewer,
    onlooker: Database,
    moment: Moment,
):
    ticks = [wire.break_at("WITH mine", moment) for _ in range(3)]
    sent = await send(a, turn := message(viewer))
    for planned, piece in zip(ticks, ("He", "r", "e"), strict=True):
        voices["Question"].say(piece)
        await until(lambda planned=planned: planned.sprung)
    voices["Question"].finish(".")
    await check(onlooker, turn, await a.replies.ended(viewer, sent.reply))


@pytest.mark.parametrize("number", range(1, 10) if IS_LONG else (1, 3, 5))
async def test_a_first_connection_that_breaks_is_made_again(
    wire: Wire, voices: ScriptedModel, viewer: Viewer, onlooker: Database, number: int
):
    """What SQLAlchemy and asyncpg ask of a server that they see for the first time."""
    planned = wire.break_at("", Moment.AMID, nth=number)
    async with replica(wire.url, voices, patience=PATIENCE) as a:
        voices["Question"].finish("Here.")
        sent = await send(a, turn := message(viewer))
        ended = await a.replies.ended(viewer, sent.reply)
    assert planned.sprung
    await check(onlooker, turn, ended)


async def test_a_slow_wire_changes_nothing(
    a: Replica, wire: Wire, voices: ScriptedModel, viewer: Viewer, onlooker: Database
):
    wire.delay_seconds = 0.02
    voices["Question"].finish("Here.")
    sent = await send(a, turn := message(viewer))
    await check(onlooker, turn, await a.replies.ended(viewer, sent.reply))
