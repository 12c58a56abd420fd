"""Who is asking. The only place that makes a `Viewer`.

A user's id is made of what identifies them, so a viewer costs no look-up: the same key or
the same subject of the same realm is the same user, everywhere and always.
"""

from collections.abc import Mapping
from dataclasses import replace
from uuid import UUID, uuid4, uuid5

from db.ids import UserId
from db.users import KnownUser
from db.viewer import Viewer
from graphql_api.settings import Settings
from graphql_api.tokens import Claims, PublishedKeys, TokenVerifier
from resolvers.errors import InvalidInput, Unauthenticated

SESSION_HEADER = "X-Session-ID"
IDENTITY_HEADERS = ("Authorization", SESSION_HEADER)

_NAMESPACE = UUID("b1a1a6f0-5a3e-5c0b-9f57-0d8a5c3b7e11")
"Any fixed UUID; changing it would orphan every user."


class Identities:
    """Believes what requests say of who asks, as far as the settings allow it."""

    def __init__(self, settings: Settings, tokens: TokenVerifier | None) -> None:
        self.allows_anonymous = settings.allows_anonymous
        self._tokens = tokens
        self._realm = settings.realm
        self._admins = settings.admin_subjects
        self._admin_claim = settings.admin_claim

    async def viewer(self, headers: Mapping[str, str]) -> Viewer | None:
        """Read the identity that a request carries; null: it carries none.

        A bearer token comes before a key. Raises `Unauthenticated` for what can't be believed,
        and `Unavailable` where that can't be found out.
        """
        authorization = headers.get("Authorization")
        if authorization is not None:
            return await self._bearer(authorization)
        key = headers.get(SESSION_HEADER)
        return None if key is None else self.anonymous(key)

    def anonymous(self, key: str) -> Viewer:
        """Give the visitor with this key. Raises `Unauthenticated`."""
        if not self.allows_anonymous:
            raise Unauthenticated("Anonymous visitors are not let in here. Send a bearer token.")
        viewer = anonymous_viewer(key)
        # Where there are tokens, administrators are subjects of theirs: a subject is no secret,
        # and many are UUIDs, so it must not open anything as a key.
        is_admin = self._tokens is None and str(UUID(key)) in {
            each.lower() for each in self._admins
        }
        return replace(viewer, is_admin=is_admin)

    async def _bearer(self, authorization: str) -> Viewer:
        scheme, _, token = authorization.strip().partition(" ")
        if self._tokens is None or self._realm is None:
            raise Unauthenticated("No tokens are taken here: AUTH_JWKS_URL is not set.")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("Authorization must be: Bearer, a space, and a token.")
        claims = await self._tokens.claims(token.strip())
        return replace(
            subject_viewer(self._realm, claims.subject),
            email=claims.email,
            name=claims.name,
            is_admin=self._is_admin(claims),
            expires_at=claims.expires_at,
        )

    def _is_admin(self, claims: Claims) -> bool:
        if claims.subject in self._admins:
            return True
        if self._admin_claim is None:
            return False
        name, wanted = self._admin_claim
        match claims.values.get(name):
            case str(given):
                return wanted in given.split()  # as OAuth writes a list of scopes
            case [*given]:
                return wanted in given
            case given:
                return given is True and wanted == "true"


def token_verifier(settings: Settings) -> TokenVerifier | None:
    """Give what checks tokens, where it is configured."""
    if settings.auth_jwks_url is None or settings.auth_issuer is None:
        return None
    return TokenVerifier(
        PublishedKeys(settings.auth_jwks_url),
        issuer=settings.auth_issuer,
        audiences=settings.auth_audience,
    )


def new_key() -> str:
    """Make a key for a visitor who has none."""
    return str(uuid4())


def anonymous_viewer(key: str) -> Viewer:
    """Give the visitor whose browser made this key. Raises `Unauthenticated` if it is no key.

    A key is a secret that its holder drew at random, which only a UUID of version 4 is sure
    to be. Capitals and braces are the same key.
    """
    uuid = _read_key(key)
    if uuid is None:
        raise Unauthenticated(
            f"{SESSION_HEADER} must be a random UUID (version 4) that the client made"
            " and keeps to itself."
        )
    return Viewer(UserId(uuid5(_NAMESPACE, f"anonymous\n{uuid}")))


def claimed_visitor(key: str) -> Viewer:
    """Give the visitor whose key a signed-in user shows. Raises `InvalidInput` if it is no key."""
    try:
        return anonymous_viewer(key)
    except Unauthenticated:
        raise InvalidInput("A key is a UUID of version 4.", "anonymousKey") from None


def _read_key(key: str) -> UUID | None:
    try:
        uuid = UUID(key)
    except ValueError:
        return None
    return uuid if uuid.version == 4 else None


def subject_viewer(realm: str, subject: str) -> Viewer:
    """Give the user whom an issuer's tokens call `subject`."""
    return Viewer(UserId(uuid5(_NAMESPACE, f"{realm}\n{subject}")), realm=realm, subject=subject)


def known_viewer(user: KnownUser) -> Viewer:
    """Give a user that the command line has found, so that it can act for them."""
    return Viewer(user.id, realm=user.realm, subject=user.subject)


def operator() -> Viewer:
    """Give the one who runs the server and its command line."""
    user_id = UserId(uuid5(_NAMESPACE, "operator"))
    return Viewer(user_id, realm="parley", subject="operator", is_admin=True)
