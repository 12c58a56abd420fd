"""The Makefile's commands work with what a fresh machine has."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
def test_assets_are_seen_to_by_a_python_that_has_imported_nothing_yet():
    """Some have imported `types` by now, and find ours nowhere; Debian's has not."""
    bare = f"PYTHON={sys.executable} -S"
    made = subprocess.run(["make", "assets", bare], cwd=ROOT, capture_output=True, text=True)
    assert (made.returncode, made.stderr) == (0, "")
