"""As whom the embedded Postgres runs.

Postgres refuses to run as root. When Parley is root, its Postgres therefore runs as the
user who owns the data, at first `nobody`. That user often can't reach the data folder or
the programs (`/root` and pytest's folders are 0700), and the permissions of those parents
are not ours to change. Then, and only then, Postgres gets one capability that lets it
pass: it is still not root, and only Parley has its password.
"""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

CAPABILITIES = ("dac_read_search", "dac_override")
"The weaker first. Docker grants only the second one by default."

ENVIRONMENT = {"LC_ALL": "C", "PATH": os.defpath}
"Nothing of Parley's own environment, which holds keys; messages in English, for they are read."


class _User(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class Account:
    """A way to start programs: as ourselves, or, when we are root, as somebody else."""

    owner: tuple[int, int] | None = None
    "The user and group whom the data belongs to; null if we are not root: then it is us."
    prefix: tuple[str, ...] = ()
    user: _User = field(default_factory=_User)

    def popen(
        self, *command: str | Path, stdin: int = subprocess.DEVNULL, output: int = subprocess.PIPE
    ) -> subprocess.Popen[str]:
        """Start a program in a session of its own, so that the terminal's Ctrl-C isn't for it."""
        return subprocess.Popen(
            [*self.prefix, *map(str, command)],
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd="/",
            env=ENVIRONMENT,
            start_new_session=True,
            **self.user,
        )

    def run(self, *command: str | Path, stdin: str | None = None) -> tuple[int, str]:
        """Give the exit status and all output of a program."""
        with self.popen(*command, stdin=subprocess.PIPE) as process:
            try:
                output, _ = process.communicate(stdin)
            except BaseException:
                process.terminate()
                raise
        return process.returncode, output

    def can_use(self, folder: Path, program: Path) -> bool:
        """Try it: the kernel knows of access lists and mounts as well.

        `test -x` won't do: access(2) leaves capabilities out of account.
        """
        try:
            status, _ = self.run("sh", "-c", 'cd "$1" && "$2" --version', "sh", folder, program)
        except (OSError, subprocess.SubprocessError):
            return False
        return status == 0

    def give(self, path: Path) -> None:
        """Make the user the owner of a file, or of a folder and all that is in it."""
        if self.owner is not None:
            for each in (path, *path.rglob("*")):
                os.chown(each, *self.owner, follow_symlinks=False)


def account_for(folder: Path, data: Path, program: Path) -> Account | None:
    """Choose the account which can run `program` in `folder` with the least privilege, if any."""
    if os.geteuid() != 0:
        return Account()
    return next((each for each in _accounts(data) if each.can_use(folder, program)), None)


def _accounts(data: Path) -> Iterator[Account]:
    try:
        uid, gid = _owner_of(data)
    except KeyError:  # there is no user `nobody`
        return
    yield Account((uid, gid), user={"user": uid, "group": gid, "extra_groups": []})
    if setpriv := shutil.which("setpriv"):
        become = (setpriv, f"--reuid={uid}", f"--regid={gid}", "--clear-groups")
        for name in CAPABILITIES:
            granted = (f"--inh-caps=+{name}", f"--ambient-caps=+{name}", "--")
            yield Account((uid, gid), prefix=(*become, *granted))


def _owner_of(data: Path) -> tuple[int, int]:
    """Whoever ran Postgres before runs it again, unless that was root (a restored backup)."""
    if data.exists() and (status := data.stat()).st_uid != 0:
        return status.st_uid, status.st_gid
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid
