"""Bearer tokens: which are believed, and what becomes of the others."""

import base64
import hashlib
import hmac
import json
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from graphql_api.settings import Settings
from tests.issuer import AUDIENCE, ISSUER, Algorithm, Issuer, Key, make_key
from tests.people import Parley, Person, open_parley

WHO = "{ viewer { id name email isAnonymous createdAt } }"
CREATE = """mutation { createSession(input: {title: "Mine"}) {
  ... on CreateSessionSuccess { session { id } } } }"""


@pytest.fixture
def settings(settings: Settings, issuer: Issuer) -> Settings:
    return settings.model_copy(update=issuer.settings)


async def refused(parley: Parley, authorization: str) -> str:
    """Send a credential that must be refused; gives the reason that people are told."""
    answer = await parley.http.post(
        "/graphql", json={"query": WHO}, headers={"Authorization": authorization}
    )
    assert answer.status_code == 401, answer.text
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    [error] = answer.json()["errors"]
    assert error["extensions"] == {"code": "UNAUTHENTICATED"}
    return error["message"]


# --- who it is ------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256", "RS256"])
async def test_a_token_says_who_asks(parley: Parley, issuer: Issuer, algorithm: Algorithm):
    issuer.keys = [make_key(algorithm)]
    ann = parley.bearer(issuer.token("ann", name="Ann", email="ann@example.org"))
    viewer = (await ann.ask(WHO))["viewer"]
    assert UUID(viewer.pop("id")).version == 5
    assert viewer == {
        "name": "Ann",
        "email": "ann@example.org",
        "isAnonymous": False,
        "createdAt": None,
    }


async def test_the_same_subject_is_the_same_user_whatever_the_token(parley: Parley, issuer: Issuer):
    async def viewer(token: str) -> str:
        return (await parley.bearer(token).ask(WHO))["viewer"]["id"]

    issuer.keys.append(make_key("ES256"))
    first = await viewer(issuer.token("ann", key=issuer.keys[0]))
    assert await viewer(issuer.token("ann", key=issuer.keys[1])) == first
    assert await viewer(issuer.token("Ann")) != first


async def test_a_realm_keeps_users_when_their_issuer_moves(
    settings: Settings, issuer: Issuer, parley: Parley
):
    before = (await parley.bearer(issuer.token()).ask(WHO))["viewer"]["id"]
    update = {"auth_issuer": "https://new.example", "auth_realm": ISSUER}
    async with open_parley(settings.model_copy(update=update), parley.database) as moved:
        ann = moved.bearer(issuer.token(iss="https://new.example"))
        assert (await ann.ask(WHO))["viewer"]["id"] == before


async def test_a_token_comes_before_a_key(parley: Parley, issuer: Issuer):
    headers = {"Authorization": f"bearer {issuer.token()}", "X-Session-ID": "no key at all"}
    answer = await parley.http.post("/graphql", json={"query": WHO}, headers=headers)
    assert answer.json()["data"]["viewer"]["isAnonymous"] is False


async def test_without_a_credential_a_field_is_refused_not_the_request(parley: Parley):
    answer = await parley.http.post("/graphql", json={"query": "{ __typename viewer { id } }"})
    assert answer.status_code == 200
    [error] = answer.json()["errors"]
    assert error["extensions"]["code"] == "UNAUTHENTICATED"
    assert error["path"] == ["viewer"]


# --- what its claims become -----------------------------------------------------------


async def write(parley: Parley, token: str) -> Any:
    """Write something, and give what is known of the writer then."""
    person = parley.bearer(token)
    await person.ask(CREATE)
    viewer = (await person.ask("{ viewer { name email } }"))["viewer"]
    return viewer["name"], viewer["email"]


async def test_claims_are_kept_at_the_first_write_and_when_they_change(
    parley: Parley, issuer: Issuer
):
    async def written(**claims: Any) -> Any:
        return await write(parley, issuer.token("ann", **claims))

    assert await written(name="Ann", email="ann@example.org") == ("Ann", "ann@example.org")
    assert await written(name="Anna", email="ann@example.org") == ("Anna", "ann@example.org")
    assert await written() == ("Anna", "ann@example.org")


async def test_a_profile_stands_until_a_claim_changes(parley: Parley, issuer: Issuer):
    token = issuer.token("ann", name="Ann", email="ann@example.org")
    assert await write(parley, token) == ("Ann", "ann@example.org")
    await parley.bearer(token).ask(
        """mutation { updateProfile(input: {name: "Queen Anne"}) {
          ... on UpdateProfileSuccess { user { name } } } }"""
    )
    assert await write(parley, token) == ("Queen Anne", "ann@example.org")
    other = issuer.token("ann", name="Ann", email="ann@new.example")
    assert await write(parley, other) == ("Queen Anne", "ann@new.example")
    assert await write(parley, issuer.token("ann", name="Ann B.")) == ("Ann B.", "ann@new.example")


@pytest.mark.parametrize("name", [None, 7, "", "a\0b", "\ud800", "n" * 501, ["Ann"]])
async def test_a_claim_that_is_no_name_is_passed_over(parley: Parley, issuer: Issuer, name: Any):
    assert await write(parley, issuer.token("ann", name=name, email="a@b.c")) == (None, "a@b.c")


# --- who is not believed --------------------------------------------------------------


def compact(*parts: object) -> str:
    """Write a token by hand: objects as JSON, text as it is."""
    encoded = [
        part if isinstance(part, str) else base64url(json.dumps(part).encode()) for part in parts
    ]
    return ".".join(encoded)


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def timeless(issuer: Issuer, **more: Any) -> dict[str, Any]:
    claims = issuer.claims("ann", **more)
    return {**claims, "iat": 0, "exp": 9_999_999_999, **more}


async def test_a_token_without_a_signature_is_refused(parley: Parley, issuer: Issuer):
    for algorithm in ("none", "None", "NONE"):
        header = {"alg": algorithm, "typ": "JWT"}
        token = compact(header, timeless(issuer), "")
        assert "is not signed by one of" in await refused(parley, f"Bearer {token}")


async def test_a_public_key_is_no_secret_to_sign_with(parley: Parley, issuer: Issuer):
    key = make_key("RS256")
    issuer.keys = [key]
    pem = key.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for secret in (pem, json.dumps(key.public).encode()):
        signed = compact({"alg": "HS256", "kid": key.id}, timeless(issuer))
        signature = base64url(hmac.digest(secret, signed.encode(), hashlib.sha256))
        assert "is not signed" in await refused(parley, f"Bearer {signed}.{signature}")


async def test_a_published_secret_is_not_used(parley: Parley, issuer: Issuer):
    secret = b"a secret of thirty-two bytes!!!!"
    shared = {"kty": "oct", "kid": "shared", "alg": "HS256", "k": base64url(secret)}
    issuer.keys = [make_key(), Key("EdDSA", None, shared)]
    token = jwt.encode(issuer.claims("ann"), secret, "HS256", headers={"kid": "shared"})
    assert "is not signed" in await refused(parley, f"Bearer {token}")


async def test_a_token_can_not_choose_its_algorithm(parley: Parley, issuer: Issuer):
    named, other = make_key("RS256"), make_key("ES256")
    issuer.keys = [named, other]
    token = jwt.encode(
        issuer.claims("ann"), other.private, algorithm="ES256", headers={"kid": named.id}
    )
    assert "unknown key" in await refused(parley, f"Bearer {token}")


async def test_a_short_rsa_key_is_refused(parley: Parley, issuer: Issuer):
    private = rsa.generate_private_key(65537, 1024)
    public = RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
    issuer.keys = [Key("RS256", private, {**public, "kid": "short", "alg": "RS256"})]
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = issuer.token("ann")
    assert "is not valid" in await refused(parley, f"Bearer {token}")


async def test_a_key_for_encryption_is_not_used(parley: Parley, issuer: Issuer):
    issuer.keys = [make_key(), make_key(use="enc")]
    assert "unknown key" in await refused(parley, f"Bearer {issuer.token()}")


