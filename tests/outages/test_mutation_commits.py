"""The commit of a mutation breaks off: it is done once, whether it had arrived or not."""

from collections.abc import AsyncGenerator
from uuid import UUID

import pytest

from db.engine import Database
from db.ids import UserId
from db.viewer import Viewer
from graphql_api.settings import Settings
from tests.factories import make_document, make_session, make_turn
from tests.issuer import Issuer
from tests.outages.conftest import parley_over
from tests.outages.faults import Moment, Wire
from tests.people import Parley
from tests.streaming.scripted import sql

UNITS = {
    "createSession": ('{title: "New"}', "create", "session"),
    "updateSession": ('{id: "$session", title: "New"}', "update", "session"),
    "clearHistory": ('{sessionId: "$session"}', "clear", "session"),
    "deleteSession": ('{id: "$session"}', "delete", "session"),
    "deleteMessage": ('{id: "$question"}', "delete", "message"),
    "updateProfile": ('{name: "New"}', "update", "user"),
    "addDocument": ('{source: {text: "New."}}', "create", "document"),
    "updateDocument": ('{id: "$document", title: "New"}', "update", "document"),
    "deleteDocument": ('{id: "$document"}', "delete", "document"),
    "claimAnonymousUser": ('{anonymousKey: "$key"}', "claim", "user"),
}
"Every mutation that is one unit of work, with its input and what the audit log says of it."


@pytest.fixture
def database_url(shared_url: str) -> str:
    return shared_url


@pytest.fixture
def settings(settings: Settings, issuer: Issuer) -> Settings:
    return settings.model_copy(update={**issuer.settings, "allow_anonymous": True})


@pytest.fixture
async def parley(wire: Wire, settings: Settings) -> AsyncGenerator[Parley]:
    async with parley_over(wire, settings) as parley:
        yield parley


@pytest.mark.parametrize("mutation", UNITS)
async def test_a_mutation_whose_commit_breaks_off_is_done_once(
    parley: Parley, issuer: Issuer, wire: Wire, onlooker: Database, mutation: str
):
    for moment in (Moment.BEFORE, Moment.AFTER):
        user, visitor = parley.bearer(issuer.token(f"{mutation} {moment}")), parley.person()
        viewer = (await user.ask("{ viewer { id } }"))["viewer"]["id"]
        await user.ask('mutation { updateProfile(input: {name: "Ann"}) { __typename } }')
        me = Viewer(UserId(UUID(viewer)))
        session = await make_session(onlooker, owner=me)
        question, _ = await make_turn(onlooker, owner=me, session=session)
        document = await make_document(onlooker, owner=me)
        await make_session(onlooker, owner=visitor.viewer)
        input, action, entity = UNITS[mutation]
        things = {"session": session, "question": question, "document": document}
        for name, thing in (things | {"key": visitor.key}).items():
            input = input.replace(f"${name}", str(thing))
        before = await audited(onlooker, viewer, action, entity)
        broken = wire.break_at("COMMIT", moment)
        answer = await user.ask(f"mutation {{ done: {mutation}(input: {input}) {{ __typename }} }}")
        assert broken.sprung
        assert answer["done"]["__typename"].endswith("Success"), moment
        assert await audited(onlooker, viewer, action, entity) == before + 1, moment


async def audited(database: Database, viewer: str, action: str, entity: str) -> int:
    query = """SELECT count(*) FROM audit_logs
        WHERE user_id = :viewer AND action = :action AND entity = :entity"""
    found = await sql(database, query, viewer=viewer, action=action, entity=entity)
    return found[0][0]
