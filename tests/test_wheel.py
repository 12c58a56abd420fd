"""What is distributed is whole: it runs without a checkout beside it."""

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from graphql_api.graphiql import STATIC
from graphql_api.static_assets import FILES

ROOT = Path(__file__).parent.parent
PACKAGES = ["graphql_api", "resolvers", "rag", "db", "migrations"]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    """The wheel, built from what is here; that takes half a second and no network."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [file] = folder.glob("*.whl")
    return ZipFile(file)


def files(folder: str, pattern: str) -> set[str]:
    """Give the names of files here as the wheel would have them."""
    return {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob(pattern)}


@pytest.mark.parametrize("package", PACKAGES)
def test_it_holds_every_module(wheel: ZipFile, package: str):
    assert files(package, "*.py") - set(wheel.namelist()) == set()


def test_it_holds_what_is_no_module(wheel: ZipFile):
    assert {"graphql_api/graphiql.html", "migrations/script.py.mako"} <= set(wheel.namelist())


def test_it_holds_the_documentation(wheel: ZipFile):
    documents = {f"graphql_api/own_{name}" for name in files("docs", "*.md")}
    assert documents - set(wheel.namelist()) == set()


def test_it_holds_graphiqls_files(wheel: ZipFile):
    names = [path.rpartition("/")[2] for each in FILES.values() for path in each]
    if not all((STATIC / name).exists() for name in names):
        pytest.skip("GraphiQL's files are not here: run `make assets`")
    assert {f"graphql_api/static/{name}" for name in names} <= set(wheel.namelist())


def test_it_holds_nothing_else(wheel: ZipFile):
    folders = {name.partition("/")[0] for name in wheel.namelist()}
    assert {name for name in folders if not name.endswith(".dist-info")} == set(PACKAGES)


def test_unpacked_it_finds_its_own_documentation(wheel: ZipFile, tmp_path: Path):
    wheel.extractall(tmp_path)
    tell = "from graphql_api.instance import own_docs; print(*own_docs(), sep='\\n')"
    found = subprocess.run(
        [sys.executable, "-c", tell],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert {Path(path).parents[0].name for path in found} == {"own_docs", "decisions"}
    assert all(path.startswith(str(tmp_path)) for path in found)
