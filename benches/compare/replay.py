"""(b) Replay: spooled messages into rows; and the transform alone."""

import functools
import os
import zlib
from collections.abc import Iterable
from pathlib import Path

import measure
from bench import Bench
from contender import Contender, Group, Wanted
from database import DLT_SCHEMA, Content
from dataset import chunks_in
from load import into_user_logins, psql_contender, reference
from measure import Arguments, Usage

PSYCOPG_ROWS = 400_000
DLT_ROWS = 200_000


def replay(bench: Bench) -> Group:
    """The contenders of the whole replay, and what is wanted of them."""
    rows = bench.dataset.rows
    psycopg_rows = bench.dataset.slice_rows(PSYCOPG_ROWS)
    dlt_rows = bench.dataset.slice_rows(DLT_ROWS)
    psql = psql_contender(bench)
    message, segment = "pgsluice replay, dedupe = message", "pgsluice replay, dedupe = segment"
    script, dlt = "script: psycopg 3, COPY", "dlt"
    return Group(
        name="b",
        title="Replay: spooled messages, masked, into an empty table",
        unit="rows",
        base=psql.name,
        contenders=[
            Contender(psql.name, rows, psql.run, "only loads: the chunks are ready"),
            Contender(segment, rows, lambda: run_replay(bench, "segment"), "two connections"),
            Contender(message, rows, lambda: run_replay(bench, "message"), "two connections"),
            Contender(script, psycopg_rows, lambda: run_psycopg(bench, psycopg_rows), "no dedupe"),
            Contender(dlt, dlt_rows, lambda: run_dlt(bench, dlt_rows), "no dedupe"),
        ],
        wanted=[
            Wanted(segment, psql.name, 0.70),
            Wanted(message, psql.name, 0.40),
            Wanted(message, script, 15),
            Wanted(message, dlt, 40),
        ],
    )


def transform(bench: Bench) -> Group:
    """The contenders of the transform alone."""
    rows = bench.dataset.rows
    return Group(
        name="b, transform alone",
        title="Transform: spooled messages into CSV files",
        unit="rows",
        base="DuckDB",
        contenders=[
            Contender("DuckDB", rows, lambda: run_duckdb(bench), "no masking: it has no AES"),
            Contender(
                "pgsluice transform, unmasked",
                rows,
                lambda: run_transform(bench, "unmasked"),
                "each file flushed to disk",
            ),
            Contender(
                "pgsluice transform",
                rows,
                lambda: run_transform(bench, "message"),
                "two columns masked, each file flushed to disk",
            ),
        ],
        wanted=[],
    )


def run_replay(bench: Bench, dedupe: str) -> Usage:
    """`pgsluice replay` of the whole spool."""
    staging = bench.dataset.staging_with_spool()
    arguments: Arguments = [bench.programs.pgsluice, "replay", "--quiet", "--staging-dir", staging]
    return into_user_logins(bench, bench.dataset.rows, arguments, bench.environment(dedupe))


def run_psycopg(bench: Bench, rows: int) -> Usage:
    """The script on the first segments."""
    arguments: Arguments = [
        *bench.programs.peer("psycopg_copy.py"),
        *bench.dataset.spool_files(rows),
    ]
    return into_user_logins(bench, rows, arguments, bench.environment())


def run_dlt(bench: Bench, rows: int) -> Usage:
    """The program dlt on the first segments, into a table that it makes itself."""
    expected = reference(bench, rows)
    arguments: Arguments = [
        *bench.programs.peer("dlt_load.py"),
        DLT_SCHEMA,
        bench.dataset.scratch(),
    ]
    arguments += bench.dataset.spool_files(rows)
    bench.database.reset()
    usage = measure.run(arguments, bench.environment())
    bench.database.content(f"{DLT_SCHEMA}.user_logins").must_be(expected)
    return usage


def run_transform(bench: Bench, config: str) -> Usage:
    """`pgsluice transform` of the whole spool."""
    expected = masked_csv(bench) if config == "message" else unmasked_csv(bench)
    staging = bench.dataset.staging_with_spool()
    arguments: Arguments = [
        bench.programs.pgsluice,
        "transform",
        "--quiet",
        "--staging-dir",
        staging,
    ]
    os.sync()
    usage = measure.run(arguments, bench.environment(config))
    csv_content(chunks_in(staging)).must_be(expected)
    return usage


def run_duckdb(bench: Bench) -> Usage:
    """The same by DuckDB, into one file."""
    expected = unmasked_csv(bench)
    os.sync()
    usage, csv_file = duckdb(bench)
    csv_content([csv_file]).must_be(expected)
    return usage


def duckdb(bench: Bench) -> tuple[Usage, Path]:
    """Runs DuckDB, and tells where its rows are."""
    spool, csv_file = bench.dataset.original / "spool", bench.dataset.scratch() / "logins.csv"
    arguments: Arguments = [*bench.programs.peer("duckdb_transform.py"), spool, csv_file]
    return measure.run(arguments, {}), csv_file


@functools.cache
def masked_csv(bench: Bench) -> Content:
    """What the whole spool must become: the chunks, whose rows the replay's peers confirm."""
    return csv_content(bench.dataset.chunks(bench.dataset.rows))


@functools.cache
def unmasked_csv(bench: Bench) -> Content:
    """The same with nothing masked: what DuckDB makes of it."""
    _, csv_file = duckdb(bench)
    return csv_content([csv_file])


def csv_content(files: Iterable[Path]) -> Content:
    """What CSV files hold, in which the order of lines does not matter."""
    rows = checksum = 0
    for file in files:
        with file.open("rb") as lines:
            for line in lines:
                rows += 1
                checksum += zlib.crc32(line)
    return Content(rows, checksum)
