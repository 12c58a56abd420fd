"""Bearer tokens: JWTs of one issuer, checked with the keys that it publishes.

What is checked follows RFC 7519 and RFC 8725: a signature of a kind that only the issuer can
make, by a key of its own and of just that kind; issuer, audience, life time and subject.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import httpx2
import jwt
import orjson
import structlog
from jwt import PyJWK, PyJWT
from jwt.exceptions import (
    ExpiredSignatureError,
    ImmatureSignatureError,
    InvalidAudienceError,
    InvalidIssuerError,
    MissingRequiredClaimError,
    PyJWTError,
)

from resolvers.errors import Unauthenticated, Unavailable
from resolvers.inputs import MAX_LABEL_LENGTH, is_storable

ALGORITHMS = frozenset({"EdDSA", "ES256", "RS256"})
"None of them can be made with what the issuer publishes, as an HMAC could."
CLOCK_SKEW = timedelta(seconds=30)
"How far the issuer's clock may be from ours."
MAX_TOKEN_LENGTH = 16_384
"Characters. Header lines longer than this are refused by most servers anyway."
KEYS_FRESH_SECONDS = 3600.0
"After this the keys are asked for again while the old ones still serve."
ASKS, ASKS_SECONDS = 2, 10.0
"""Tokens with unknown keys make us ask for new ones, so often in so many seconds: once more than
at the start, for keys that change just then."""
RETRY_SECONDS = 1.0
"How soon an issuer that did not answer is asked again."
FETCH_SECONDS = 5.0
MAX_KEYS_BYTES = 1024 * 1024

log = structlog.get_logger(__name__)


class Claims(NamedTuple):
    """What a checked token says. `values` is all of it."""

    subject: str
    email: str | None
    name: str | None
    expires_at: datetime
    values: Mapping[str, Any]


class TokenVerifier:
    """Checks tokens of one issuer. Without audiences, those made for anyone are taken."""

    def __init__(self, keys: "PublishedKeys", *, issuer: str, audiences: frozenset[str]) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audiences = audiences
        self._decoder = PyJWT({"enforce_minimum_key_length": True})

    async def claims(self, token: str) -> Claims:
        """Read a token.

        Raises `Unauthenticated` for one that can't be believed, and `Unavailable` where the
        issuer's keys can't be had.
        """
        if len(token) > MAX_TOKEN_LENGTH:
            raise _unbelievable("is too long")
        try:
            header = jwt.get_unverified_header(token)
            key_id, algorithm = header.get("kid"), header.get("alg")
        except (PyJWTError, ValueError, RecursionError):
            raise _unbelievable("is no JWT") from None
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
            raise _unbelievable(f"is not signed by one of {', '.join(sorted(ALGORITHMS))}")
        refused = _unbelievable("is signed by an unknown key")
        for key in await self._keys.find(key_id, algorithm):
            try:
                return _read(self._decoded(token, key))
            except Unauthenticated as error:
                refused = error
        raise refused

    async def close(self) -> None:
        await self._keys.close()

    def _decoded(self, token: str, key: PyJWK) -> dict[str, Any]:
        try:
            return self._decoder.decode(
                token,
                key,
                # Of the key, not of the token: else the token could choose.
                algorithms=[key.algorithm_name],
                issuer=self._issuer,
                audience=self._audiences or None,
                leeway=CLOCK_SKEW,
                options={
                    "require": ["exp", "iss", "sub"],
                    "verify_aud": bool(self._audiences),
                },
            )
        except ExpiredSignatureError:
            raise _unbelievable("has expired") from None
        except ImmatureSignatureError:
            raise _unbelievable("is not valid yet") from None
        except InvalidIssuerError:
            raise _unbelievable("is of another issuer") from None
        except InvalidAudienceError:
            raise _unbelievable("is made for another audience") from None
        except MissingRequiredClaimError as error:
            raise _unbelievable(f"has no {error.claim}") from None
        except (PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            raise _unbelievable("is not valid") from None


def _read(claims: dict[str, Any]) -> Claims:
    subject = _label(claims["sub"])
    if subject is None:
        raise _unbelievable("has a sub that can't be taken")
    for name in ("exp", "nbf", "iat"):
        if isinstance(claims.get(name, 0), bool | str):  # which PyJWT takes for numbers
            raise _unbelievable(f"has an {name} that is no number")
    try:
        expires_at = datetime.fromtimestamp(int(claims["exp"]), UTC) + CLOCK_SKEW
    except (ValueError, OverflowError, OSError):
        raise _unbelievable("has an exp that can't be taken") from None
    return Claims(
        subject, _label(claims.get("email")), _label(claims.get("name")), expires_at, claims
    )


def _label(claim: object) -> str | None:
    """Give a claim that is a text we can store; null: there is none."""
    if isinstance(claim, str) and 0 < len(claim) <= MAX_LABEL_LENGTH and is_storable(claim):
        return claim
    return None


def _unbelievable(why: str) -> Unauthenticated:
    return Unauthenticated(f"The bearer token {why}.")


class PublishedKeys:
    """An issuer's public keys (RFC 7517), fetched when a token first needs them.

    They are fetched by one request at a time, and never on a timer: an idle server is silent.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._keys: list[PyJWK] = []
        self._fetched_at = float("-inf")
        self._answered_at: deque[float] = deque(maxlen=ASKS)
        self._is_away = False
        self._retry_at = float("-inf")
        self._asking: asyncio.Task[None] | None = None
        self._http: httpx2.AsyncClient | None = None

    async def find(self, key_id: str | None, algorithm: str) -> list[PyJWK]:
        """Give the keys that a token may be signed by: the one it names, else all of its kind.

        Raises `Unavailable` where the issuer does not answer and the key is not known.
        """
        found = self._known(key_id, algorithm)
        if not found:
            await self._ask()
            found = self._known(key_id, algorithm)
        elif time.monotonic() - self._fetched_at > KEYS_FRESH_SECONDS:
            self._begin_to_ask()
        return found

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        if self._http is not None:
            await self._http.aclose()

    def _known(self, key_id: str | None, algorithm: str) -> list[PyJWK]:
        return [
            key
            for key in self._keys
            if key.algorithm_name == algorithm
            and (None in (key_id, key.key_id) or key_id == key.key_id)
        ]

    async def _ask(self) -> None:
        asking = self._begin_to_ask()
        if asking is not None:
            # Others wait for the same answer, whatever becomes of this request.
            await asyncio.shield(asking)
        elif self._is_away or not self._keys:  # it may have a new one
            raise _no_keys()

    def _begin_to_ask(self) -> asyncio.Task[None] | None:
        """Ask, unless somebody does already. Null: it is too early to ask again."""
        if self._asking is None or self._asking.done():
            if self._asks_too_often():
                return None
            self._asking = asyncio.create_task(self._fetch(), name="auth keys")
            self._asking.add_done_callback(_look_at_outcome)
        return self._asking

    def _asks_too_often(self) -> bool:
        now = time.monotonic()
        all_used = len(self._answered_at) == ASKS
        return now < self._retry_at or (all_used and now - self._answered_at[0] < ASKS_SECONDS)

    async def _fetch(self) -> None:
        self._is_away, self._retry_at = True, time.monotonic() + RETRY_SECONDS
        try:
            keys = _usable(await self._download())
        except (httpx2.HTTPError, OSError, ValueError, RecursionError) as error:
            log.warning("auth.keys_not_fetched", url=self._url, reason=type(error).__name__)
            raise _no_keys() from error
        self._keys = keys
        self._fetched_at = time.monotonic()
        self._answered_at.append(self._fetched_at)
        self._is_away, self._retry_at = False, float("-inf")

    async def _download(self) -> bytes:
        if self._http is None:
            self._http = httpx2.AsyncClient(timeout=FETCH_SECONDS)
        async with self._http.stream("GET", self._url) as answer:
            answer.raise_for_status()
            data = b""
            async for piece in answer.aiter_bytes():
                data += piece
                if len(data) > MAX_KEYS_BYTES:
                    raise ValueError("more than keys")
        return data


def _look_at_outcome(asking: asyncio.Task[None]) -> None:
    """Take note of a failure, which nobody may have waited for."""
    if not asking.cancelled():
        asking.exception()


def _no_keys() -> Unavailable:
    return Unavailable("The keys that tokens are checked with can't be had at the moment.")


def _usable(data: bytes) -> list[PyJWK]:
    """Read a key set, passing over what is not for signatures that we take.

    Raises ValueError for what is no key set, or has no such key.
    """
    match orjson.loads(data):
        case {"keys": [*listed]}:
            pass
        case _:
            raise ValueError("no key set")
    keys: list[PyJWK] = []
    for each in listed:
        try:
            key = PyJWK(each)
        except (PyJWTError, ValueError, TypeError, AttributeError):
            continue
        if key.algorithm_name in ALGORITHMS and key.public_key_use in (None, "sig"):
            keys.append(key)
    if not keys:
        raise ValueError("no key that can be used")
    return keys