BAD_CLAIMS: dict[str, tuple[dict[str, Any], str]] = {
    "expired": ({"lasts": timedelta(seconds=-31)}, "has expired"),
    "no end": ({"exp": None}, "has no exp"),
    "an end that is none": ({"exp": "tomorrow"}, "is not valid"),
    "an end in quotes": ({"exp": "9999999999"}, "has an exp that is no number"),
    "a beginning in quotes": ({"nbf": "0"}, "has an nbf that is no number"),
    "an end beyond time": ({"exp": 10**30}, "has an exp that can't be taken"),
    "an endless end": ({"exp": float("inf")}, "is not valid"),
    "not yet": ({"nbf": 9_999_999_999}, "is not valid yet"),
    "issued tomorrow": ({"iat": 9_999_999_999}, "is not valid yet"),
    "another issuer": ({"iss": "https://other.example"}, "is of another issuer"),
    "an issuer like ours": ({"iss": ISSUER + "/"}, "is of another issuer"),
    "no issuer": ({"iss": None}, "has no iss"),
    "issuers": ({"iss": [ISSUER]}, "is of another issuer"),
    "another audience": ({"aud": "other"}, "is made for another audience"),
    "no audience": ({"aud": None}, "has no aud"),
    "an audience that is none": ({"aud": {"parley": 1}}, "is made for another audience"),
    "no subject": ({"sub": None}, "has no sub"),
    "an empty subject": ({"sub": ""}, "has a sub that can't be taken"),
    "a number as subject": ({"sub": 1}, "is not valid"),
    "a subject that can't be stored": ({"sub": "a\0b"}, "has a sub that can't be taken"),
    "half a character as subject": ({"sub": "\ud800"}, "has a sub that can't be taken"),
    "a novel as subject": ({"sub": "s" * 501}, "has a sub that can't be taken"),
}


@pytest.mark.parametrize("name", BAD_CLAIMS)
async def test_claims_that_are_not_believed(parley: Parley, issuer: Issuer, name: str):
    claims, reason = BAD_CLAIMS[name]
    key = issuer.keys[0]
    lasts = claims.pop("lasts", timedelta(hours=1)) if "lasts" in claims else timedelta(hours=1)
    said = issuer.claims("ann", lasts, **claims)
    said = {each: _number(value) for each, value in said.items()}
    # Written by hand: the library refuses to sign some of it.
    signed = compact({"alg": "EdDSA", "kid": key.id}, said)
    token = f"{signed}.{base64url(key.private.sign(signed.encode()))}"
    assert reason in await refused(parley, f"Bearer {token}")


def _number(value: Any) -> Any:
    return value.timestamp() if hasattr(value, "timestamp") else value


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer nonsense",
        "Bearer a.b",
        "Bearer a.b.c",
        "Bearer ....",
        "Bearer null",
        f"Bearer {base64url(b'[' * 3000)}.e30.AA",
        f"Bearer {base64url(b'null')}.e30.AA",
        f"Bearer {base64url(b'{}')}.e30.AA",
        f"Bearer {compact({'alg': ['EdDSA']}, {}, 'AA')}",
        f"Bearer {compact({'alg': 'EdDSA', 'kid': 7}, {}, 'AA')}",
        f"Bearer {compact({'alg': 'EdDSA', 'crit': ['x'], 'x': 1}, {}, 'AA')}",
        "Bearer " + "a" * 20_000,
        "Basic YW5uOnNlY3JldA==",
        "eyJhbGciOiJFZERTQSJ9.e30.AA",
    ],
    ids=lambda value: value[:24],
)
async def test_what_is_no_token_is_refused(parley: Parley, authorization: str):
    await refused(parley, authorization)


async def test_a_changed_token_is_refused(parley: Parley, issuer: Issuer):
    head, body, signature = issuer.token("ann").split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    forged = compact(head, {**claims, "sub": "bob"}, signature)
    assert "is not valid" in await refused(parley, f"Bearer {forged}")


