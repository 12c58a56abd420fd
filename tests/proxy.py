"""A wire to Postgres that tests can cut."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from sqlalchemy import make_url

SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"


class Proxy:
    """A wire to Postgres that can be cut, or at whose end Postgres turns everyone away."""

    def __init__(self, host: str, port: int) -> None:
        self._there = host, port
        self._pipes: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._is_cut = False
        self._refusal: tuple[str, str] | None = None
        self._is_silent = False
        self.refused = 0

    def cut(self) -> None:
        self._is_cut = True
        for writer in list(self._writers):
            writer.transport.abort()

    def refuse(self, code: str, reason: str) -> None:
        """Cut, and answer whoever comes as Postgres does while it starts or stops."""
        self.cut()
        self._is_cut, self._refusal = False, (code, reason)

    def fall_silent(self) -> None:
        """Take whoever comes, and say nothing."""
        self._is_silent = True

    def restore(self) -> None:
        self._is_cut, self._refusal = False, None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        task = asyncio.current_task()
        assert task
        self._pipes.add(task)
        try:
            if self._is_silent:
                await reader.read()
            elif self._refusal:
                await self._turn_away(reader, writer, *self._refusal)
            elif not self._is_cut:
                await self._pass_on(reader, writer)
            else:
                self.refused += 1
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            self._pipes.discard(task)
            writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there = await asyncio.open_connection(*self._there)
        self._writers.add(there)
        pipes = [
            asyncio.create_task(_pipe(reader, there)),
            asyncio.create_task(_pipe(there_reader, writer)),
        ]
        try:
            await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pipe in pipes:
                pipe.cancel()
            await asyncio.gather(*pipes, return_exceptions=True)
            self._writers.discard(there)
            there.transport.abort()

    async def _turn_away(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, code: str, reason: str
    ) -> None:
        head = await reader.readexactly(8)
        if head == SSL_REQUEST:
            writer.write(b"N")
            head = await reader.readexactly(8)
        await reader.readexactly(int.from_bytes(head[:4], "big") - 8)
        fields = b"".join(
            kind + value.encode() + b"\0"
            for kind, value in ((b"S", "FATAL"), (b"V", "FATAL"), (b"C", code), (b"M", reason))
        )
        writer.write(b"E" + (len(fields) + 5).to_bytes(4, "big") + fields + b"\0")
        await writer.drain()
        writer.close()
        self.refused += 1
        await reader.read()

    async def close(self) -> None:
        self.cut()
        await asyncio.gather(*self._pipes, return_exceptions=True)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def wire(database_url: str) -> AsyncGenerator[tuple[Proxy, str]]:
    """Lay a wire to a database, and give the URL of its near end."""
    url = make_url(database_url)
    assert url.host
    assert url.port
    proxy = Proxy(url.host, url.port)
    listener = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    near = url.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
    yield proxy, near
    listener.close()
    await proxy.close()
