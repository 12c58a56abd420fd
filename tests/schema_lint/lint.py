"""graphql-eslint and graphql-inspector over `schema.graphql`. `make check` runs it as a program.

lint(Path("schema.graphql"))        what is not good style
compare(Path("."))                  what has changed since the last release
"""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tests.npm import NoNode, install

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
RUN_SECONDS = 120


class Verdict(NamedTuple):
    """What was found, for people."""

    passed: bool
    text: str


def lint(schema: Path) -> Verdict:
    """Check a schema against the rules of `eslint.config.mjs`. Raises `NoNode`."""
    return _run(
        "node_modules/eslint/bin/eslint.js",
        "--stdin",
        "--stdin-filename=schema.graphql",
        read=schema,
        PARLEY_SCHEMA=str(schema.resolve()),
    )


def compare(repository: Path) -> Verdict:
    """Compare a repository's schema with that of its last release, a tag such as `v1.2.0`.

    What breaks clients passes only if the changelog's next release says so. Raises `NoNode`.
    """
    tags = _git(repository, "tag", "--list", "v*", "--merged", "HEAD", "--sort=-v:refname")
    if not tags:
        return Verdict(True, "Nothing is released yet: no tag v* to compare the schema with.\n")
    tag = tags.split()[0]
    with TemporaryDirectory() as folder:
        released = Path(folder, "schema.graphql")
        released.write_text(_git(repository, "show", f"{tag}:schema.graphql"))
        now, changelog = repository / "schema.graphql", repository / "CHANGELOG.md"
        return _run("diff.mjs", *(str(path.resolve()) for path in (released, now, changelog)))


def _git(repository: Path, *arguments: str) -> str:
    # A prerelease comes before its release.
    command = ["git", "-C", str(repository), "-c", "versionsort.suffix=-", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _run(script: str, *arguments: str, read: Path | None = None, **environ: str) -> Verdict:
    node = install(HERE)
    done = subprocess.run(
        [node, script, *arguments],
        cwd=HERE,
        env=os.environ | environ,
        input=read.read_text() if read else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=RUN_SECONDS,
    )
    return Verdict(done.returncode == 0, done.stdout)


def main() -> int:
    try:
        verdicts = [lint(ROOT / "schema.graphql"), compare(ROOT)]
    except NoNode as reason:
        sys.stdout.write(f"The schema is not linted: {reason}.\n")
        return 0
    for verdict in verdicts:
        sys.stdout.write(verdict.text)
    return 0 if all(verdict.passed for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
