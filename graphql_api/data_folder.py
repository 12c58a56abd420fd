"""The data folder: one Parley at a time, and a word to the one that has it.

The embedded vector store belongs to one process, so the folder does: whoever works in it
holds its lock. A command line beside a running server leaves its work in Postgres and
knocks; the server looks for work that was left.
"""

import os
import signal
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

KNOCK = signal.SIGUSR1


class DataFolderUnusable(Exception):
    """The folder can't be made or written; the message is one line."""


class DataFolderInUse(Exception):
    """Another Parley works in the folder. `holder` is its process id, if it said so."""

    def __init__(self, folder: Path, holder: int | None, *, serves: bool = False) -> None:
        self.holder = holder
        self.serves = serves
        who = f" (process {holder})" if holder else ""
        super().__init__(f"another Parley{who} is using {folder}; stop it, or set DATA_DIR")


class DataFolder:
    """A data folder, held for as long as the `with` block runs.

    Raises `DataFolderInUse` and `DataFolderUnusable` on the way in.
    """

    def __init__(self, folder: Path, purpose: str = "serve") -> None:
        self.path = folder
        self._purpose = purpose
        self._lock = FileLock(folder / "parley.lock")
        self._holder = folder / "parley.pid"

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(blocking=False)
            signal.signal(KNOCK, signal.SIG_IGN)  # by default it would end us
            self._holder.write_text(f"{os.getpid()} {self._purpose}")
        except Timeout:
            raise self._in_use() from None
        except OSError as error:
            raise DataFolderUnusable(
                f"DATA_DIR {self.path} can't be used: {error.strerror or error}"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.unlink(missing_ok=True)
        self._lock.release()

    def refuse_if_held(self) -> None:
        """Raise `DataFolderInUse` where another Parley has the folder."""
        if not self.path.is_dir():
            return
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise self._in_use() from None
        self._lock.release()

    def _in_use(self) -> DataFolderInUse:
        try:
            pid, purpose = self._holder.read_text().split()
            return DataFolderInUse(self.path, int(pid), serves=purpose == "serve")
        except (OSError, ValueError):
            return DataFolderInUse(self.path, None)


def knock(holder: int) -> bool:
    """Tell the server that holds the folder that work was left for it. False: it can't hear."""
    try:
        os.kill(holder, KNOCK)
    except OSError:
        return False
    return True
