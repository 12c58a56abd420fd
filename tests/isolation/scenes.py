"""Alice with things of her own, and strangers who try their names.

Every thing of hers has a word in it that stands nowhere else, and comes with a way to make
a name just like its own that names nothing.
"""

from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from secrets import choice, randbelow, token_hex
from string import ascii_lowercase
from typing import Any
from uuid import UUID, uuid4, uuid5

from sqlalchemy import Uuid, text

from db.engine import Database
from db.ids import new_id
from db.models import Base, IngestionStatus
from db.viewer import Viewer
from graphql_api.auth import subject_viewer
from graphql_api.settings import Settings
from resolvers.cursors import AUDIT, DOCUMENTS, MESSAGES, SESSIONS
from tests.factories import (
    citation,
    make_document,
    make_session,
    make_streaming_reply,
    make_turn,
)
from tests.isolation.servers import listening
from tests.issuer import ISSUER, Issuer, issuing
from tests.operations import add_text
from tests.people import Parley, Person

WORD = "quicksilver"
SOURCE = f"https://example.org/{WORD}"
CLIENT_KEY = f"notes on {WORD}/7"
IDEMPOTENCY_KEY = f"first of {WORD}"
LONG = timedelta(hours=1)
"As a lease: it does not run out while these tests run."
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class User(Person):
    """Someone with a token."""

    subject: str = ""

    @property
    def viewer(self) -> Viewer:
        return subject_viewer(ISSUER, self.subject)


def user(http: Any, issuer: Issuer, subject: str) -> User:
    return User(http, token=issuer.token(subject), subject=subject)


@dataclass(frozen=True)
class Thing:
    """What has a name of some form, and how to make one of that form that names nothing."""

    name: str
    of_nothing: Callable[[], str]
    form: str


@dataclass(frozen=True)
class Hers:
    """What Alice has, by what it is."""

    things: Mapping[str, Thing]

    def id(self, kind: str) -> str:
        return self.things[kind].name

    def is_in(self, answer: str, besides: str = "") -> bool:
        """Tell whether an answer says something of hers, `besides` the name that was asked for."""
        names = {thing.name for thing in self.things.values()} - {besides}
        answer = answer.replace(besides, "") if besides else answer
        return WORD in answer or any(name in answer for name in names)


@dataclass(frozen=True)
class Scene:
    """A server with Alice's things on it."""

    parley: Parley
    alice: Person
    hers: Hers
    stranger: Callable[[], Person]


@asynccontextmanager
async def played(settings: Settings, database: Database, *, users: bool) -> AsyncGenerator[Scene]:
    """Serve, with Alice and the strangers as users with tokens, or as visitors with keys."""
    async with issuing() as issuer:
        if users:
            settings = settings.model_copy(update=issuer.settings)
        async with listening(settings, database) as parley:

            def stranger() -> Person:
                return user(parley.http, issuer, str(uuid4())) if users else Person(parley.http)

            alice = user(parley.http, issuer, "alice") if users else Person(parley.http)
            yield Scene(parley, alice, await make_hers(alice, parley), stranger)


async def make_hers(alice: Person, parley: Parley) -> Hers:
    """Give Alice something of everything."""
    # The factories look at the id alone; what else there is of a user, her first write stored.
    database, owner = parley.database, Viewer(alice.viewer.user_id)
    added = await add_text(alice, f"The {WORD} is kept in the cellar.")
    await parley.documents_read()
    document = UUID(added["document"]["id"])
    unread = await make_document(database, owner=owner, title=WORD)
    reading = await make_document(
        database, owner=owner, title=WORD, status=IngestionStatus.PROCESSING, lease=LONG
    )
    await database.rows(
        text("UPDATE documents SET source_url = :url WHERE id = :id"), {"url": SOURCE, "id": unread}
    )
    said = await _chat(alice, session_id=CLIENT_KEY)
    things: dict[str, UUID] = {
        "user": owner.user_id,
        "session": await make_session(database, owner=owner, title=f"About {WORD}"),
        "last session": await make_session(
            database, owner=owner, title=WORD, updated_at=LONG_AGO + LONG
        ),
        "document": document,
        "document without an index": unread,
        "document being read": reading,
        "question over REST": UUID(said["user_message_id"]),
        "reply over REST": UUID(said["message_id"]),
    }
    things["question"], things["reply"] = await make_turn(
        database,
        owner=owner,
        session=things["session"],
        question=f"Where is the {WORD}?",
        citations=[citation(document)],
    )
    things["reply being written"] = await make_streaming_reply(
        database, owner=owner, session=things["session"], content=WORD, lease=LONG
    )
    for kind, query in _IDS.items():
        values = {"owner": owner.user_id, "document": document}
        things[kind] = (await database.rows(text(query), values))[0][0]
    named = {kind: _id(id) for kind, id in things.items()}
    named |= {
        "client key": _name(CLIENT_KEY),
        "idempotency key": _name(IDEMPOTENCY_KEY),
        "checksum": Thing(added["document"]["checksum"], lambda: token_hex(32), "checksum"),
        "source": Thing(SOURCE, lambda: f"https://example.org/{token_hex(6)}", "URL"),
    }
    if alice.token is None:
        await _chat(alice)
        named["key"] = _id(UUID(alice.key))
    return Hers(named | await _cursors(alice))


