"""Cursors: a sort key there and back, and nothing else."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolvers.cursors import DOCUMENTS, MESSAGES, SESSIONS, PageArguments, slice_of
from resolvers.errors import BadRequest

MOMENTS = st.datetimes(timezones=st.just(UTC))
POSITIONS = st.integers(min_value=0, max_value=2**31 - 1)


@given(MOMENTS, st.uuids())
def test_a_sessions_cursor_is_its_key(moment: datetime, id: UUID):
    assert SESSIONS.key(SESSIONS.cursor(moment, id)) == (moment, id)


@given(POSITIONS)
def test_a_messages_cursor_is_its_key(position: int):
    assert MESSAGES.key(MESSAGES.cursor(position)) == (position,)


@given(st.uuids())
def test_a_documents_cursor_is_its_key(id: UUID):
    assert DOCUMENTS.key(DOCUMENTS.cursor(id)) == (id,)


@given(MOMENTS, st.uuids(), POSITIONS)
def test_a_cursor_is_of_one_list_alone(moment: datetime, id: UUID, position: int):
    cursors = {
        SESSIONS: SESSIONS.cursor(moment, id),
        MESSAGES: MESSAGES.cursor(position),
        DOCUMENTS: DOCUMENTS.cursor(id),
    }
    for own in cursors:
        for list_, cursor in cursors.items():
            if list_ is not own:
                with pytest.raises(BadRequest):
                    own.key(cursor)


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_any_text_is_a_cursor_or_a_bad_request(text: str):
    for cursors in (SESSIONS, MESSAGES, DOCUMENTS):
        try:
            key = cursors.key(text)
        except BadRequest:
            continue
        assert cursors.key(cursors.cursor(*key)) == key


@given(st.integers(min_value=0, max_value=100))
def test_a_page_is_as_long_as_was_asked(size: int):
    assert slice_of(PageArguments(first=size), MESSAGES).limit == size
    backwards = slice_of(PageArguments(last=size), MESSAGES)
    assert (backwards.limit, backwards.from_end) == (size, True)


@given(st.integers().filter(lambda size: not 0 <= size <= 100))
def test_no_other_size_is_taken(size: int):
    for asked in (PageArguments(first=size), PageArguments(last=size)):
        with pytest.raises(BadRequest):
            slice_of(asked, MESSAGES)
