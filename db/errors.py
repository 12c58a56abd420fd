"""What can go wrong with the database, as the packages above see it.

DatabaseError
├── DatabaseUnavailable    it can't be reached, or broke off: try again
│   ├── CommitUnknown      it broke off in a commit: nobody knows whether it was done
│   ├── PoolExhausted      all our connections are busy, and stayed so
│   └── ServerFull         the server takes no more connections; those that we have go on
├── TransactionConflict    two transactions got in each other's way: try again
├── DataRefused            it can't hold a value, such as a NUL in a text
├── DatabaseUrlInvalid     the URL can't work, and the message says why (never the password)
├── SchemaMismatch         the schema is not the one this release was written for
└── MigrationRefused       the database does not take a migration, and says why
"""


class DatabaseError(Exception):
    """The database did not do what was asked of it. `setting` names the one that says which."""

    setting = "DATABASE_URL"


class DatabaseUnavailable(DatabaseError):
    """The database can't be reached at the moment.

    `may_pass` is false where waiting won't help: a wrong password, a certificate of another host.
    """

    def __init__(self, reason: str, *, may_pass: bool = True) -> None:
        super().__init__(reason)
        self.may_pass = may_pass


class PoolExhausted(DatabaseUnavailable):
    """All connections of this process were busy for as long as we wait for one."""


class ServerFull(DatabaseUnavailable):
    """The server has no connection left for us, besides those that we have."""


class TransactionConflict(DatabaseError):
    """What others did made it fail, and it was rolled back: a deadlock, a migration meanwhile."""


class CommitUnknown(DatabaseUnavailable):
    """The connection broke in a commit, which may have been done or not."""


class DataRefused(DatabaseError):
    """The database can't hold a value."""


class DatabaseUrlInvalid(DatabaseError):
    """The database URL can't work."""


class MigrationRefused(DatabaseError):
    """The database does not take a migration: a right is missing, or something is in its place."""


class SchemaMismatch(DatabaseError):
    """The database's schema is not the one this release needs."""
