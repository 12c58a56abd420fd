"""One reply's text in memory, and everybody who follows it from anywhere."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.ids import MessageId, SessionId, new_id
from db.messages import MessageRow
from db.utf16 import index_at, utf16_length
from resolvers.events import Delta, Ended, Searched, StreamEvent
from resolvers.streams import PIECES_AT_ONCE, ReplyStream
from tests.streaming.scripted import check_contiguous, settled

CHARACTERS = st.one_of(
    st.sampled_from("ab \n" + "é́̈" + "😀👩\u200d👧🏽" + "𝔘𐍈" + "漢\ufffd"),
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
)
PIECES = st.lists(st.text(CHARACTERS, min_size=1, max_size=6), max_size=20)
ROW = MessageRow(
    id=MessageId(new_id()),
    session_id=SessionId(new_id()),
    position=2,
    role="ASSISTANT",
    content="",
    content_length=0,
    chapter=None,
    selected_text=None,
    document_ids=None,
    status="COMPLETE",
    reply_to=None,
    citations=[],
    searches=[],
    model=None,
    token_count=None,
    prompt_tokens=None,
    completion_tokens=None,
    error=None,
    created_at=datetime.now(UTC),
    completed_at=None,
)


def units_from(text: str, offset: int) -> str:
    """What stands from an offset on, by UTF-16 itself; inside a pair, from its beginning."""
    units = text.encode("utf-16-le")
    if units[2 * offset : 2 * offset + 2] and 0xDC <= units[2 * offset + 1] <= 0xDF:
        offset -= 1
    return units[2 * offset :].decode("utf-16-le")


def check_deltas(events: Sequence[StreamEvent], text: str, offset: int) -> None:
    deltas = [event for event in events if isinstance(event, Delta)]
    expected = units_from(text, offset)
    check_contiguous(deltas)
    assert "".join(delta.text for delta in deltas) == expected
    if deltas:
        assert deltas[0].offset == utf16_length(text) - utf16_length(expected)
    assert events[-1] == Ended(ROW)
    assert sum(isinstance(event, Ended) for event in events) == 1


@given(pieces=PIECES, data=st.data())
async def test_whoever_comes_late_gets_all_from_their_offset(
    pieces: list[str], data: st.DataObject
):
    text = "".join(pieces)
    offset = data.draw(st.integers(0, utf16_length(text) + 3))
    stream = ReplyStream()
    for piece in pieces:
        stream.add(piece)
    stream.end(ROW)
    check_deltas([event async for event in stream.follow(offset)], text, offset)


@given(pieces=PIECES, data=st.data())
async def test_whoever_reads_along_gets_all_from_their_offset(
    pieces: list[str], data: st.DataObject
):
    """Readers are as slow as hypothesis has them, and come when it has them come."""
    text = "".join(pieces)
    stream = ReplyStream()
    told: list[tuple[int, list[StreamEvent], asyncio.Task[None]]] = []

    async def read(following: AsyncGenerator[StreamEvent], events: list[StreamEvent]) -> None:
        async for event in following:
            events.append(event)
            for _ in range(data.draw(st.integers(0, 5))):
                await asyncio.sleep(0)

    def come(offset: int) -> None:
        events: list[StreamEvent] = []
        told.append((offset, events, asyncio.create_task(read(stream.follow(offset), events))))

    come(0)
    for piece in pieces:
        if data.draw(st.booleans()):
            come(data.draw(st.integers(0, utf16_length(text) + 3)))
        if data.draw(st.booleans()):
            await asyncio.sleep(0)
        stream.add(piece)
    stream.end(ROW)
    for offset, events, task in told:
        await task
        check_deltas(events, text, offset)


@given(text=st.text(CHARACTERS, max_size=30), offset=st.integers(0, 80))
def test_an_offset_counts_as_javascript_counts(text: str, offset: int):
    assert text[index_at(text, offset) :] == units_from(text, offset)


@given(pieces=PIECES, data=st.data())
async def test_the_text_from_an_offset_is_what_followers_get(
    pieces: list[str], data: st.DataObject
):
    """It is what goes to the row."""
    text = "".join(pieces)
    offset = data.draw(st.integers(0, utf16_length(text)))
    stream = ReplyStream()
    for piece in pieces:
        stream.add(piece)
    assert stream.text_from(offset) == units_from(text, offset)


async def test_inside_a_pair_means_at_its_beginning():
    stream = ReplyStream()
    stream.add("a😀b")
    stream.end(ROW)
    assert [event async for event in stream.follow(2)] == [Delta(1, "😀b"), Ended(ROW)]


async def test_past_the_end_there_is_nothing_until_it_is_longer():
    stream = ReplyStream()
    stream.add("four")
    following = stream.follow(6)
    coming = asyncio.ensure_future(anext(following))
    await settled()
    assert not coming.done()
    stream.add("56")
    await settled()
    assert not coming.done()
    stream.add("789")
    assert await coming == Delta(6, "789")
    await following.aclose()


async def test_each_piece_comes_as_it_was_sent():
    stream = ReplyStream()
    following = stream.follow(0)
    for number, piece in enumerate(("one", "two", "six")):
        coming = asyncio.ensure_future(anext(following))
        await settled()
        stream.add(piece)
        assert await coming == Delta(3 * number, piece)
    await following.aclose()


async def test_many_pieces_behind_are_joined():
    stream = ReplyStream()
    for _ in range(PIECES_AT_ONCE + 1):
        stream.add("ab")
    following = stream.follow(1)
    assert await anext(following) == Delta(1, "b" + PIECES_AT_ONCE * "ab")
    await following.aclose()


async def test_a_few_pieces_behind_come_one_by_one():
    stream = ReplyStream()
    for _ in range(PIECES_AT_ONCE):
        stream.add("ab")
    following = stream.follow(0)
    assert await anext(following) == Delta(0, "ab")
    await following.aclose()


async def test_searches_are_told_to_whoever_comes_late():
    stream = ReplyStream()
    stream.search(Searched("first", []))
    stream.add("text")
    stream.search(Searched("second", []))
    stream.end(ROW)
    events = [event async for event in stream.follow(4)]
    assert events == [Searched("first", []), Searched("second", []), Ended(ROW)]


async def test_a_failure_reaches_every_follower():
    stream = ReplyStream()
    following = [asyncio.ensure_future(anext(stream.follow(0))) for _ in range(3)]
    await settled()
    stream.fail(ValueError("lost"))
    for each in following:
        with pytest.raises(ValueError, match="lost"):
            await each


async def test_a_follower_who_leaves_disturbs_nobody():
    stream = ReplyStream()
    staying, leaving = stream.follow(0), stream.follow(0)
    coming = [asyncio.ensure_future(anext(each)) for each in (staying, leaving)]
    await settled()
    coming[1].cancel()
    await settled()
    stream.add("on")
    assert await coming[0] == Delta(0, "on")
    await staying.aclose()


async def test_two_thousand_follow_one_stream():
    pieces = [f"{number} 😀" for number in range(60)]
    stream = ReplyStream()
    texts = ["" for _ in range(2_000)]

    async def read(number: int) -> None:
        async for event in stream.follow(0):
            if isinstance(event, Delta):
                texts[number] += event.text

    readers = [asyncio.create_task(read(number)) for number in range(len(texts))]
    for piece in pieces:
        stream.add(piece)
        await asyncio.sleep(0)
    stream.end(ROW)
    await asyncio.gather(*readers)
    assert set(texts) == {"".join(pieces)}


async def test_a_stalled_follower_holds_no_text_of_its_own():
    """What it misses is kept once, in the stream."""
    stream = ReplyStream()
    stalled = stream.follow(0)
    stream.add("a")
    assert await anext(stalled) == Delta(0, "a")
    for _ in range(10_000):
        stream.add("b")
    assert await anext(stalled) == Delta(1, 10_000 * "b")
    await stalled.aclose()
