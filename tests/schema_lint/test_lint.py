"""The schema is good style, and changes only as clients can bear."""

import subprocess
from pathlib import Path

import pytest

from tests.npm import NoNode, install
from tests.schema_lint.lint import HERE, ROOT, compare, lint

RELEASED = """
"What can be read."
type Query {
  "A greeting."
  hello: String
  "An older greeting."
  hi: String @deprecated(reason: "Say hello.")
}
"""
CHANGELOG = (
    "# Changelog\n\n## [Unreleased]\n\n### Added\n- This.\n\n## [1.0.0]\n\n### Breaking\n- That.\n"
)


@pytest.fixture(scope="session", autouse=True)
def node() -> str:
    try:
        return install(HERE)
    except NoNode as reason:
        pytest.skip(str(reason))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit, and no release."""
    git(tmp_path, "init", "--quiet")
    commit(tmp_path, RELEASED)
    return tmp_path


@pytest.fixture
def released(repository: Path) -> Path:
    """A repository whose only commit is released."""
    git(repository, "tag", "v1.0.0")
    return repository


def git(repository: Path, *arguments: str) -> None:
    someone = ("-c", "user.name=Ann", "-c", "user.email=ann@example.com")
    subprocess.run(["git", "-C", repository, *someone, *arguments], check=True, capture_output=True)


def commit(repository: Path, schema: str, changelog: str = CHANGELOG) -> None:
    (repository / "schema.graphql").write_text(schema)
    (repository / "CHANGELOG.md").write_text(changelog)
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--message=A change")


def test_the_schema_is_good_style():
    assert lint(ROOT / "schema.graphql") == (True, "")


def test_what_is_not_described_is_found(tmp_path: Path):
    schema = tmp_path / "schema.graphql"
    schema.write_text(RELEASED.replace('"A greeting."', ""))
    verdict = lint(schema)
    assert not verdict.passed
    assert 'Description is required for field "hello"' in verdict.text


def test_a_node_of_an_edge_must_be_a_node(tmp_path: Path):
    schema = tmp_path / "schema.graphql"
    text = (ROOT / "schema.graphql").read_text()
    schema.write_text(text.replace("type Document implements Node", "type Document"))
    assert "must implement `Node` interface" in lint(schema).text


def test_before_the_first_release_there_is_nothing_to_compare_with(repository: Path):
    verdict = compare(repository)
    assert verdict.passed
    assert verdict.text.startswith("Nothing is released yet")


def test_a_new_field_may_come(released: Path):
    commit(released, RELEASED.replace("hello:", 'bye: String\n  "The same."\n  hello:'))
    verdict = compare(released)
    assert verdict.passed
    assert "Query.bye" in verdict.text or "'bye'" in verdict.text


def test_a_field_that_goes_breaks_clients(released: Path):
    commit(released, RELEASED.replace("hello:", "good_day:"))
    verdict = compare(released)
    assert not verdict.passed
    assert "BREAKING     Field 'hello' was removed" in verdict.text


def test_a_break_that_the_changelog_names_passes(released: Path):
    named = CHANGELOG.replace("### Added\n", "### Breaking\n- `hello` is gone.\n\n### Added\n", 1)
    commit(released, RELEASED.replace("hello:", "good_day:"), named)
    assert compare(released).passed


def test_a_field_that_was_deprecated_may_go(released: Path):
    commit(released, RELEASED[: RELEASED.index('  "An older')] + "}\n")
    verdict = compare(released)
    assert verdict.passed
    assert "Field 'hi' (deprecated) was removed" in verdict.text


def test_the_last_release_is_what_counts(released: Path):
    commit(released, RELEASED.replace("hello:", "good_day:"))
    git(released, "tag", "v1.10.0-rc.1")
    git(released, "tag", "v1.10.0")
    git(released, "tag", "v1.9.0", "v1.0.0")
    assert compare(released) == (True, "")
