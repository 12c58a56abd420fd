"""Packages that tests need from npm, in the exact versions of a `package.json`."""

import json
import shutil
import subprocess
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any

from filelock import FileLock

INSTALL_SECONDS = 300
"Compilers for GraphQL and TypeScript come to 290 MB; 25 s on a good line."
COMMAND = "install --no-save --no-package-lock --ignore-scripts --no-audit --no-fund".split()


class NoNode(Exception):
    """The packages can't be had here; the message says why."""


def install(folder: Path) -> str:
    """Have npm install what a folder's `package.json` names, once, and give Node's path."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise NoNode("real JavaScript clients need node and npm")
    wanted: dict[str, Any] = json.loads((folder / "package.json").read_text())
    lock = sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    with FileLock(Path(tempfile.gettempdir()) / f"parley-npm-{lock}.lock"):
        if _installed(folder, wanted["dependencies"]) != wanted["dependencies"]:
            try:
                subprocess.run(
                    [npm, *COMMAND],
                    cwd=folder,
                    check=True,
                    capture_output=True,
                    text=True,
                    timeout=INSTALL_SECONDS,
                )
            except subprocess.CalledProcessError as error:
                raise NoNode(f"npm install failed: {error.stderr.strip()[-300:]}") from error
            except subprocess.TimeoutExpired as error:
                raise NoNode(f"npm install took over {INSTALL_SECONDS} s") from error
    return node


def _installed(folder: Path, wanted: dict[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in wanted:
        package = folder / "node_modules" / name / "package.json"
        if package.exists():
            found[name] = json.loads(package.read_text())["version"]
    return found
