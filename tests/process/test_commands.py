"""What the command line says of itself."""

from pathlib import Path

import pytest

from tests.process.processes import Command, run

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOT = Path(__file__).parents[2]


async def test_the_installed_script_prints_the_schema_that_is_checked_in(tmp_path: Path):
    ended = await Command("schema", cwd=tmp_path, settings={}, script=True).ended()
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (ROOT / "schema.graphql").read_text()


async def test_the_schema_needs_no_settings(tmp_path: Path):
    assert (await run("schema", cwd=tmp_path, PORT="abc")).code == 0


async def test_help_names_the_commands_and_where_settings_come_from(tmp_path: Path):
    ended = await run("--help", cwd=tmp_path)
    assert (ended.code, ended.err) == (0, "")
    for needed in ("serve", "migrate", "ingest", "schema", "environment", ".env"):
        assert needed in ended.out


@pytest.mark.parametrize(
    ("command", "needed"),
    [
        ("serve", ["DATABASE_URL", "DATA_DIR"]),
        ("migrate", ["schema"]),
        ("ingest", ["PATH_OR_URL", "PDF", "--anonymous-key", "X-Session-ID", "AUTH_REALM"]),
    ],
)
async def test_help_of_a_command_says_what_it_needs(
    command: str, needed: list[str], tmp_path: Path
):
    ended = await run(command, "--help", cwd=tmp_path)
    assert (ended.code, ended.err) == (0, "")
    for each in needed:
        assert each in ended.out


@pytest.mark.parametrize(
    "arguments",
    [
        ("sevre",),
        ("serve", "extra"),
        ("ingest",),
        ("ingest", "--anonymous-key", "a", "--subject", "b", "notes.md"),
    ],
)
async def test_what_is_no_command_is_a_usage_error(arguments: tuple[str, ...], tmp_path: Path):
    ended = await run(*arguments, cwd=tmp_path)
    assert ended.code == 2
    assert "Usage: parley" in ended.err
    assert "Traceback" not in ended.err


async def test_the_version_is_known(tmp_path: Path):
    ended = await run("--version", cwd=tmp_path)
    assert (ended.code, ended.err) == (0, "")
