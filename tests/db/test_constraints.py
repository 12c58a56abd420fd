"""What the database itself does not let happen, whatever the code above it does."""

from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import IntegrityError

from db.engine import Database
from db.ids import new_id
from db.models import ChatMessage, ChatSession, Document, MessageStatus, User
from tests.factories import (
    make_document,
    make_message,
    make_session,
    make_streaming_reply,
    make_turn,
    make_user,
    make_viewer,
)


@pytest.mark.parametrize(
    ("table", "column"),
    [
        (ChatMessage, "role"),
        (ChatMessage, "status"),
        (Document, "ingestion_status"),
    ],
)
async def test_a_closed_set_is_closed(table: Any, column: str, database: Database):
    owner = make_viewer()
    session = await make_session(database, owner=owner)
    await make_turn(database, owner=owner, session=session)
    await make_document(database, owner=owner)
    with pytest.raises(IntegrityError, match=f"ck_{table.__tablename__}_{column}"):
        await database.rows(update(table).values({column: "OTHER"}), {})


async def test_a_message_that_is_streaming_has_a_run(database: Database):
    owner = make_viewer()
    session = await make_session(database, owner=owner)
    await make_streaming_reply(database, owner=owner, session=session)
    for missing in ("run_id", "lease_until"):
        with pytest.raises(IntegrityError, match="ck_chat_messages_streaming_has_a_run"):
            await database.rows(update(ChatMessage).values({missing: None}), {})


async def test_a_session_has_one_reply_being_written(database: Database):
    owner = make_viewer()
    session = await make_session(database, owner=owner)
    await make_streaming_reply(database, owner=owner, session=session)
    with pytest.raises(IntegrityError, match="uq_chat_messages_one_streaming_reply"):
        await make_streaming_reply(database, owner=owner, session=session)


async def test_two_sessions_have_a_reply_being_written_each(database: Database):
    owner = make_viewer()
    for _ in range(2):
        session = await make_session(database, owner=owner)
        await make_streaming_reply(database, owner=owner, session=session)


async def test_a_position_is_given_once(database: Database):
    owner = make_viewer()
    session = await make_session(database, owner=owner)
    await make_turn(database, owner=owner, session=session)
    with pytest.raises(IntegrityError, match="uq_chat_messages_user_id_session_id_position"):
        await database.rows(update(ChatMessage).values(position=1), {})


async def test_a_count_is_not_negative(database: Database):
    await make_session(database, owner=make_viewer())
    with pytest.raises(IntegrityError, match="message_count_not_negative"):
        await database.rows(update(ChatSession).values(message_count=-1), {})


# --- the owner leads every key --------------------------------------------------------


async def test_a_message_can_not_hang_in_a_strangers_session(database: Database):
    alice, bob = make_viewer(), make_viewer()
    hers = await make_session(database, owner=alice)
    await make_user(database, bob)
    row = {
        "user_id": bob.user_id,
        "id": new_id(),
        "session_id": hers,
        "position": 1,
        "role": "USER",
        "content": "",
        "content_length": 0,
        "status": "COMPLETE",
    }
    with pytest.raises(IntegrityError, match="fk_chat_messages_chat_sessions"):
        await database.rows(insert(ChatMessage), row)


async def test_a_reply_can_not_answer_a_strangers_question(database: Database):
    alice, bob = make_viewer(), make_viewer()
    hers = await make_session(database, owner=alice)
    question = await make_message(database, owner=alice, session=hers)
    his = await make_session(database, owner=bob)
    with pytest.raises(IntegrityError, match="fk_chat_messages_reply_to"):
        await make_message(database, owner=bob, session=his, reply_to=question)


async def test_two_people_may_have_the_same_ids(database: Database):
    session, question = uuid4(), uuid4()
    for owner in (make_viewer(), make_viewer()):
        await make_session(database, owner=owner, id=session)
        await make_message(database, owner=owner, session=session, id=question)
    found = await database.rows(select(ChatMessage.user_id).where(ChatMessage.id == question), {})
    assert len(found) == 2


async def test_every_key_of_an_owned_table_begins_with_its_owner(database: Database):
    found = await database.rows(
        text(
            "SELECT i.indexrelid::regclass, a.attname FROM pg_index i"
            " JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]"
            " WHERE i.indrelid IN"
            " ('chat_sessions'::regclass, 'chat_messages'::regclass, 'audit_logs'::regclass)"
        ),
        {},
    )
    assert {(str(index), column) for index, column in found if column != "user_id"} == {
        ("ix_chat_messages_run_id", "run_id")  # a run is looked for when a merge has moved it
    }


async def test_a_session_takes_its_messages_along(database: Database):
    owner = make_viewer()
    session = await make_session(database, owner=owner)
    await make_turn(database, owner=owner, session=session)
    await database.rows(text("DELETE FROM chat_sessions"), {})
    assert not await database.rows(select(ChatMessage.id), {})


async def test_a_user_takes_everything_along(database: Database):
    owner = make_viewer()
    session = await make_session(database, owner=owner)
    await make_turn(database, owner=owner, session=session)
    await make_document(database, owner=owner, chunks=["A passage"])
    await database.rows(text("DELETE FROM users"), {})
    tables = ("chat_sessions", "chat_messages", "documents", "document_chunks")
    for table in (*tables, "document_contents"):
        assert not await database.rows(text(f"SELECT 1 FROM {table}"), {}), table


async def test_an_anonymous_user_has_no_subject(database: Database):
    row = {"id": uuid4(), "is_anonymous": True, "realm": "issuer", "subject": "alice"}
    with pytest.raises(IntegrityError, match="anonymous_has_no_subject"):
        await database.rows(insert(User), row)


@pytest.mark.parametrize("shared", [True, False])
async def test_the_same_bytes_are_one_document_of_their_owner(shared: bool, database: Database):
    owner = None if shared else make_viewer()
    await make_document(database, owner=owner, content="A text")
    await make_document(database, owner=make_viewer(), content="A text")
    with pytest.raises(IntegrityError, match="uq_documents_owner_id_checksum"):
        await make_document(database, owner=owner, content="A text")


async def test_a_reply_that_has_ended_makes_room_for_the_next(database: Database):
    owner = make_viewer()
    session = await make_session(database, owner=owner)
    await make_streaming_reply(database, owner=owner, session=session)
    await database.rows(update(ChatMessage).values(status=MessageStatus.COMPLETE), {})
    await make_streaming_reply(database, owner=owner, session=session)