_IDS = {
    "session over REST": "SELECT id FROM chat_sessions WHERE user_id = :owner"
    " AND session_id IS NOT NULL",
    "run of a document": "SELECT run_id FROM documents WHERE owner_id = :owner"
    " AND run_id IS NOT NULL",
    "run of a reply": "SELECT run_id FROM chat_messages WHERE user_id = :owner"
    " AND run_id IS NOT NULL",
    "passage": "SELECT id FROM document_chunks WHERE document_id = :document",
    "audit entry": "SELECT id FROM audit_logs WHERE user_id = :owner LIMIT 1",
}


async def _chat(alice: Person, **more: Any) -> Any:
    headers = {**alice.headers, "Idempotency-Key": IDEMPOTENCY_KEY} if more else alice.headers
    body = {"message": f"Where is the {WORD}?", **more}
    answer = await alice.http.post("/chat", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def _cursors(alice: Person) -> dict[str, Thing]:
    """Give the first cursor of each of her lists."""
    first = "edges { cursor }"
    query = f"""{{ sessions {{ edges {{ cursor node {{ messages {{ {first} }} }} }} }}
      documents {{ {first} }} viewer {{ auditLog {{ {first} }} }} }}"""
    found = await alice.ask(query)
    [session, *_] = found["sessions"]["edges"]
    others: dict[str, tuple[Any, Callable[[], str]]] = {
        "sessions": (found["sessions"], lambda: SESSIONS.cursor(LONG_AGO, uuid4())),
        "messages": (session["node"]["messages"], lambda: MESSAGES.cursor(randbelow(2**31))),
        "documents": (found["documents"], lambda: DOCUMENTS.cursor(uuid4())),
        "audit log": (found["viewer"]["auditLog"], lambda: AUDIT.cursor(uuid4())),
    }
    return {
        f"cursor of {name}": Thing(
            connection["edges"][0]["cursor"], of_nothing, f"cursor of {name}"
        )
        for name, (connection, of_nothing) in others.items()
    }


def _id(id: UUID) -> Thing:
    """Take versions for different forms: what a client must make itself may be refused by that."""
    draw = {4: uuid4, 5: lambda: uuid5(uuid4(), ""), 7: new_id}[id.version or 0]
    return Thing(str(id), lambda: str(draw()), f"UUID {id.version}")


def _name(name: str) -> Thing:
    return Thing(
        name,
        lambda: "".join(choice(ascii_lowercase) if each.isalpha() else each for each in name),
        f"like {name}",
    )


# --- rows -----------------------------------------------------------------------------


async def rows_without(database: Database, strangers: Collection[Viewer]) -> list[str]:
    """Give all rows of all tables, as text, but those that name one of the strangers."""
    theirs = [str(each.user_id) for each in strangers]
    rows: list[str] = []
    for table in Base.metadata.sorted_tables:
        found = await database.rows(text(f"SELECT CAST(t AS text) FROM {table.name} t"), {})
        rows += sorted(f"{table.name} {row[0]}" for row in found)
    return [row for row in rows if not any(id in row for id in theirs)]


async def kinds_of_ids(database: Database) -> dict[str, set[str]]:
    """Give the ids that are stored, by the column they stand in."""
    stored: dict[str, set[str]] = {}
    for table in Base.metadata.sorted_tables:
        for column in table.columns:
            if isinstance(column.type, Uuid):
                query = f"SELECT {column.name} FROM {table.name} WHERE {column.name} IS NOT NULL"
                found = await database.rows(text(query), {})
                stored[f"{table.name}.{column.name}"] = {str(row[0]) for row in found}
    return stored
