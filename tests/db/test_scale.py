"""docs/scale.md makes the collection that Parley would make, but for what makes it a cluster's."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from graphql_api.app import _embedder, _index
from graphql_api.settings import Settings
from rag.ports import IndexUnavailable
from tests.db.schemas import PAGE

CREATION = r"curl -X PUT \"\$QDRANT_URL(/collections/\S+)\".*?-d '(.+?)'"
WITHOUT_EMBEDDER = r"Without one it is `(\S+)`, with `\"vectors\": {}`"
OF_A_CLUSTER = {"shard_number": 6, "replication_factor": 2}


@asynccontextmanager
async def qdrant(made: list[tuple[str, Any]]) -> AsyncGenerator[str]:
    """Stand in for a Qdrant that has no collection, notes what is to be made, and fails."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, path, _ = head.split(maxsplit=2)
        if method == "PUT":
            [length] = re.findall(r"content-length: (\d+)", head, re.IGNORECASE)
            made.append((path, json.loads(await reader.readexactly(int(length)))))
        status, body = ("500 No", "{}") if made else ("200 OK", '{"result": {"exists": false}}')
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def on_the_page() -> tuple[str, Any]:
    [(path, body)] = re.findall(CREATION, PAGE.read_text(), re.DOTALL)
    return path, json.loads(body)


@pytest.mark.parametrize("embeds", [True, False])
async def test_the_collection_is_the_one_that_parley_makes(embeds: bool, settings: Settings):
    path, body = on_the_page()
    if not embeds:
        [name] = re.findall(WITHOUT_EMBEDDER, PAGE.read_text())
        path, body["vectors"] = f"/collections/{name}", {}
    made: list[tuple[str, Any]] = []
    async with qdrant(made) as url:
        key = SecretStr("key") if embeds else None
        given = settings.model_copy(update={"qdrant_url": url, "openai_api_key": key})
        index = _index(given, _embedder(given))
        with pytest.raises(IndexUnavailable):
            await index.open()
        await index.close()
    assert [(path, asked | OF_A_CLUSTER) for path, asked in made] == [(path, body)]
