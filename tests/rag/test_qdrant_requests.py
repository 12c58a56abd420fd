"""What QdrantIndex sends over HTTP is what Qdrant's OpenAPI file allows, and how it fails."""

import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import pytest
from jsonschema import ValidationError

from db.ids import ChunkId, DocumentId, UserId
from db.viewer import Viewer
from rag.ports import Hit, Holding, IndexedChunk, IndexUnavailable
from rag.qdrant_index import QdrantIndex, connect
from tests.rag.qdrant_openapi import FILE, QdrantApi

pytestmark = pytest.mark.skipif(not FILE.exists(), reason=f"Qdrant's OpenAPI is not at {FILE}")

ALICE = Viewer(UserId(uuid4()))
DOCUMENT = DocumentId(uuid4())
CHUNK = ChunkId(uuid4())
COLLECTION = "/collections/chunks-v2-3"
UPDATED = {"operation_id": 1, "status": "completed"}


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class Server:
    """A stand-in for Qdrant, which writes down what it is asked.

    `failures` gives a status and a body to answer with instead, by method and path; `outage`
    one for all.
    """

    url: str = ""
    requests: list[Request] = field(default_factory=list[Request])
    outage: tuple[int, str] | None = None
    failures: dict[tuple[str, str], tuple[int, str]] = field(
        default_factory=dict[tuple[str, str], tuple[int, str]]
    )

    def answer(self, request: Request) -> tuple[int, str]:
        self.requests.append(request)
        if self.outage is not None:
            return self.outage
        operation = request.method, request.path
        if operation in self.failures:
            return self.failures[operation]
        of_collection = "/".join(["", *request.path.split("/")[3:]])
        result = RESULTS.get((request.method, of_collection), UPDATED)
        return 200, json.dumps({"time": 0.001, "status": "ok", "result": result})

    def bodies(self, method: str, path: str) -> list[Any]:
        return [r.body for r in self.requests if (r.method, r.path) == (method, path)]


# By method and what follows the collection's name.
RESULTS: dict[tuple[str, str], Any] = {
    ("GET", "/exists"): {"exists": False},
    ("PUT", ""): True,
    ("POST", "/points/query"): {"points": [{"id": str(CHUNK), "version": 1, "score": 0.5}]},
    ("POST", "/points/count"): {"count": 3},
    ("POST", "/facet"): {"hits": [{"value": f"{DOCUMENT}:{ALICE.user_id}", "count": 3}]},
}


@pytest.fixture(scope="module")
def api() -> QdrantApi:
    return QdrantApi()


@pytest.fixture
def server() -> Iterator[Server]:
    recorder = Server()

    class Handler(BaseHTTPRequestHandler):
        def handle_one(self) -> None:
            url = urlsplit(self.path)
            length = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            request = Request(
                self.command, url.path, dict(parse_qsl(url.query)), dict(self.headers), body
            )
            status, text = recorder.answer(request)
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_PUT = do_POST = handle_one

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        recorder.url = f"http://127.0.0.1:{http.server_port}"
        serving = threading.Thread(target=http.serve_forever, args=(0.01,))
        serving.start()
        yield recorder
        http.shutdown()
        serving.join()


@pytest.fixture
def index(server: Server) -> QdrantIndex:
    return QdrantIndex(connect(server.url, "secret"), "chunks", 3)


def chunk(number: int = 0, vector: list[float] | None = None) -> IndexedChunk:
    return IndexedChunk(
        chunk_id=ChunkId(uuid4()),
        document_id=DOCUMENT,
        owner_id=ALICE.user_id,
        title="Harbours",
        source_url="https://example.org/harbours",
        heading=None,
        page=number,
        content=f"harbour number {number}",
        vector=vector,
    )


async def use_everything(index: QdrantIndex) -> None:
    await index.open()
    await index.put([chunk(n, [0.1, 0.2, 0.3]) for n in range(5)])
    await index.put([chunk()])
    await index.set_owner(DOCUMENT, None)
    await index.set_owner(DOCUMENT, ALICE.user_id)
    await index.search(ALICE, "harbour", None, limit=5)
    await index.search(ALICE, "harbour", [1.0, 0.0, 0.0], limit=5, document_ids=[DOCUMENT])
    await index.search(ALICE, "", [1.0, 0.0, 0.0], limit=5)
    await index.search_shared("harbour", None, limit=5)
    await index.search_shared("harbour", [1.0, 0.0, 0.0], limit=5)
    await index.holdings()
    await index.remove(DOCUMENT)
    await index.close()


