"""Spool files: one line a message, between a line that says whose the file is and one that seals it."""

import json
from collections.abc import Iterator
from pathlib import Path


def messages(spool_file: Path) -> Iterator[dict]:
    """Body, time and id of each message."""
    with spool_file.open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            if "body" in record:
                yield record
