"""`parley ingest`: alone on a folder, beside a server, and what it says when it can't."""

import asyncio
import signal
from collections.abc import AsyncGenerator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from uuid import uuid4

import docx
import psutil
import pytest
import pytest_asyncio
from fpdf import FPDF
from sqlalchemy import text

from db.engine import Database
from db.urls import parse_url
from db.users import ensure_user
from graphql_api.auth import subject_viewer
from tests.conftest import cloned
from tests.openai_server import Silence, openai_server
from tests.process.conversation import documents, search
from tests.process.processes import (
    Command,
    Ended,
    Server,
    free_port,
    postgres_url,
    postmaster,
    run,
    served,
    stop_postgres,
    until,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")


def as_pdf(line: str) -> bytes:
    pdf = FPDF()
    pdf.set_font("Helvetica", size=12)
    pdf.add_page()
    pdf.multi_cell(0, text=line)
    return bytes(pdf.output())


def as_docx(line: str) -> bytes:
    document = docx.Document()
    document.add_paragraph(line)
    document.save(file := BytesIO())
    return file.getvalue()


PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
FILES = {
    "ants.md": b"# Ants\n\nAnts herd aphids.",
    "bees.markdown": b"# Bees\n\nBees dance directions.",
    "cats.txt": b"Cats purr at 26 hertz.",
    "dogs.text": b"Dogs smell in stereo.",
    "emus.html": b"<html><title>Emus</title><body><p>Emus outran machine guns.</body></html>",
    "frogs.htm": b"<html><title>Frogs</title><body><p>Frogs swallow with their eyes.</body></html>",
    "geese.pdf": as_pdf("Geese fly in a wedge."),
    "deep/down/hens.docx": as_docx("Hens talk to their eggs."),
    "SHOUTED.MD": b"# Shouted\n\nIguanas have a third eye.",
}
SKIPPED = {
    ".hidden.md": b"# Hidden",
    ".git/config.md": b"# Hidden as well",
    "deep/.cache/page.html": b"<p>Hidden as well",
    "picture.png": PNG,
}


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def summary(ended: Ended) -> str:
    return ended.out.splitlines()[-1]


# --- alone ----------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shelf(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Path]:
    """A folder with `notes`, which have been ingested into the `data` beside it."""
    shelf = tmp_path_factory.mktemp("shelf")
    fill(shelf / "notes", FILES | SKIPPED)
    try:
        ended = await run("ingest", "notes", cwd=shelf, DATA_DIR="data")
        assert ended.code == 0, ended
        assert summary(ended) == f"{len(FILES)} added, 0 unchanged, 0 failed"
        assert postmaster(shelf / "data") is None
        yield shelf
    finally:
        stop_postgres(shelf / "data")


async def test_what_is_there_already_is_left_alone(shelf: Path):
    ended = await run("ingest", "notes", cwd=shelf, DATA_DIR="data")
    assert ended.code == 0, ended
    assert summary(ended) == f"0 added, {len(FILES)} unchanged, 0 failed"


async def test_a_server_finds_what_was_ingested_before_its_start(shelf: Path):
    async with served(shelf / "data") as server:
        found = await documents(server.person())
        assert found.keys() == {Path(name).name for name in FILES}
        assert {(each["status"], each["visibility"]) for each in found.values()} == {
            ("READY", "SHARED")
        }
        for question, title in (
            ("aphids", "Ants"),
            ("purr", "cats.txt"),
            ("machine guns", "Emus"),
            ("wedge", "geese.pdf"),
            ("eggs", "hens.docx"),
        ):
            assert (await search(server.person(), question))[0] == title


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("missing.md", "No such file"),
        ("empty.md", "empty"),
        ("broken.pdf", "damaged"),
        ("picture.png", "none of them"),
        ("http://127.0.0.1:8000/notes.md", "public internet"),
        ("http://localhost/notes.md", "public internet"),
        ("what [bold]is[/] this.md", "No such file"),
        ("a closing [/bracket.md", "No such file"),
    ],
)
async def test_what_cannot_be_added_is_named_with_the_reason(place: str, why: str, shelf: Path):
    fill(shelf, {"empty.md": b"", "broken.pdf": b"%PDF-1.7 and no more", "picture.png": PNG})
    ended = await run("ingest", place, cwd=shelf, DATA_DIR="data")
    assert ended.code == 1, ended
    assert "Traceback" not in ended.err
    *_, reason, counts = ended.out.splitlines()
    assert reason.startswith(f"failed {place}: ")
    assert why in reason
    assert counts == "0 added, 0 unchanged, 1 failed"