async def test_every_request_and_answer_is_qdrants(
    api: QdrantApi, server: Server, index: QdrantIndex
) -> None:
    await use_everything(index)
    assert len({(r.method, r.path) for r in server.requests}) == 9
    for request in [*server.requests]:
        api.check_request(request.method, request.path, request.query, request.body)
        assert request.headers["api-key"] == "secret"
        answer = json.loads(server.answer(request)[1])
        api.check_response(request.method, request.path, answer)


async def test_a_text_index_sends_what_is_qdrants(api: QdrantApi, server: Server) -> None:
    await use_everything(QdrantIndex(connect(server.url), "chunks", None))
    assert {r.path.split("/")[2] for r in server.requests} == {"chunks-v2-text"}
    for request in server.requests:
        api.check_request(request.method, request.path, request.query, request.body)
        assert "dense" not in json.dumps(request.body)


async def test_writes_wait_until_they_are_findable(server: Server, index: QdrantIndex) -> None:
    await use_everything(index)
    writes = [r for r in server.requests if r.method == "PUT" or "payload" in r.path]
    writes += [r for r in server.requests if r.path.endswith("/points/delete")]
    for request in writes:
        if request.path != COLLECTION:
            assert request.query["wait"] == "true"


async def test_batches_are_bounded(server: Server, index: QdrantIndex) -> None:
    await index.put([chunk(n) for n in range(60)])
    sizes = [len(body["points"]) for body in server.bodies("PUT", f"{COLLECTION}/points")]
    assert sizes == [25, 25, 10]


async def test_every_ranking_is_filtered_by_viewer(server: Server, index: QdrantIndex) -> None:
    hits = await index.search(ALICE, "harbour", [1.0, 0.0, 0.0], limit=5, document_ids=[DOCUMENT])
    assert hits == [Hit(CHUNK, 0.5)]
    [body] = server.bodies("POST", f"{COLLECTION}/points/query")
    owner = {"key": "owner", "match": {"any": [str(ALICE.user_id), "shared"]}}
    document = {"key": "document_id", "match": {"any": [str(DOCUMENT)]}}
    assert [each["filter"] for each in body["prefetch"]] == [{"must": [owner, document]}] * 2
    assert [each["using"] for each in body["prefetch"]] == ["text", "dense"]
    assert body["prefetch"][0]["params"] == {"idf": {"corpus": {"must": [owner]}}}
    assert body["query"] == {"rrf": {"k": 60}}


async def test_every_ranking_of_what_is_shared_is_filtered(
    server: Server, index: QdrantIndex
) -> None:
    assert await index.search_shared("harbour", [1.0, 0.0, 0.0], limit=5) == []
    [body] = server.bodies("POST", f"{COLLECTION}/points/query")
    shared = {"must": [{"key": "owner", "match": {"any": ["shared"]}}]}
    assert [each["filter"] for each in body["prefetch"]] == [shared] * 2
    assert body["prefetch"][0]["params"] == {"idf": {"corpus": shared}}
    assert body["with_payload"] is True


@pytest.mark.parametrize("owner", ["shared", str(ALICE.user_id)])
async def test_what_a_server_gives_is_looked_at_again(
    server: Server, index: QdrantIndex, owner: str
) -> None:
    """A passage that nobody reads again from Postgres must not slip through."""
    payload = {
        "owner": owner,
        "stamp": f"{DOCUMENT}:{owner}",
        "document_id": str(DOCUMENT),
        "title": "Harbours",
        "content": "harbour",
    }
    point = {"id": str(CHUNK), "version": 1, "score": 0.5, "payload": payload}
    answer = {"time": 0.001, "status": "ok", "result": {"points": [point]}}
    server.failures["POST", f"{COLLECTION}/points/query"] = (200, json.dumps(answer))
    found = await index.search_shared("harbour", None, limit=5)
    assert len(found) == (owner == "shared")


