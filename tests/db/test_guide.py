"""The commands of migrations/README.md do what it says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from db.embedded_data import find_programs
from db.engine import Database
from tests.db import schemas
from tests.factories import make_session, make_turn, make_viewer

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "migrations" / "README.md").read_text()
[UP_TO_DATE] = re.findall(r"`(alembic .* upgrade head)`", GUIDE)
DRAFT, BACKFILL, INDEX, INDEX_OF_PARTITIONS = re.findall(r"```bash\n(.*?)```", GUIDE, re.DOTALL)
IS_VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = CAST(:name AS text)::regclass"
NAME = "ix_chat_messages_user_id_created_at"


def run(commands: str, database: Database, folder: Path = ROOT) -> None:
    """Run what a page says, in a shell that stops at the first command which fails."""
    url = database.url.sqlalchemy.set(drivername="postgresql")
    path = os.pathsep.join(map(str, (Path(sys.executable).parent, find_programs())))
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{path}{os.pathsep}{os.environ['PATH']}",
            "URL": url.render_as_string(hide_password=False),
        },
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@schemas.as_migrated
async def test_a_migration_is_drafted(database: Database, tmp_path: Path):
    for package in ("db", "migrations"):
        shutil.copytree(ROOT / package, tmp_path / package)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    models = tmp_path / "db" / "models.py"
    before = "    title: Mapped[str | None]\n"
    models.write_text(models.read_text().replace(before, f"{before}    language{before[9:]}", 1))
    run(f"{UP_TO_DATE}\n{DRAFT}", database, tmp_path)
    [draft] = (tmp_path / "migrations" / "versions").glob("0003_*.py")
    assert 'op.add_column("chat_sessions", sa.Column("language"' in draft.read_text()
    run(UP_TO_DATE, database, tmp_path)
    assert await database.rows(text("SELECT language FROM chat_sessions"), {}) == []


async def test_a_backfill_comes_to_its_end(database: Database):
    owner = make_viewer()
    session = await make_session(database, owner=owner)
    for _ in range(2):
        await make_turn(database, owner=owner, session=session)
    await database.rows(text("ALTER TABLE chat_messages ADD language text"), {})
    assert "LIMIT 1000" in BACKFILL
    run(BACKFILL.replace("LIMIT 1000", "LIMIT 3"), database)
    found = await database.rows(text("SELECT language FROM chat_messages"), {})
    assert [row[0] for row in found] == ["en"] * 4


@pytest.mark.skipif(schemas.PARTITIONED, reason="it is about tables that are whole")
async def test_an_index_is_built_beforehand(database: Database):
    run(INDEX, database)
    assert await database.rows(text(IS_VALID), {"name": NAME}) == [(True,)]


@schemas.as_migrated
async def test_an_index_of_partitions_is_built_beforehand(database: Database):
    await schemas.partition(database)
    run(INDEX_OF_PARTITIONS, database)
    assert await database.rows(text(IS_VALID), {"name": NAME}) == [(True,)]
