"""Schemathesis asks whatever the schema allows, of a server as it is run: none of it is a fault."""

import asyncio
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from uuid import uuid4

import pytest

from tests.process.processes import served

SCRIPT = Path(sys.executable).with_name("schemathesis")
EXAMPLES = 10
"Of each root field. There are 21 of them, and an answer takes some 50 ms."
SECONDS = 60.0
OPTIONS = f"""--phases fuzzing --checks not_a_server_error --max-examples {EXAMPLES}
    --generation-deterministic --request-timeout 10 --warnings off"""


@pytest.mark.skipif(not SCRIPT.exists(), reason="schemathesis is not installed")
async def test_no_operation_that_the_schema_allows_is_a_fault(tmp_path: Path, database_url: str):
    settings = {"DATABASE_URL": database_url, "RATE_LIMIT": "off"}
    async with served(tmp_path / "data", **settings) as server:
        who = ["--header", f"X-Session-ID: {uuid4()}"]
        process = await asyncio.create_subprocess_exec(
            *[str(SCRIPT), "run", f"{server.url}/graphql", *OPTIONS.split(), *who],
            stdout=PIPE,
            stderr=STDOUT,
            cwd=tmp_path,
        )
        async with asyncio.timeout(SECONDS):
            said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()
        asked = server.log().count('"path": "/graphql"')
        assert asked > EXAMPLES * 10
        assert not [event for event in server.events() if event.endswith(".failed")]