async def test_one_failure_does_not_keep_the_others_out(shelf: Path):
    fill(shelf, {"jays.md": b"# Jays\n\nJays plant oaks."})
    ended = await run("ingest", "missing.md", "jays.md", "notes", cwd=shelf, DATA_DIR="data")
    assert ended.code == 1, ended
    assert summary(ended) == f"1 added, {len(FILES)} unchanged, 1 failed"


async def test_the_same_bytes_twice_are_added_once(shelf: Path):
    twice = fill(shelf / "twice", {"one.md": b"# Koalas", "other.md": b"# Koalas"})
    ended = await run("ingest", str(twice), cwd=shelf, DATA_DIR="data")
    assert ended.code == 0, ended
    assert summary(ended) == "1 added, 1 unchanged, 0 failed"


@pytest.mark.parametrize("key", ["", "me", "00000000-0000-1000-8000-000000000000"])
async def test_a_key_that_is_none_is_refused_in_one_line(key: str, shelf: Path):
    ended = await run("ingest", "notes", "--anonymous-key", key, cwd=shelf, DATA_DIR="data")
    assert ended.code == 1
    [line] = ended.err.splitlines()
    assert line.startswith("parley: ")
    assert "UUID" in line


async def test_a_subject_without_a_realm_is_refused_in_one_line(shelf: Path):
    ended = await run("ingest", "notes", "--subject", "alice", cwd=shelf, DATA_DIR="data")
    assert ended.code == 1
    [line] = ended.err.splitlines()
    assert line.startswith("parley: AUTH_REALM")


async def test_a_subjects_documents_are_theirs(postgres_url: str, shelf: Path, tmp_path: Path):
    async with cloned(postgres_url) as url:
        ended = await run(
            *("ingest", str(shelf / "notes" / "ants.md"), "--subject", "alice"),
            cwd=tmp_path,
            DATABASE_URL=url,
            AUTH_REALM="https://issuer.test",
        )
        assert ended.code == 0, ended
        database = Database(parse_url(url))
        owners = await database.rows(text("SELECT owner_id FROM documents"), {})
        await database.close()
        assert [tuple(row) for row in owners] == [
            (subject_viewer("https://issuer.test", "alice").user_id,)
        ]


async def test_a_user_is_found_by_their_address(postgres_url: str, shelf: Path, tmp_path: Path):
    async with cloned(postgres_url) as url:
        database = Database(parse_url(url))
        ann = replace(subject_viewer("https://issuer.test", "ann"), email="Ann@Example.org")
        twins = [
            replace(subject_viewer("https://issuer.test", name), email="twin@example.org")
            for name in ("castor", "pollux")
        ]
        async with database.transaction() as transaction:
            for viewer in (ann, *twins):
                await ensure_user(viewer, transaction)

        async def ingest(email: str) -> Ended:
            document = str(shelf / "notes" / "ants.md")
            return await run("ingest", document, "--email", email, cwd=tmp_path, DATABASE_URL=url)

        assert (await ingest("ann@example.org")).code == 0
        owners = await database.rows(text("SELECT owner_id FROM documents"), {})
        assert [tuple(row) for row in owners] == [(ann.user_id,)]
        for email, why in (("nobody@example.org", "No user"), ("twin@example.org", "2 users")):
            refused = await ingest(email)
            assert refused.code == 2
            assert why in refused.err
        await database.close()


async def test_ctrl_c_breaks_it_off_and_the_next_one_goes_on(tmp_path: Path):
    many = fill(tmp_path / "many", {f"{n}.md": f"# {n}\n".encode() * 10_000 for n in range(8)})
    settings = {"DATA_DIR": "data"}
    command = Command("ingest", str(many), cwd=tmp_path, settings=settings)
    try:
        await until_some_document_is(tmp_path / "data")
        command.press_ctrl_c()
        ended = await command.ended()
        assert ended.code == 130, ended
        assert "Traceback" not in ended.err
        assert postmaster(tmp_path / "data") is None
        again = await Command("ingest", str(many), cwd=tmp_path, settings=settings).ended(30)
        assert again.code == 0, again
        assert summary(again).endswith("0 failed")
    finally:
        await command.clean_up()
        stop_postgres(tmp_path / "data")


async def until_some_document_is(data_dir: Path, status: str = "%") -> None:
    """Wait until the Postgres of a folder has a document (of that status)."""
    database: Database | None = None

    async def count() -> int:
        nonlocal database
        if database is None:
            url = await asyncio.to_thread(postgres_url, data_dir)
            database = Database(parse_url(url), pool_size=1) if url else None
        if database is None:
            return 0
        there = text("SELECT to_regclass('documents') IS NOT NULL")
        some = text("SELECT count(*) FROM documents WHERE ingestion_status LIKE :status")
        if not (await database.rows(there, {}))[0][0]:
            return 0
        return (await database.rows(some, {"status": status}))[0][0]

    try:
        await until(count, bool)
    finally:
        if database:
            await database.close()


