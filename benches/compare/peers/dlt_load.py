"""Loads spool files with dlt, into a schema of its own.

Pages of dictionaries, as dlt recommends for speed; CSV as the format between, which its Postgres destination loads by
COPY; a normalizer a core.

usage: dlt_load.py SCHEMA PIPELINES_DIR SPOOL_FILE…
"""

import json
import os
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

os.environ.update(
    RUNTIME__DLTHUB_TELEMETRY="false",
    RUNTIME__LOG_LEVEL="ERROR",
    # Files of this size let the normalizers share the work.
    DATA_WRITER__FILE_MAX_ITEMS="20000",
    DATA_WRITER__BUFFER_MAX_ITEMS="20000",
    NORMALIZE__WORKERS=str(os.cpu_count()),
)

import dlt  # noqa: E402 - reads its settings from the environment
from login import NotALoginError, login  # noqa: E402

PAGE_ROWS = 5000


def rows(spool_files: list[Path]) -> Iterator[dict]:
    """The logins of all files."""
    for spool_file in spool_files:
        with spool_file.open(encoding="utf-8") as lines:
            for line in lines:
                record = json.loads(line)
                try:
                    yield login(record["body"], record["sent_at"])._asdict()
                except NotALoginError as error:
                    print(f"{record['message_id']}: {error}", file=sys.stderr)


@dlt.resource(name="user_logins", write_disposition="append")
def user_logins(spool_files: list[Path]) -> Iterator[list[dict]]:
    """The same, page by page."""
    remaining = rows(spool_files)
    while page := list(islice(remaining, PAGE_ROWS)):
        yield page


def main() -> None:
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
