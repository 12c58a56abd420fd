"""The image is built from all that a wheel is built from. No Docker is needed to see that."""

import re
import tomllib
from pathlib import Path

from tests.test_wheel import PACKAGES

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
LET_IN = {
    line.removeprefix("!").rstrip("/")
    for line in (ROOT / ".dockerignore").read_text().splitlines()
    if line.startswith("!")
}


def test_what_the_wheel_is_built_from_is_let_in():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    named = {project["project"]["readme"], *project["project"]["license-files"]}
    assert LET_IN == {*PACKAGES, *included, *named, "pyproject.toml", "requirements.txt"}


def test_what_is_let_in_is_there():
    assert [name for name in LET_IN if not (ROOT / name).exists()] == []


def test_its_python_is_one_that_the_project_takes():
    [minor] = set(re.findall(r"^FROM python:3\.(\d+)", DOCKERFILE, re.MULTILINE))
    assert int(minor) >= 11