async def test_the_clock_of_the_issuer_may_be_off(parley: Parley, issuer: Issuer):
    for seconds in (-20, 60):
        token = issuer.token(lasts=timedelta(seconds=seconds))
        assert await parley.bearer(token).ask(WHO)


async def test_a_token_for_several_audiences_is_taken(parley: Parley, issuer: Issuer):
    assert await parley.bearer(issuer.token(aud=["other", AUDIENCE])).ask(WHO)


async def test_without_an_audience_set_any_is_taken(
    settings: Settings, issuer: Issuer, parley: Parley
):
    anyone = settings.model_copy(update={"auth_audience": frozenset[str]()})
    async with open_parley(anyone, parley.database) as parley:
        for audience in ("other", None):
            assert await parley.bearer(issuer.token(aud=audience)).ask(WHO)


# --- anonymous visitors and administrators --------------------------------------------


async def test_anonymous_visitors_stay_outside_where_tokens_are_taken(parley: Parley):
    person = parley.person()
    answer = await person.http.post("/graphql", json={"query": WHO}, headers=person.headers)
    assert answer.status_code == 401
    assert answer.json()["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


async def test_anonymous_visitors_may_be_let_in_beside_tokens(settings: Settings, parley: Parley):
    update = {"allow_anonymous": True}
    async with open_parley(settings.model_copy(update=update), parley.database) as parley:
        assert (await parley.person().ask(WHO))["viewer"]["isAnonymous"] is True


async def test_where_no_tokens_are_taken_one_is_refused(
    settings: Settings, issuer: Issuer, parley: Parley
):
    update = {"auth_jwks_url": None}
    async with open_parley(settings.model_copy(update=update), parley.database) as parley:
        person = parley.person()
        headers = {**person.headers, "Authorization": f"Bearer {issuer.token()}"}
        answer = await person.http.post("/graphql", json={"query": WHO}, headers=headers)
        assert answer.status_code == 401
        assert "AUTH_JWKS_URL" in answer.text


SHARE = """mutation { addDocument(input: {source: {text: "Hello"}, visibility: SHARED}) {
  __typename } }"""


async def may_share(settings: Settings, parley: Parley, person: Person, **update: Any) -> bool:
    async with open_parley(settings.model_copy(update=update), parley.database) as parley:
        asked = Person(parley.http, person.key, person.token)
        return (await asked.ask(SHARE))["addDocument"]["__typename"] == "AddDocumentSuccess"


async def test_a_subject_that_is_named_is_an_administrator(
    settings: Settings, parley: Parley, issuer: Issuer
):
    admins = frozenset({"ann"})
    for subject, is_admin in (("ann", True), ("bob", False)):
        person = parley.bearer(issuer.token(subject))
        assert await may_share(settings, parley, person, admin_subjects=admins) is is_admin


async def test_a_subject_opens_nothing_as_a_key(settings: Settings, parley: Parley):
    # Many issuers' subjects are UUIDs, and they are no secret.
    subject = str(uuid4())
    update = {"admin_subjects": frozenset({subject}), "allow_anonymous": True}
    assert not await may_share(settings, parley, Person(parley.http, subject), **update)


@pytest.mark.parametrize(
    ("claim", "value", "is_admin"),
    [
        ("role=admin", {"role": "admin"}, True),
        ("role=admin", {"role": ["user", "admin"]}, True),
        ("role=admin", {"role": "user admin"}, True),
        ("role=admin", {"role": "administrator"}, False),
        ("role=admin", {"role": None}, False),
        ("role=admin", {"role": {"admin": True}}, False),
        ("is_admin=true", {"is_admin": True}, True),
        ("is_admin=true", {"is_admin": False}, False),
    ],
)
async def test_a_claim_makes_an_administrator(
    settings: Settings, parley: Parley, issuer: Issuer, claim: str, value: Any, is_admin: bool
):
    person = parley.bearer(issuer.token("ann", **value))
    assert await may_share(settings, parley, person, auth_admin_claim=claim) is is_admin
