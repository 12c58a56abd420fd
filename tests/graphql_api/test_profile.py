"""The viewer: who they are before and after they write something."""

from typing import Any

from tests.people import Person

VIEWER = "{ viewer { id name email isAnonymous createdAt } }"
UPDATE = """mutation ($input: UpdateProfileInput!) {
  updateProfile(input: $input) {
    __typename ... on UserError { message } ... on InvalidInput { field }
    ... on UpdateProfileSuccess { user { id name email isAnonymous createdAt } }
  }
}"""


async def update(person: Person, **input: Any) -> Any:
    return (await person.ask(UPDATE, input=input))["updateProfile"]


async def test_a_viewer_who_wrote_nothing_has_no_date(alice: Person):
    assert (await alice.ask(VIEWER))["viewer"] == {
        "id": str(alice.viewer.user_id),
        "name": None,
        "email": None,
        "isAnonymous": True,
        "createdAt": None,
    }


async def test_a_profile_is_changed(alice: Person):
    changed = await update(alice, name="Alice", email="alice@example.com")
    user = changed["user"]
    assert (user["name"], user["email"]) == ("Alice", "alice@example.com")
    assert user["createdAt"] is not None
    assert (await alice.ask(VIEWER))["viewer"] == user


async def test_what_is_left_out_stays(alice: Person):
    await update(alice, name="Alice", email="alice@example.com")
    changed = await update(alice, name="Alice Liddell")
    assert changed["user"]["email"] == "alice@example.com"
    assert (await update(alice))["user"] == changed["user"]


async def test_what_can_not_be_stored_is_invalid(alice: Person):
    for field in ("name", "email"):
        for value in ("", "a\0@b", "a\ud800@b", "a@" + "b" * 500):
            refused = await update(alice, **{field: value})
            assert (refused["__typename"], refused.get("field")) == ("InvalidInput", field), value


async def test_what_is_no_address_is_no_email(alice: Person):
    for email in ("alice", "@example.com", "alice@", "al ice@example.com"):
        refused = await update(alice, email=email)
        assert (refused["__typename"], refused.get("field")) == ("InvalidInput", "email"), email


async def test_nobody_sees_another_profile(alice: Person, bob: Person):
    await update(alice, name="Alice")
    await update(bob, name="Bob")
    assert (await alice.ask(VIEWER))["viewer"]["name"] == "Alice"
    hidden = await bob.ask(
        "query ($id: ID!) { node(id: $id) { id } }", id=str(alice.viewer.user_id)
    )
    assert hidden == {"node": None}


async def test_the_viewer_is_a_node(alice: Person):
    found = await alice.ask(
        "query ($id: ID!) { node(id: $id) { __typename id } }", id=str(alice.viewer.user_id)
    )
    assert found["node"] == {"__typename": "User", "id": str(alice.viewer.user_id)}