# --- beside another -------------------------------------------------------------------


async def test_beside_a_server_the_server_reads_thirty_files(server: Server, tmp_path: Path):
    many = {f"{n}.md": f"# Moth {n}\n\nMoth number{n} hums.".encode() for n in range(30)}
    person = server.person()
    ended = await run(
        *("ingest", str(fill(tmp_path / "moths", many)), "missing.md"),
        cwd=tmp_path,
        DATA_DIR=str(server.data_dir),
    )
    assert ended.code == 1, ended
    assert f"process {server.pid}" in ended.out
    assert summary(ended) == "30 added, 0 unchanged, 1 failed"
    for n in (0, 29):
        assert (await search(person, f"number{n}"))[0] == f"Moth {n}"


async def test_documents_for_a_key_are_that_visitors_alone(server: Server, tmp_path: Path):
    owner, stranger = server.person(str(uuid4())), server.person()
    fill(tmp_path, {"secret.md": b"# Secret\n\nThe newts meet at noon."})
    ended = await run(
        *("ingest", "secret.md", "--anonymous-key", owner.key.upper()),
        cwd=tmp_path,
        DATA_DIR=str(server.data_dir),
    )
    assert ended.code == 0, ended
    assert (await documents(owner))["secret.md"]["visibility"] == "PRIVATE"
    assert "Secret" in await search(owner, "newts at noon")
    assert "secret.md" not in await documents(stranger)
    assert "Secret" not in await search(stranger, "newts at noon")


async def test_a_server_that_is_starting_still_is_not_harmed(tmp_path: Path):
    silence = Silence()
    fill(tmp_path, {"owls.md": b"# Owls"})
    async with openai_server() as openai:
        openai.script(silence, to="embeddings")
        starting = Command(
            "serve",
            cwd=tmp_path,
            settings={
                "DATA_DIR": "data",
                "PORT": str(free_port()),
                "OPENAI_BASE_URL": openai.url,
                "EMBEDDING_MODEL": "that-is-silent",
            },
        )
        ingest = None
        try:
            await asyncio.wait_for(silence.asked.wait(), 60)
            ingest = Command("ingest", "owls.md", cwd=tmp_path, settings={"DATA_DIR": "data"})
            await until_some_document_is(tmp_path / "data")
            ingest.press_ctrl_c()
            await ingest.ended()
            assert starting.code is None, f"it ended with {starting.code}: {starting.err()}"
        finally:
            for command in filter(None, (ingest, starting)):
                await command.clean_up()
            stop_postgres(tmp_path / "data")


async def test_two_at_once_on_one_folder_both_succeed(tmp_path: Path):
    large = fill(tmp_path / "large", {f"{n}.md": f"# {n}\n".encode() * 20_000 for n in range(6)})
    small = fill(tmp_path / "small", {"pike.md": b"# Pike"})
    settings = {"DATA_DIR": "data"}
    first = Command("ingest", str(large), cwd=tmp_path, settings=settings)
    try:
        await until_some_document_is(tmp_path / "data")
        second = await Command("ingest", str(small), cwd=tmp_path, settings=settings).ended(30)
        ended = await first.ended()
        assert ended.code == 0, ended
        assert summary(ended) == "6 added, 0 unchanged, 0 failed"
        assert second.code == 0, second
        assert summary(second) == "1 added, 0 unchanged, 0 failed"
    finally:
        await first.clean_up()
        stop_postgres(tmp_path / "data")


async def test_beside_a_server_that_dies_it_does_not_wait_for_ever(tmp_path: Path):
    large = fill(tmp_path / "large", {"0.md": b"# A line\n\nand another.\n" * 200_000})
    async with served(tmp_path / "data") as server:
        ingest = Command("ingest", str(large), cwd=tmp_path, settings={"DATA_DIR": "data"})
        try:
            await until_some_document_is(tmp_path / "data", "PROCESSING")
            await server.kill()
            ended = await ingest.ended(10)
        finally:
            await ingest.clean_up()
        assert ended.code == 1, ended
        assert "Traceback" not in ended.err


async def test_a_killed_server_of_long_ago_is_no_neighbour(shelf: Path):
    stranger = psutil.Popen(["sleep", "60"])
    try:
        (shelf / "data" / "parley.pid").write_text(str(stranger.pid))
        ended = await run("ingest", "notes", cwd=shelf, DATA_DIR="data")
        assert ended.code == 0, ended
        assert stranger.poll() is None
    finally:
        stranger.send_signal(signal.SIGKILL)
        stranger.wait()
