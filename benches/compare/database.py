"""The database as the driver sees it: emptied before each run, checked after it; by psql."""

import os
import subprocess
from dataclasses import dataclass

COLUMNS = (
    "user_id",
    "device_type",
    "masked_ip",
    "masked_device_id",
    "locale",
    "app_version",
    "create_date",
)
# What a peer makes that cannot load `user_logins`: see peers/dlt_load.py and peers/faucet.yaml.
DLT_SCHEMA = "dlt_compare"
FAUCET_TABLE = "faucet_logins"

RESET = f"""
    DROP SCHEMA IF EXISTS {DLT_SCHEMA} CASCADE;
    DROP TABLE IF EXISTS {FAUCET_TABLE};
    CREATE TABLE {FAUCET_TABLE} (
        user_id text, device_type text, ip text, device_id text, locale text, app_version text,
        foo text, bar text
    );
    TRUNCATE public.user_logins, pgsluice.segment, pgsluice.message, pgsluice.reject;
"""


class QueryFailedError(Exception):
    """psql did not end with exit code 0; holds what it said."""


class WrongResultError(Exception):
    """A program ended well, and what it did is not what it was given to do."""


@dataclass(frozen=True)
class Content:
    """What a table holds: how many rows, and the sum of their hashes, whatever their order."""

    rows: int
    checksum: int

    def must_be(self, expected: "Content") -> None:
        """A result that is fast and wrong is no result."""
        if self != expected:
            raise WrongResultError(f"wrong result: {self}, expected {expected}")


@dataclass(frozen=True)
class Database:
    """A database that `pgsluice init` has prepared."""

    url: str

    def query(self, sql: str) -> str:
        """Runs statements, each a transaction, and gives their rows, columns apart by `|`."""
        psql = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", self.url]
        done = subprocess.run(psql, input=sql, capture_output=True, check=False, text=True)
        if done.returncode != 0:
            raise QueryFailedError(done.stderr.strip())
        return done.stdout.strip()

    def reset(self) -> None:
        """Empties tables and ledger, and flushes, so that no run pays for the one before it."""
        self.query(f"SET client_min_messages = warning; {RESET} CHECKPOINT;")
        os.sync()

    def content(self, table: str = "user_logins", columns: tuple[str, ...] = COLUMNS) -> Content:
        """What these columns of a table hold, in the rows that are logins."""
        row = f"row({', '.join(columns)})::text"
        rows, checksum = self.query(
            f"SELECT count(*), coalesce(sum(hashtextextended({row}, 0)::numeric), 0) FROM {table}"
            " WHERE user_id IS NOT NULL"
        ).split("|")
        return Content(int(rows), int(checksum))
