"""Loads spool files with dlt, into a schema of its own.

Pages of dictionaries, as dlt recommends for speed; CSV as the format between, not compressed, which
its Postgres destination loads by COPY; a normalizer for each core, and files small enough to share
among them.

usage: dlt_load.py SCHEMA PIPELINES_DIR SPOOL_FILE…
"""

import os
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import dlt
from login import NotALoginError, login
from spool_file import messages

PAGE_ROWS = 5000
FILE_ROWS = 20_000
SETTINGS = {
    "runtime.dlthub_telemetry": False,
    "runtime.log_level": "ERROR",
    "normalize.workers": os.cpu_count(),
    "data_writer.file_max_items": FILE_ROWS,
    "data_writer.buffer_max_items": FILE_ROWS,
    "data_writer.disable_compression": True,
}


def rows(spool_files: list[Path]) -> Iterator[dict]:
    """The logins of all files."""
    for spool_file in spool_files:
        for message in messages(spool_file):
            try:
                yield login(message["body"], message["sent_at"])._asdict()
            except NotALoginError as error:
                print(f"{message['message_id']}: {error}", file=sys.stderr)


@dlt.resource(name="user_logins", write_disposition="append")
def user_logins(spool_files: list[Path]) -> Iterator[list[dict]]:
    """The same, page by page."""
    remaining = rows(spool_files)
    while page := list(islice(remaining, PAGE_ROWS)):
        yield page


def main() -> None:
    """All files in one run of a pipeline."""
    for setting, value in SETTINGS.items():
        dlt.config[setting] = value
    schema, pipelines_dir, *spool_files = sys.argv[1:]
    pipeline = dlt.pipeline(
        "compare",
        pipelines_dir=pipelines_dir,
        destination=dlt.destinations.postgres(os.environ["DATABASE_URL"]),
        dataset_name=schema,
    )
    pipeline.run(user_logins([Path(file) for file in spool_files]), loader_file_format="csv")


if __name__ == "__main__":
    main()
