"""What may reach the database."""

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.ids import SessionId
from resolvers.errors import BadRequest, InvalidInput
from resolvers.inputs import check_filter, check_optional_text, check_text, parse_id, parse_made_id

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=50)
"Half surrogate pairs included."


@given(ANY_TEXT)
def test_what_is_let_through_can_be_stored(text: str):
    try:
        check_text(text, "content", at_most=20)
    except InvalidInput:
        return
    assert text.encode()
    assert "\0" not in text
    assert 0 < len(text) <= 20
    assert text.strip()


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20))
def test_what_can_be_stored_is_let_through_as_it_is(text: str):
    assert check_text(text, "content", at_most=20, empty=True) == text


def test_what_was_left_out_is_let_through():
    assert check_optional_text(None, "title") is None
    assert parse_made_id(None, "id") is None
    check_filter(None, "chapter")


@pytest.mark.parametrize("text", ["\0", "\ud800"])
def test_a_filter_that_no_stored_text_equals_is_a_bad_request(text: str):
    with pytest.raises(BadRequest, match="chapter"):
        check_filter(text, "chapter")


@given(st.uuids())
def test_an_id_may_be_spelt_as_people_do(id: UUID):
    for spelt in (str(id), str(id).upper()):
        assert parse_id(spelt, SessionId) == id
        assert parse_made_id(spelt, "id") == id


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "no uuid",
        "\0",
        "\ud800",
        str(uuid4())[:-1],
        # what Python's own reader takes
        "0199a1b23c4d7e5f8a6b7c8d9e0f1a2b",
        "urn:uuid:0199a1b2-3c4d-7e5f-8a6b-7c8d9e0f1a2b",
        "{0199a1b2-3c4d-7e5f-8a6b-7c8d9e0f1a2b}",
        "1234567890_1234567890_1234567890",
    ],
)
def test_what_is_no_uuid_names_nothing_and_can_not_be_made(text: str):
    assert parse_id(text, SessionId) is None
    with pytest.raises(InvalidInput) as refused:
        parse_made_id(text, "id")
    assert refused.value.field == "id"
