"""Event streams over HTTP, closed for certain when their reader is gone.

They are Server-Sent Events (graphql-sse, distinct connections mode) and Apollo's multipart
subscriptions.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import ClassVar, cast

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send
from strawberry.http.streaming import MultipartSubscriptionTransport, SSETransport

from graphql_api.negotiation import Media

HEARTBEAT_SECONDS = 12.0
"Proxies commonly close what has been silent for 30 or 60 s; some for less."


class EventStreamTransport(SSETransport):
    """Server-Sent Events framed by line feeds: urql reads no other."""

    protocol: ClassVar = "sse"
    opening: ClassVar = ""

    def __init__(self) -> None:
        super().__init__(HEARTBEAT_SECONDS)

    def encode_event(self, event: str, data: str | None = None) -> str:
        return f"event: {event}\ndata: {data or ''}\n\n"

    def encode_comment(self, comment: str) -> str:
        return f": {comment}\n\n"


class MultipartTransport(MultipartSubscriptionTransport):
    """Apollo's multipart subscriptions, with a boundary before the first part and one at the end.

    Strawberry sends neither (RFC 2046 has both), and readers take the first part for a preamble.
    """

    opening: ClassVar = "\r\n--graphql"

    def encode_complete(self) -> str:
        return "--\r\n"  # each part ends with a boundary, which this makes the last one


async def with_heartbeats(
    messages: AsyncGenerator[str], heartbeat: Callable[[], str], interval: float
) -> AsyncGenerator[str]:
    """Pass messages on, with a heartbeat after each silence. Closing this closes the source."""
    coming = asyncio.ensure_future(anext(messages))
    try:
        while True:
            done, _ = await asyncio.wait({coming}, timeout=interval)
            if not done:
                yield heartbeat()
                continue
            try:
                message = coming.result()
            except StopAsyncIteration:
                return
            yield message
            coming = asyncio.ensure_future(anext(messages))
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
        await messages.aclose()


class EventStream(StreamingResponse):
    """A response that ends with its stream or its reader, and then closes the stream.

    Starlette's own notices that a reader left when it next sends, and closes nothing.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        streaming = asyncio.ensure_future(self.stream_response(send))
        leaving = asyncio.ensure_future(self.listen_for_disconnect(receive))
        try:
            await asyncio.wait({streaming, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            streaming.cancel()
            leaving.cancel()
            await asyncio.gather(streaming, leaving, return_exceptions=True)
            await cast("AsyncGenerator[str]", self.body_iterator).aclose()
        failure = None if streaming.cancelled() else streaming.exception()
        if failure is not None and not isinstance(failure, OSError):
            raise failure


STREAM_TRANSPORTS: Mapping[Media, Callable[[], EventStreamTransport | MultipartTransport]] = {
    Media.EVENTS: EventStreamTransport,
    Media.MULTIPART: MultipartTransport,
}
