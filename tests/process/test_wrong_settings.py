"""What is wrong with a set-up is said in one line that names the setting."""

import socket
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.conftest import cloned
from tests.process.processes import Ended, free_port, run

pytestmark = pytest.mark.asyncio(loop_scope="session")

PASSWORD = "hunter2-never-to-be-shown"


def complaint(ended: Ended) -> str:
    """Give the one line that a refusal consists of."""
    assert ended.code == 1, ended
    assert ended.out == ""
    assert PASSWORD not in ended.err
    [line] = ended.err.splitlines()
    assert line.startswith("parley: ")
    return line


async def refusal(cwd: Path, **settings: str) -> str:
    """Start a server that refuses, and give its complaint."""
    return complaint(await run("serve", cwd=cwd, **({"PORT": str(free_port())} | settings)))


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("PORT", "abc", "integer"),
        ("PORT", "99999", "65535"),
        ("REPLY_LEASE_SECONDS", "-1", "greater than 0"),
        ("AUTO_MIGRATE", "perhaps", "boolean"),
        ("ALLOWED_ORIGINS", "https://good.example, app.example/", "no origin"),
        ("AUTH_JWKS_URL", "issuer.example/jwks", "no web address"),
        ("AUTH_REALM", "anonymous", "mix"),
        ("AUTH_ADMIN_CLAIM", "admin", "name=value"),
        ("HOST", "no.such.host.invalid", "not known"),
        ("DATABASE_URL", PASSWORD, "no URL"),
        ("DATABASE_URL", f"mysql://u:{PASSWORD}@127.0.0.1/d", "Postgres only"),
        ("DATABASE_URL", f"postgresql://u:{PASSWORD}@127.0.0.1", "names no database"),
        ("DATABASE_URL", f"postgresql://u:{PASSWORD}@127.0.0.1:port/d", "no URL"),
        ("DATABASE_URL", f"postgresql://u:{PASSWORD}@127.0.0.1/d?sslmode=on", "sslmode"),
        ("DATABASE_URL", f"postgresql://u:{PASSWORD}@127.0.0.1:1/d", "can't connect"),
        ("DATABASE_URL", f"postgresql://u:{PASSWORD}@no.such.host.invalid/d", "can't connect"),
        ("NEON_DATABASE_URL", f"postgresql://u:{PASSWORD}@127.0.0.1:1/d", "can't connect"),
    ],
)
async def test_is_named(name: str, value: str, why: str, tmp_path: Path):
    line = await refusal(tmp_path, **{name: value})
    assert name.removeprefix("NEON_") in line
    assert why in line


async def test_keys_without_an_issuer_are_refused(tmp_path: Path):
    line = await refusal(tmp_path, AUTH_JWKS_URL="https://issuer.example/jwks")
    assert line.startswith("parley: AUTH_ISSUER: ")


async def test_a_wrong_password_is_named_and_not_shown(postgres_url: str, tmp_path: Path):
    user, _, place = postgres_url.partition("@")
    url = f"{user.rpartition(':')[0]}:{PASSWORD}@{place}"
    line = await refusal(tmp_path, DATABASE_URL=url)
    assert "DATABASE_URL" in line
    assert "password" in line


async def test_a_database_that_is_not_there_is_named(postgres_url: str, tmp_path: Path):
    line = await refusal(tmp_path, DATABASE_URL=f"{postgres_url.rpartition('/')[0]}/nowhere")
    assert "DATABASE_URL" in line
    assert "nowhere" in line


@pytest.mark.parametrize(
    "settings",
    [
        {"OPENAI_BASE_URL": "http://127.0.0.1:1/v1", "EMBEDDING_MODEL": "some"},
        {"QDRANT_URL": "http://127.0.0.1:1", "QDRANT_API_KEY": PASSWORD},
    ],
)
async def test_a_service_that_is_away_is_named(
    settings: dict[str, str], postgres_url: str, tmp_path: Path
):
    async with cloned(postgres_url) as url:
        line = await refusal(tmp_path, DATABASE_URL=url, **settings)
    name, _, why = line.removeprefix("parley: ").partition(": ")
    assert name in settings
    assert why


@pytest.fixture
def busy_port() -> Generator[int]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


async def test_a_busy_port_is_named(busy_port: int, tmp_path: Path):
    line = await refusal(tmp_path, PORT=str(busy_port))
    assert "PORT" in line
    assert str(busy_port) in line
    assert "in use" in line


@pytest.mark.parametrize("command", ["serve", "migrate"])
async def test_a_data_folder_that_cannot_be_made_is_named(command: str, tmp_path: Path):
    (tmp_path / "file").touch()
    line = complaint(await run(command, cwd=tmp_path, DATA_DIR="file/data", PORT=str(free_port())))
    assert "DATA_DIR" in line
    assert "file/data" in line


async def test_settings_in_a_dot_env_of_the_working_folder_count(tmp_path: Path):
    (tmp_path / ".env").write_text("REPLY_LEASE_SECONDS=soon\n")
    assert "REPLY_LEASE_SECONDS" in await refusal(tmp_path)


@pytest.mark.parametrize("rate", ["often", "600/minute;10/second", "0/minute"])
async def test_a_rate_that_is_none_is_named(rate: str, tmp_path: Path):
    line = await refusal(tmp_path, RATE_LIMIT=rate)
    assert line.startswith("parley: RATE_LIMIT: ")
    assert rate in line
