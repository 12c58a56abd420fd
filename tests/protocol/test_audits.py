"""The audits of npm's graphql-http, which hold a server to the GraphQL over HTTP specification."""

import asyncio
import json
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.npm import NoNode, install
from tests.operations import PATIENCE_SECONDS
from tests.streaming.wire import Served

SCRIPTS = Path(__file__).parent / "audits"
AUDITS = """
    22EB 4655 47DE 80D8 82A3 BF61 78D5 2C94 5A70 9C48 9ABE 03D4 A5BF 423L LKJ0 LKJ1 LKJ2 LKJ3 34A2
    13EE 6C00 6C01 6C02 6C03 8161 B8B3 94B0 0220 94B1 0221 94B2 0222 4760 4761 4762 4763 2EA1 28B9
    D6D5 6A70 58B0 58B1 58B2 58B3 428F 1B7A B6DC BCF8 B7N8 8764 3E3A 572B FDE2 7B9B 865D 556A D586
    51FE 74FF 5E5B 86EE
""".split()
"Written out, so that an audit that a new version renames or drops is not lost in silence."


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def results(server: Served) -> dict[str, Any]:
    """What came of each audit, by its id."""
    try:
        node = await asyncio.to_thread(install, SCRIPTS)
    except NoNode as reason:
        pytest.skip(str(reason))
    url = f"{server.origin}/graphql"
    process = await asyncio.create_subprocess_exec(
        node, str(SCRIPTS / "run.mjs"), url, stdout=PIPE, stderr=PIPE
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return {result["id"]: result for result in json.loads(out)}


def test_all_audits_are_known(results: dict[str, Any]):
    assert len(AUDITS) == 61
    assert sorted(results) == sorted(AUDITS)


@pytest.mark.parametrize("id", AUDITS)
def test_an_audit_is_passed(id: str, results: dict[str, Any]):
    """What a server MUST, SHOULD and MAY do, all of it."""
    result = results[id]
    assert result["status"] == "ok", f"{result['name']}: {result['reason']}"
