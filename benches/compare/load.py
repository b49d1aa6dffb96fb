"""(a) Load: chunks that are ready, into a table that is empty."""

import functools
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import measure
from bench import PEERS, Bench
from contender import Contender, Group, Wanted
from database import COLUMNS, Content
from measure import Arguments, Usage

PGLOADER_ROWS = 200_000
PSQL = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1"]


def group(bench: Bench) -> Group:
    """The contenders, and what is wanted of them."""
    rows = bench.dataset.rows
    pgloader_rows = bench.dataset.slice_rows(PGLOADER_ROWS)
    psql = psql_contender(bench)
    segment, message = "pgsluice load, dedupe = segment", "pgsluice load, dedupe = message"
    return Group(
        name="a",
        title="Load: ready chunks into an empty table",
        unit="rows",
        base=psql.name,
        contenders=[
            psql,
            Contender(f"{psql.name}, two sessions", rows, lambda: run_two_psql(bench)),
            Contender(segment, rows, lambda: run_load(bench, "segment"), "two connections"),
            Contender(message, rows, lambda: run_load(bench, "message"), "two connections"),
            Contender(
                "pgloader",
                pgloader_rows,
                lambda: run_pgloader(bench, pgloader_rows),
                missing="" if shutil.which("pgloader") else "not installed",
            ),
        ],
        wanted=[
            Wanted(segment, psql.name, 0.95),
            Wanted(message, psql.name, 0.45),
        ],
    )


def psql_contender(bench: Bench) -> Contender:
    """The yardstick of loads: one session, and a copy command for each chunk."""
    rows = bench.dataset.rows
    return Contender("psql `\\copy`", rows, lambda: run_psql(bench, rows), "one connection")


def run_load(bench: Bench, dedupe: str) -> Usage:
    """`pgsluice load` on all chunks."""
    staging = bench.dataset.staging_with_chunks()
    arguments: Arguments = [bench.programs.pgsluice, "load", "--quiet", "--staging-dir", staging]
    return into_user_logins(bench, bench.dataset.rows, arguments, bench.environment(dedupe))


def run_psql(bench: Bench, rows: int) -> Usage:
    """All chunks in one session."""
    script = copy_script(bench.dataset.scratch() / "copy.sql", bench.dataset.chunks(rows))
    return into_user_logins(bench, rows, [*PSQL, "-f", script, bench.database.url], {})


def run_two_psql(bench: Bench) -> Usage:
    """Every other chunk in a session of its own."""
    chunks = bench.dataset.chunks(bench.dataset.rows)
    scratch = bench.dataset.scratch()
    scripts = [copy_script(scratch / f"copy{half}.sql", chunks[half::2]) for half in range(2)]
    psql = " ".join(PSQL)
    both = f'{psql} -f "$1" "$0" & {psql} -f "$2" "$0" && wait $!'
    arguments: Arguments = ["sh", "-c", both, bench.database.url, *scripts]
    return into_user_logins(bench, bench.dataset.rows, arguments, {})


def run_pgloader(bench: Bench, rows: int) -> Usage:
    """The program pgloader on a directory of chunks."""
    environment = {
        "CHUNKS_DIR": str(bench.dataset.directory_of_chunks(rows)),
        "DATABASE_URL": bench.database.url,
    }
    arguments: Arguments = ["pgloader", "--quiet", PEERS / "pgloader.load"]
    return into_user_logins(bench, rows, arguments, environment)


def into_user_logins(
    bench: Bench, rows: int, arguments: Arguments, environment: Mapping[str, str]
) -> Usage:
    """Measures a load of the first rows, and checks that the table then holds them."""
    expected = reference(bench, rows)
    bench.database.reset()
    usage = measure.run(arguments, environment)
    bench.database.content().must_be(expected)
    return usage


@functools.cache
def reference(bench: Bench, rows: int) -> Content:
    """What the table must hold then: what Postgres itself makes of the chunks."""
    bench.database.reset()
    script = bench.dataset.root / "reference.sql"
    bench.database.query(copy_script(script, bench.dataset.chunks(rows)).read_text())
    return bench.database.content()


def copy_script(path: Path, chunks: Sequence[Path]) -> Path:
    """A script for psql: a copy command for each chunk."""
    columns = ", ".join(COLUMNS)
    copies = (f"\\copy user_logins ({columns}) from '{chunk}' csv\n" for chunk in chunks)
    path.write_text("".join(copies))
    return path
