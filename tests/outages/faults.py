"""A wire to Postgres that breaks where a test says: before a statement, in its answer, after it.

    async with faulty_wire(database_url) as wire:
        broken = wire.break_at("COMMIT", Moment.AFTER)
        ...
        assert broken.sprung

The wire reads along (Postgres' protocol, version 3, without TLS), so it knows which statement a
message runs. After the break Postgres has surely done the statement, or surely not.
"""

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum

from sqlalchemy import URL, make_url

from tests.proxy import Proxy

SOME_BYTES = 20
"Of an answer: the head of its first row has come, the row has not."
ANSWERED = frozenset((b"Q", b"S", b"H", b"p", b"X"))
"The messages that end what is asked at once: query, sync, flush, password, farewell."


class Moment(StrEnum):
    """When the wire breaks, as seen from the statement that it breaks at."""

    BEFORE = "before"
    "It never arrives."
    AMID = "amid"
    "It is done, and its answer breaks off."
    AFTER = "after"
    "It is done, and nothing of its answer comes."


class How(StrEnum):
    """What becomes of the connection."""

    CUT = "cut"
    SILENT = "silent"
    "Nothing passes any more in either direction, not even the news that the other side is gone."
    HELD = "held"
    "The client is cut off, and the statement arrives when the test releases it."


def _nothing() -> None:
    pass


@dataclass
class Break:
    """A break that is to come, at the `left`th statement from now that begins so."""

    beginning: str
    moment: Moment
    how: How
    left: int
    then: Callable[[], None]
    released: asyncio.Event = field(default_factory=asyncio.Event)
    statement: str | None = None

    @property
    def sprung(self) -> bool:
        return self.statement is not None

    def release(self) -> None:
        """Let a held statement arrive."""
        self.released.set()

    def springs_at(self, statement: str) -> bool:
        if self.sprung or not statement.startswith(self.beginning):
            return False
        self.left -= 1
        if self.left:
            return False
        self.statement = statement
        return True


class Wire(Proxy):
    """A wire that reads along.

    `statements` is all that was asked over it; `attempts` counts who came, `established` who was
    let in by Postgres.
    """

    def __init__(self, url: URL) -> None:
        assert url.host
        assert url.port
        super().__init__(url.host, url.port)
        self._far = url
        # It is bound, and does not listen: the port stays ours while the wire is hung up.
        self._reserved = _bound(0)
        self._listener: socket.socket | None = None
        self._breaks: list[Break] = []
        self._audible = asyncio.Event()
        self.statements: list[str] = []
        self.attempts = 0
        self.established = 0
        self.delay_seconds = 0.0

    @property
    def url(self) -> str:
        near = self._far.set(host="127.0.0.1", port=self._reserved.getsockname()[1])
        return near.render_as_string(hide_password=False)

    # Breaking it

    def break_at(
        self,
        beginning: str,
        moment: Moment,
        how: How = How.CUT,
        *,
        nth: int = 1,
        then: Callable[[], None] = _nothing,
    ) -> Break:
        """Break at the nth statement from now that begins so; `then` happens before it is felt."""
        self._breaks.append(planned := Break(beginning, moment, how, nth, then))
        return planned

    def refuse_for(self, seconds: float, code: str) -> None:
        """Cut, and turn everyone away for so long, as Postgres does while it starts."""
        self.refuse(code, "not now")
        asyncio.get_running_loop().call_later(seconds, self.restore)

    def end_silence(self) -> None:
        """Let Postgres notice at last that those who fell silent are gone."""
        self._is_silent = False
        self._audible.set()
        self._audible = asyncio.Event()

    def hang_up(self) -> None:
        """Cut, and listen no more: who comes is refused by the machine."""
        self.cut()
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def listen(self, far: str | None = None) -> None:
        """Listen at the same port as before, for another server where one is named."""
        if far is not None:
            self._far = make_url(far)
            assert self._far.host
            assert self._far.port
            self._there = self._far.host, self._far.port
        self.restore()
        self._listener = _bound(self._reserved.getsockname()[1])
        self._listener.setblocking(False)
        self._listener.listen()
        asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    # Carrying

    def _accept(self, listener: socket.socket) -> None:
        """Take one who comes. asyncio's own server loses those who come while it is closed."""
        try:
            near, _ = listener.accept()
        except OSError:  # they have gone again
            return
        near.setblocking(False)
        self._pipes.add(asyncio.create_task(self._welcome(near)))

    async def _welcome(self, near: socket.socket) -> None:
        await self.serve(*await asyncio.open_connection(sock=near))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.attempts += 1
        await super().serve(reader, writer)

    async def close(self) -> None:
        self.end_silence()
        self.hang_up()
        await super().close()
        self._reserved.close()

    def asked(self, statements: Sequence[str]) -> Break | None:
        """Note what is asked, and give the break that it springs."""
        self.statements.extend(statements)
        for statement in statements:
            for planned in self._breaks:
                if planned.springs_at(statement):
                    return planned
        return None

    async def fallen_silent(self) -> None:
        await self._audible.wait()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_there, there = await asyncio.open_connection(*self._there)
        self._writers.add(there)
        line = _Line(self, reader, writer, from_there, there)
        lanes = [asyncio.create_task(line.ask()), asyncio.create_task(line.answer())]
        try:
            await asyncio.wait(lanes, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for lane in lanes:
                lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)
            self._writers.discard(there)
            there.transport.abort()


