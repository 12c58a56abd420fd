"""A real Better Auth server, made of the code that `docs/auth.md` shows, word for word.

    async with better_auth(folder, node, database_url) as auth:
        ann = await auth.sign_up("Ann")
        token = await auth.token(ann)

The page's code for browsers runs as well (`visit`): Node plays the browser (`page.mjs`).
"""

import asyncio
import json
import re
import shutil
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2

from tests.process.processes import Server, free_port, until

HERE = Path(__file__).parent
DOCUMENTATION = HERE.parents[2] / "docs" / "auth.md"
PAGE_SECONDS = 60
FENCED = re.DOTALL | re.MULTILINE
SCRIPT = re.compile(r"^```js (\w+\.mjs)\n(.*?)^```$", FENCED)


def documented_sql() -> list[str]:
    """Give the statements that make a role for Better Auth."""
    [block] = re.findall(r"^```sql\n(.*?);\n```$", DOCUMENTATION.read_text(), FENCED)
    return block.split(";\n")


def write_documented_scripts(folder: Path, without: Sequence[str] = ()) -> None:
    """Write the files that the documentation shows, where Node finds the packages.

    Lines with one of the texts in `without` are left out.
    """
    for name, code in SCRIPT.findall(DOCUMENTATION.read_text()):
        lines = [line for line in code.splitlines() if not any(text in line for text in without)]
        (folder / name).write_text("\n".join(lines) + "\n")
    (folder / "node_modules").symlink_to(HERE / "node_modules")


@dataclass(frozen=True)
class Account:
    """Somebody who is signed in at Better Auth. `session` is its own token, no JWT."""

    id: str
    email: str
    session: str


@dataclass(frozen=True)
class BetterAuth:
    """A running server, and the folder that its code is in."""

    url: str
    folder: Path
    node: str
    environ: dict[str, str]
    http: httpx2.AsyncClient

    @property
    def settings(self) -> dict[str, str]:
        """What Parley is told, as the documentation has it."""
        return {
            "AUTH_JWKS_URL": f"{self.url}/api/auth/jwks",
            "AUTH_ISSUER": self.url,
            "AUTH_AUDIENCE": self.url,
        }

    async def sign_up(self, name: str) -> Account:
        email = f"{name.lower()}-{uuid4().hex}@example.com"
        return await self._enter("sign-up/email", name=name, email=email, password=email)

    async def sign_in(self, account: Account) -> Account:
        """Sign the same user in once more."""
        return await self._enter("sign-in/email", email=account.email, password=account.email)

    async def sign_in_anonymously(self) -> Account:
        return await self._enter("sign-in/anonymous")

    async def _enter(self, path: str, **body: str) -> Account:
        answer = await self.http.post(f"/api/auth/{path}", json=body)
        assert answer.status_code == 200, answer.text
        # Whoever asks next is somebody else.
        self.http.cookies.clear()
        user = answer.json()["user"]
        return Account(user["id"], user["email"], answer.headers["set-auth-token"])

    async def token(self, account: Account) -> str:
        """Take a new JWT."""
        headers = {"Authorization": f"Bearer {account.session}"}
        answer = await self.http.get("/api/auth/token", headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()["token"]

    async def run(self, *arguments: str) -> str:
        """Run a script to its end, and give what it printed."""
        process = await asyncio.create_subprocess_exec(
            self.node, *arguments, cwd=self.folder, env=self.environ, stdout=PIPE, stderr=PIPE
        )
        try:
            async with asyncio.timeout(PAGE_SECONDS):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, err.decode()
        return out.decode()

    async def visit(self, parley: Server) -> Any:
        """Let a browser use the documented frontend code, and give what it saw."""
        frontend = self.folder / "parley.mjs"
        code = frontend.read_text()
        for documented, real in (
            ("https://app.example.com/api/auth", f"{self.url}/api/auth"),
            ("https://app.example.com/graphql", f"{parley.url}/graphql"),
        ):
            assert documented in code
            code = code.replace(documented, real)
        frontend.write_text(code)
        return json.loads(await self.run(str(shutil.copy(HERE / "page.mjs", self.folder))))

    async def is_up(self) -> bool:
        try:
            return (await self.http.get("/api/auth/ok")).status_code == 200
        except httpx2.TransportError:
            return False


@asynccontextmanager
async def better_auth(
    folder: Path, node: str, database_url: str, *, without: Sequence[str] = ()
) -> AsyncGenerator[BetterAuth]:
    """Run a server on a database, with its tables in the schema that the documentation names."""
    write_documented_scripts(folder, without)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environ = {
        "DATABASE_URL": database_url,
        "BETTER_AUTH_URL": url,
        "BETTER_AUTH_SECRET": uuid4().hex + uuid4().hex,
        "BETTER_AUTH_TELEMETRY": "false",
        "PORT": str(port),
    }
    async with httpx2.AsyncClient(base_url=url, timeout=30) as http:
        auth = BetterAuth(url, folder, node, environ, http)
        await auth.run("migrate.mjs")
        process = await asyncio.create_subprocess_exec(
            node, "server.mjs", cwd=folder, env=environ, stdout=DEVNULL, stderr=DEVNULL
        )
        try:
            await until(auth.is_up, bool, PAGE_SECONDS)
            yield auth
        finally:
            process.terminate()
            await process.wait()
