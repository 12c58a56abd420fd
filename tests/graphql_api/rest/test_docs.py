"""docs/rest.md is true: its calls run as they can be typed, and it leaves out nothing."""

import asyncio
import json
import re
import shutil
from pathlib import Path

import pytest

from db.models import MessageStatus
from graphql_api.rest.problems import problem_of
from resolvers import errors
from tests.people import Parley
from tests.process.processes import served

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "rest.md").read_text()
CALLS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
ADDRESS = "http://127.0.0.1:8000"


async def typed(block: str, address: str) -> str:
    """Type a block into a shell, for a server of that address; fails where a call is refused."""
    script = block.replace(ADDRESS, address).replace("curl -s", "curl --fail-with-body -s")
    process = await asyncio.create_subprocess_exec(
        "bash", "-euc", script, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, f"{script}\n{out.decode()}"
    return out.decode()


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
async def test_every_call_runs_as_it_stands(tmp_path: Path):
    async with served(tmp_path / "data") as server:
        said = [await typed(block, server.url) for block in CALLS]
    first, history, forgotten, no_key, selected, sessions, stream, again, documents, health = said
    answer = json.loads(first)
    assert answer["persisted"]
    assert [each["title"] for each in answer["citations"]]
    assert [each["content"] for each in json.loads(history)["messages"]][1] == answer["response"]
    assert json.loads(forgotten) == {"deleted": 2}
    assert re.search(r"(?im)^x-session-id: [0-9a-f-]{36}\r?$", no_key)
    assert json.loads(selected)["session_id"] == "reader-42"
    assert sessions.count('"notes/7"') == 4
    assert [line for line in stream.splitlines() if line.startswith("event: ")][-1] == (
        "event: ended"
    )
    assert json.loads(again)["user_message_id"] == "7d8f3a1c-2b4e-4c6d-9e0f-1a2b3c4d5e6f"
    assert '"Harbour rules"' in documents
    assert '"original_filename":"README.md"' in documents
    assert health.count('"ok"') == 2


async def test_every_route_is_told_of(parley: Parley):
    document = (await parley.http.get("/openapi.json")).json()
    for path in document["paths"]:
        assert path.partition("{")[0].rstrip("/") in PAGE, path


def test_every_code_is_told_of():
    failures: list[Exception] = [
        errors.NotFound(),
        errors.InvalidInput("x"),
        errors.IdConflict("x"),
        errors.BadRequest("x"),
        errors.Unauthenticated("x"),
        errors.Unavailable("x"),
        RuntimeError("x"),
    ]
    for failure in failures:
        assert f"`{problem_of(failure, 'id').code}`" in PAGE


def test_every_end_of_a_reply_is_told_of():
    for status in (MessageStatus.STOPPED, MessageStatus.FAILED, MessageStatus.INTERRUPTED):
        assert f"`{status}`" in PAGE