async def test_holdings_ask_for_no_fewer_than_there_are(server: Server, index: QdrantIndex) -> None:
    assert await index.holdings() == {DOCUMENT: Holding(ALICE.user_id, 3)}
    [facet] = server.bodies("POST", f"{COLLECTION}/facet")
    assert facet == {"key": "stamp", "limit": 3, "exact": True}


async def test_another_replica_may_create_the_collection_first(
    server: Server, index: QdrantIndex
) -> None:
    server.failures["PUT", COLLECTION] = (409, '{"status": {"error": "already exists"}}')
    await index.open()
    assert len(server.bodies("PUT", f"{COLLECTION}/index")) == 3


# --- failures -------------------------------------------------------------------------

OPERATIONS: list[Callable[[QdrantIndex], Awaitable[object]]] = [
    lambda index: index.open(),
    lambda index: index.put([chunk()]),
    lambda index: index.set_owner(DOCUMENT, None),
    lambda index: index.remove(DOCUMENT),
    lambda index: index.search(ALICE, "harbour", None, limit=5),
    lambda index: index.search(ALICE, "harbour", [1.0, 0.0, 0.0], limit=5),
    lambda index: index.search_shared("harbour", None, limit=5),
    lambda index: index.holdings(),
]


@pytest.mark.parametrize(
    "failure",
    [
        (500, '{"status": {"error": "broken"}}'),
        (401, '"Must provide an API key"'),
        (429, '{"status": {"error": "too many"}}'),
        (502, "<html>Bad Gateway</html>"),
        (200, "<html>a login page</html>"),
        (200, "{}"),
        (200, ""),
    ],
)
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_failing_server_is_unavailable(
    server: Server,
    index: QdrantIndex,
    operation: Callable[[QdrantIndex], Awaitable[object]],
    failure: tuple[int, str],
) -> None:
    server.outage = failure
    with pytest.raises(IndexUnavailable) as caught:
        await operation(index)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_an_absent_server_is_unavailable(
    operation: Callable[[QdrantIndex], Awaitable[object]],
) -> None:
    index = QdrantIndex(connect("http://127.0.0.1:9"), "chunks", 3)
    with pytest.raises(IndexUnavailable):
        await operation(index)


# --- the checker itself ---------------------------------------------------------------

POINT = {"id": str(CHUNK), "vector": {"text": {"indices": [1], "values": [0.5]}}, "payload": None}
UPSERT = ("PUT", f"{COLLECTION}/points")
QUERY = ("POST", f"{COLLECTION}/points/query")


def test_the_checker_accepts_what_is_right(api: QdrantApi) -> None:
    api.check_request(*UPSERT, {"wait": "true", "timeout": "5"}, {"points": [POINT]})


@pytest.mark.parametrize(
    ("operation", "query", "body"),
    [
        (UPSERT, {}, {"points": [POINT | {"vectors": {}}]}),
        (UPSERT, {}, {"points": [POINT | {"id": None}]}),
        (UPSERT, {}, {"points": [{"id": 1}]}),
        (UPSERT, {}, {"points": [POINT], "durable": True}),
        (UPSERT, {}, None),
        (UPSERT, {"wait": "perhaps"}, {"points": [POINT]}),
        (UPSERT, {"patience": "1"}, {"points": [POINT]}),
        (QUERY, {}, {"query": {"rrf": {"k": 0}}}),
        (QUERY, {}, {"query": {"rrf": {"kay": 60}}}),
        (QUERY, {}, {"limit": 5, "params": {"idf": {"corpora": {}}}}),
        (QUERY, {}, {"limit": 5, "filter": {"must": [{"key": "owner", "match": {"is": "x"}}]}}),
        (("PATCH", f"{COLLECTION}/points"), {}, {"points": [POINT]}),
        (("GET", f"{COLLECTION}/exists"), {}, {"why": "not"}),
    ],
)
def test_the_checker_refuses_what_is_wrong(
    api: QdrantApi, operation: tuple[str, str], query: dict[str, str], body: object
) -> None:
    with pytest.raises(ValidationError):
        api.check_request(*operation, query, body)
