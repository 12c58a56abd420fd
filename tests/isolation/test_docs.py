"""docs/security.md names tests and files that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
ROWS = [
    row.split("|") for row in PAGE.splitlines() if row.startswith("| ") and "promise" not in row
]
TESTS = sorted(set(re.findall(r"`([\w/]+/test_\w+\.py)(?:::(\w+))?`", PAGE)))


@pytest.mark.parametrize(("path", "name"), TESTS)
def test_every_test_that_is_named_exists(path: str, name: str):
    source = (ROOT / "tests" / path).read_text()
    assert re.search(rf"^(async )?def {name or 'test_'}", source, re.MULTILINE)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1].strip())
def test_every_promise_has_a_test_and_files_that_exist(row: list[str]):
    _, _, enforced, proven, _ = row
    assert re.search(r"`[\w/]+/test_\w+\.py", proven)
    for path in re.findall(r"`(\w+/[\w/]*(?:\.py)?)`", enforced):
        assert (ROOT / path).exists(), path


def test_every_file_of_these_tests_is_named():
    here = {f"isolation/{path.name}" for path in Path(__file__).parent.glob("test_*.py")}
    assert here - {path for path, _ in TESTS} == {"isolation/test_docs.py"}
