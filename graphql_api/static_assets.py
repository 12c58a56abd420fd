"""Fetch GraphiQL's files with npm into `static/`, where they are served from.

Run by `make assets`. Where there is no npm, browsers fetch the same files from a CDN.
Works before the virtual environment is made: it needs Python's own library alone.
"""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

STATIC = Path(__file__).parent / "static"
FILES = {
    "react@18.2.0": ["umd/react.production.min.js"],
    "react-dom@18.2.0": ["umd/react-dom.production.min.js"],
    "graphiql@3.8.3": ["graphiql.min.js", "graphiql.min.css"],
}
"npm packages and what is taken of them; `graphiql.py` names the same files."


def main() -> int:
    missing = {
        package: paths
        for package, paths in FILES.items()
        if not all((STATIC / Path(path).name).exists() for path in paths)
    }
    if not missing:
        return 0
    npm = shutil.which("npm")
    if npm is None:
        print("No npm here: GraphiQL's files will come from a CDN.")  # noqa: T201
        return 0
    STATIC.mkdir(exist_ok=True)
    for package, paths in missing.items():
        try:
            fetch(npm, package, paths)
        except (subprocess.SubprocessError, OSError, ValueError) as error:
            print(f"GraphiQL's {package} could not be fetched ({error}); a CDN will serve it.")  # noqa: T201
    return 0


def fetch(npm: str, package: str, paths: list[str]) -> None:
    """Unpack some files of a package into `STATIC`."""
    with TemporaryDirectory() as folder:
        pack = [npm, "pack", package, "--pack-destination", folder]
        subprocess.run(pack, check=True, capture_output=True, timeout=60)
        [packed] = Path(folder).glob("*.tgz")
        with tarfile.open(packed) as archive:
            for path in paths:
                member = archive.extractfile(f"package/{path}")
                assert member is not None
                (STATIC / Path(path).name).write_bytes(member.read())


if __name__ == "__main__":
    sys.exit(main())
