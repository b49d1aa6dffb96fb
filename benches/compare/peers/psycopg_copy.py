"""Loads spool files with psycopg 3: one pass, one COPY and one transaction a file.

usage: psycopg_copy.py SPOOL_FILE…
"""

import os
import sys
from pathlib import Path

import psycopg
from login import COLUMNS, NotALoginError, login
from spool_file import messages


def load(connection: psycopg.Connection, spool_file: Path) -> None:
    """Commits all logins of a file, or none."""
    with (
        connection.transaction(),
        connection.cursor() as cursor,
        cursor.copy(f"COPY user_logins ({COLUMNS}) FROM STDIN") as copy,
    ):
        for message in messages(spool_file):
            try:
                copy.write_row(login(message["body"], message["sent_at"]))
            except NotALoginError as error:
                print(f"{message['message_id']}: {error}", file=sys.stderr)


def main() -> None:
    """All files, one after the other."""
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        for spool_file in sys.argv[1:]:
            load(connection, Path(spool_file))


if __name__ == "__main__":
    main()
