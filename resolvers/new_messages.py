"""Messages as clients send them, and checked."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from db.ids import DocumentId, MessageId, SessionId
from db.messages import MessageRow
from db.sessions import MAX_KEY_LENGTH, SessionRow
from resolvers.errors import NotFound
from resolvers.inputs import (
    MAX_CONTENT_LENGTH,
    check_optional_text,
    check_text,
    parse_id,
    parse_made_id,
)

TITLE_LENGTH = 80
"Characters of the first question that become the session's title: one line in a side bar."


class IfBusy(StrEnum):
    """What to do when another reply is being written in the session."""

    REJECT = "REJECT"
    INTERRUPT = "INTERRUPT"


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message as the client sends it, unchecked.

    It goes to the session of that id, else to the one that the client calls by that key; where
    there is neither, to a new one, of that id if there is one, else of that key. Before the key,
    the one of `visitors_session_id` is looked for, but none is made of that.
    """

    content: str
    session_id: str | None = None
    visitors_session_id: str | None = None
    session_key: str | None = None
    message_id: str | None = None
    chapter: str | None = None
    selected_text: str | None = None
    document_ids: tuple[str, ...] | None = None
    if_busy: IfBusy = IfBusy.REJECT


class CheckedMessage(NamedTuple):
    """A message that can be taken."""

    content: str
    session_id: SessionId | None
    visitors_session_id: SessionId | None
    session_key: str | None
    message_id: MessageId | None
    chapter: str | None
    selected_text: str | None
    document_ids: list[DocumentId] | None

    @property
    def session_ids(self) -> list[SessionId]:
        """The ids of the sessions that it may go to, in their order."""
        return [each for each in (self.session_id, self.visitors_session_id) if each is not None]


def check_message(message: NewMessage) -> CheckedMessage:
    """Check what a client sends. Raises `InvalidInput`, and `NotFound` for a document's id."""
    content = check_text(message.content, "content", at_most=MAX_CONTENT_LENGTH)
    check_optional_text(message.chapter, "chapter")
    check_optional_text(message.selected_text, "selectedText", at_most=MAX_CONTENT_LENGTH)
    session_id = parse_made_id(message.session_id, "sessionId")
    visitors_session_id = parse_made_id(message.visitors_session_id, "sessionId")
    session_key = check_optional_text(message.session_key, "sessionId", at_most=MAX_KEY_LENGTH)
    message_id = parse_made_id(message.message_id, "messageId")
    document_ids: list[DocumentId] | None = None
    if message.document_ids is not None:
        parsed = [parse_id(each, DocumentId) for each in message.document_ids]
        known = {each for each in parsed if each is not None}
        if None in parsed:
            raise NotFound
        document_ids = sorted(known)
    return CheckedMessage(
        content,
        None if session_id is None else SessionId(session_id),
        None if visitors_session_id is None else SessionId(visitors_session_id),
        session_key,
        None if message_id is None else MessageId(message_id),
        message.chapter,
        message.selected_text,
        document_ids,
    )


def is_same(question: MessageRow, session: SessionRow, sent: CheckedMessage) -> bool:
    """Tell whether a message that is there is the one that is sent, or another of its id."""
    document_ids = None if sent.document_ids is None else [str(each) for each in sent.document_ids]
    return (
        question.content == sent.content
        and question.chapter == sent.chapter
        and question.selected_text == sent.selected_text
        and question.document_ids == document_ids
        and _is_into(session, sent)
    )


def _is_into(session: SessionRow, sent: CheckedMessage) -> bool:
    """Tell whether a message may have been sent to a session: it named that one, or none."""
    if sent.session_id is None and sent.session_key is None:
        return True
    keyed = sent.session_key is not None and sent.session_key == session.session_id
    return keyed or session.id in sent.session_ids


def title_of(content: str) -> str:
    """Make a session's title of its first question: its first line, cut between two words."""
    line = " ".join(content.strip().splitlines()[0].split())
    if len(line) <= TITLE_LENGTH:
        return line
    head = line[: TITLE_LENGTH - 1]
    return (head.rsplit(" ", 1)[0] if " " in head else head) + "…"
