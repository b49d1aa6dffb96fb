"""The data of a comparison: a spool and its ready chunks, and cheap copies of them for each run.

Copies are hard links: pgsluice never changes a complete file, so a copy that is worked on leaves
the original alone.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SEGMENT_MESSAGES = 20_000


@dataclass(frozen=True)
class Dataset:
    """Spooled logins in segments of `SEGMENT_MESSAGES`, and their chunks."""

    root: Path
    rows: int

    @property
    def original(self) -> Path:
        """The staging directory with spool and chunks that nothing may change."""
        return self.root / "original"

    def slice_rows(self, most: int) -> int:
        """The rows of the whole segments that hold no more than this in all; of one at least."""
        return min(self.rows, max(most // SEGMENT_MESSAGES, 1) * SEGMENT_MESSAGES)

    def spool_files(self, rows: int) -> list[Path]:
        """The segments that hold the first rows."""
        return self._first(rows, sorted((self.original / "spool").glob("*.ndjson")))

    def chunks(self, rows: int) -> list[Path]:
        """The chunks that hold the first rows."""
        return self._first(rows, chunks_in(self.original))

    def staging_with_spool(self) -> Path:
        """A staging directory as a drain leaves it."""
        return self._staging({"spool": self.spool_files(self.rows)})

    def staging_with_chunks(self) -> Path:
        """A staging directory as a transform leaves it."""
        chunks = self.chunks(self.rows)
        parts = [part for chunk in chunks for part in chunk.parent.glob(f"{chunk.stem}.*")]
        return self._staging({"spool": self.spool_files(self.rows), "chunks": parts})

    def directory_of_chunks(self, rows: int) -> Path:
        """A directory with the chunks that hold the first rows, and nothing else."""
        return self._staging({"chunks": self.chunks(rows)}) / "chunks"

    def scratch(self) -> Path:
        """An empty directory; the one before it is removed."""
        scratch = self.root / "run"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700)
        return scratch

    def _staging(self, parts: Mapping[str, list[Path]]) -> Path:
        staging = self.scratch()
        for part, files in parts.items():
            (staging / part).mkdir(mode=0o700)
            for file in files:
                os.link(file, staging / part / file.name)
        return staging

    @staticmethod
    def _first(rows: int, files: list[Path]) -> list[Path]:
        return files[: -(-rows // SEGMENT_MESSAGES)]


@contextmanager
def spooled(
    root: Path, rows: int, spool_logins: Path, pgsluice: Path, environment: Mapping[str, str]
) -> Iterator[Dataset]:
    """Writes a spool and transforms it; removed at the end, as are the files of an earlier one."""
    shutil.rmtree(root, ignore_errors=True)
    dataset = Dataset(root, rows)
    try:
        subprocess.run([spool_logins, dataset.original, str(rows)], check=True)
        subprocess.run(
            [pgsluice, "transform", "--quiet", "--staging-dir", dataset.original],
            env=os.environ | dict(environment),
            check=True,
        )
        yield dataset
    finally:
        shutil.rmtree(root, ignore_errors=True)


def chunks_in(staging: Path) -> list[Path]:
    """The chunks in a staging directory, oldest first."""
    files = (staging / "chunks").glob("*.csv")
    return sorted(file for file in files if not file.name.endswith(".ids.csv"))
