from collections.abc import AsyncGenerator
from typing import Any

import pytest

from rag.openai_embedder import BATCH_SIZE, OpenAIEmbedder
from rag.ports import EmbedderUnavailable
from tests.openai_server import (
    UNAUTHORIZED,
    Answer,
    HangUp,
    OpenAIServer,
    Silence,
    embeddings,
    failure,
    openai_server,
    vector_of,
)

KEY = "sk-never-in-a-log"


@pytest.fixture
async def server() -> AsyncGenerator[OpenAIServer]:
    async with openai_server() as server:
        server.dimension = 4
        yield server


@pytest.fixture
async def embedder(server: OpenAIServer) -> AsyncGenerator[OpenAIEmbedder]:
    """An embedder of a model that no table knows, opened, with the probe forgotten."""
    embedder = OpenAIEmbedder.connect(api_key=KEY, base_url=server.url, model="local-embedding")
    await embedder.open()
    server.requests.clear()
    yield embedder
    await embedder.close()


def close_to(text: str) -> Any:
    return pytest.approx(vector_of(text, 4), rel=1e-6)


async def test_each_text_has_its_vector(embedder: OpenAIEmbedder):
    texts = ["a lease", "a run expires", "a lease"]
    assert await embedder.embed(texts) == [close_to(text) for text in texts]


async def test_vectors_are_put_in_the_order_of_the_texts(
    server: OpenAIServer, embedder: OpenAIEmbedder
):
    texts = ["a lease", "a run", "an end"]
    answer = embeddings({"model": "m", "input": texts}, 4)
    answer.body["data"].reverse()
    server.script(answer, to="embeddings")
    assert await embedder.embed(texts) == [close_to(text) for text in texts]


async def test_many_texts_go_in_batches(server: OpenAIServer, embedder: OpenAIEmbedder):
    texts = [f"text {n}" for n in range(BATCH_SIZE + 1)]
    vectors = await embedder.embed(texts)
    assert vectors[-1] == close_to(texts[-1])
    assert [len(request.body["input"]) for request in server.requests] == [BATCH_SIZE, 1]


async def test_no_texts_need_no_request(server: OpenAIServer, embedder: OpenAIEmbedder):
    assert await embedder.embed([]) == []
    assert server.requests == []


async def test_the_dimension_of_an_unknown_model_is_asked(embedder: OpenAIEmbedder):
    assert (embedder.model, embedder.dimension) == ("local-embedding", 4)


async def test_the_dimension_of_a_known_model_is_not_asked(server: OpenAIServer):
    embedder = OpenAIEmbedder.connect(
        api_key=KEY, base_url=server.url, model="text-embedding-3-small"
    )
    await embedder.open()
    assert embedder.dimension == 1536
    assert server.requests == []
    await embedder.close()


async def test_a_failed_request_is_repeated(server: OpenAIServer, embedder: OpenAIEmbedder):
    server.script(failure(429, retry_after=0.01), HangUp(), to="embeddings")
    assert await embedder.embed(["a lease"]) == [close_to("a lease")]


@pytest.mark.parametrize(
    "answer",
    [
        failure(400),
        Answer(200, {"object": "list", "data": []}),
        Answer(200, {"object": "list", "data": [{"index": 0, "embedding": [1.0, 2.0]}]}),
        Answer(200, {"object": "list", "data": [{"index": 1, "embedding": [1.0] * 4}]}),
        Answer(200, {"object": "list", "data": [{"embedding": [1.0] * 4}]}),
        Answer(200, {"object": "list", "data": [{"index": 0, "embedding": None}]}),
        Answer(200, {"object": "list", "data": [{"index": 0, "embedding": [1.0] * 4}] * 2}),
        Answer(200, {"unexpected": 1}),
        Answer(200, "unexpected"),
    ],
)
async def test_what_is_no_vector_for_each_text_is_an_error(
    server: OpenAIServer, embedder: OpenAIEmbedder, answer: Answer
):
    server.script(answer, to="embeddings")
    with pytest.raises(EmbedderUnavailable):
        await embedder.embed(["a lease"])


async def test_silence_is_an_error(server: OpenAIServer):
    embedder = OpenAIEmbedder.connect(
        api_key=KEY, base_url=server.url, model="m", silence_seconds=0.2, max_retries=0
    )
    server.script(Silence(), to="embeddings")
    with pytest.raises(EmbedderUnavailable, match="silent"):
        await embedder.open()
    await embedder.close()


async def test_no_error_repeats_the_key(server: OpenAIServer, embedder: OpenAIEmbedder):
    server.script(UNAUTHORIZED, to="embeddings")
    with pytest.raises(EmbedderUnavailable) as caught:
        await embedder.embed(["a lease"])
    assert str(caught.value) == "The embedding server failed: HTTP 401 (invalid_api_key)."
    assert caught.value.__suppress_context__