class _Line:
    """One connection through the wire."""

    def __init__(
        self,
        wire: Wire,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        from_there: asyncio.StreamReader,
        there: asyncio.StreamWriter,
    ) -> None:
        self._wire = wire
        self._reader, self._writer = reader, writer
        self._from_there, self._there = from_there, there
        self._prepared: dict[bytes, str] = {}
        self._bound = b""
        self._passes: int | None = None
        self._is_in = False
        self._done = asyncio.Event()

    async def ask(self) -> None:
        """Carry what the client asks, whole questions at a time."""
        size = await self._reader.readexactly(4)
        self._there.write(size + await self._reader.readexactly(int.from_bytes(size, "big") - 4))
        question, statements = b"", list[str]()
        while True:
            kind, body = await _message(self._reader)
            question += kind + (len(body) + 4).to_bytes(4, "big") + body
            match kind:
                case b"P":
                    name, statement = body.split(b"\0", 2)[:2]
                    self._prepared[name] = statement.decode()
                case b"B":
                    self._bound = body.split(b"\0", 2)[1]
                case b"E":
                    statements.append(self._prepared[self._bound])
                case b"Q":
                    statements.append(body[:-1].decode())
                case _:
                    pass
            if kind in ANSWERED:
                await self._pass(question, statements)
                question, statements = b"", []

    async def answer(self) -> None:
        """Carry what Postgres answers, as far as the client is to have it."""
        while True:
            kind, body = await _message(self._from_there)
            is_end = kind == b"Z"
            if is_end and not self._is_in:
                self._is_in = True
                self._wire.established += 1
            answer = kind + (len(body) + 4).to_bytes(4, "big") + body
            if self._passes is not None:
                answer = answer[: self._passes]
                self._passes -= len(answer)
            if answer:  # a held line has no client left to write to
                self._writer.write(answer)
                await self._writer.drain()
            if is_end and self._passes is not None:
                self._done.set()

    async def _pass(self, question: bytes, statements: Sequence[str]) -> None:
        if self._wire.delay_seconds:
            await asyncio.sleep(self._wire.delay_seconds)  # the fault itself
        planned = self._wire.asked(statements)
        if planned is None:
            self._there.write(question)
            await self._there.drain()
            return
        if planned.moment is not Moment.BEFORE:
            self._passes = SOME_BYTES if planned.moment is Moment.AMID else 0
            await self._do(question)
        planned.then()
        match planned.how:
            case How.CUT:
                pass
            case How.SILENT:
                self._passes = 0
                await self._wire.fallen_silent()
            case How.HELD:
                self._passes = 0
                self._writer.transport.abort()
                await planned.released.wait()
                await self._do(question)
        raise ConnectionAbortedError

    async def _do(self, question: bytes) -> None:
        """Ask, and wait until Postgres has done it."""
        self._there.write(question)
        await self._there.drain()
        await self._done.wait()


def _bound(port: int) -> socket.socket:
    """Bind to a port, beside others of ours; 0 is any."""
    # Its protocol is named so that asyncio switches off Nagle's delays.
    near = socket.socket(proto=socket.IPPROTO_TCP)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    near.bind(("127.0.0.1", port))
    return near


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    return head[:1], await reader.readexactly(int.from_bytes(head[1:], "big") - 4)


@asynccontextmanager
async def faulty_wire(database_url: str) -> AsyncGenerator[Wire]:
    """Lay a wire to a database."""
    wire = Wire(make_url(database_url))
    wire.listen()
    try:
        yield wire
    finally:
        await wire.close()
