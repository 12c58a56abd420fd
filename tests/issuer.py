"""An issuer of tokens on loopback, as Better Auth or an OIDC provider is one.

async with issuing() as issuer:
    settings = settings.model_copy(update=issuer.settings)
    token = issuer.token("ann", name="Ann")
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

Algorithm = Literal["EdDSA", "ES256", "RS256"]

ISSUER = "https://issuer.example"
AUDIENCE = "parley"


@dataclass(frozen=True)
class Key:
    """A key pair. `public` is how the issuer publishes it."""

    algorithm: Algorithm
    private: Any
    public: dict[str, Any]

    @property
    def id(self) -> str:
        return self.public["kid"]


def make_key(algorithm: Algorithm = "EdDSA", **published: Any) -> Key:
    match algorithm:
        case "EdDSA":
            private = ed25519.Ed25519PrivateKey.generate()
            public = OKPAlgorithm.to_jwk(private.public_key(), as_dict=True)
        case "ES256":
            private = ec.generate_private_key(ec.SECP256R1())
            public = ECAlgorithm.to_jwk(private.public_key(), as_dict=True)
        case "RS256":
            private = rsa.generate_private_key(65537, 2048)
            public = RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
    return Key(algorithm, private, {**public, "kid": str(uuid4()), "alg": algorithm, **published})


@dataclass
class Issuer:
    """Signs with the last of its `keys` and publishes all of them. `asked` counts who fetched.

    While `gate` is not set nobody is answered; `body` is answered instead of the keys.
    """

    url: str
    keys: list[Key] = field(default_factory=lambda: [make_key()])
    asked: int = 0
    status: int = 200
    body: bytes | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "auth_jwks_url": self.url,
            "auth_issuer": ISSUER,
            "auth_audience": frozenset({AUDIENCE}),
        }

    def claims(self, subject: str, lasts: timedelta = timedelta(hours=1), **more: Any) -> Any:
        """Give what a token says; a claim that is null is left out."""
        now = datetime.now(UTC)
        usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "iat": now, "exp": now + lasts}
        return {name: value for name, value in (usual | more).items() if value is not None}

    def token(
        self,
        subject: str = "ann",
        *,
        key: Key | None = None,
        lasts: timedelta = timedelta(hours=1),
        **more: Any,
    ) -> str:
        key = key or self.keys[-1]
        headers = {"kid": key.id}
        claims = self.claims(subject, lasts, **more)
        return jwt.encode(claims, key.private, algorithm=key.algorithm, headers=headers)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            await self.gate.wait()
            body = self.body
            if body is None:
                body = json.dumps({"keys": [key.public for key in self.keys]}).encode()
            head = f"HTTP/1.1 {self.status} X\r\nContent-Length: {len(body)}\r\n"
            writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def issuing() -> AsyncGenerator[Issuer]:
    """Run an issuer that answers."""
    issuer = Issuer("")
    issuer.gate.set()
    async with await asyncio.start_server(issuer.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        issuer.url = f"http://127.0.0.1:{port}/jwks"
        yield issuer
