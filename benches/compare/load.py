"""(a) Load: chunks that are ready, into a table that is empty."""

import functools
from collections.abc import Callable
from pathlib import Path

import measure
from bench import PEERS, Bench
from contender import Contender, Group, Wanted
from database import COLUMNS, Content
from measure import Usage

PGLOADER_ROWS = 200_000
PSQL = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1"]


def group(bench: Bench) -> Group:
    """The contenders, and what is wanted of them."""
    rows = bench.dataset.rows
    pgloader_rows = bench.dataset.slice_rows(PGLOADER_ROWS)
    psql = psql_contender(bench)
    return Group(
        name="a",
        title="Load: ready chunks into an empty table",
        unit="rows",
        base=psql.name,
        contenders=[
            psql,
            Contender("psql `\\copy`, two sessions", rows, lambda: run_two_psql(bench)),
            Contender("pgsluice load, dedupe = segment", rows, lambda: run_load(bench, "segment")),
            Contender("pgsluice load, dedupe = message", rows, lambda: run_load(bench, "message")),
            Contender(
                "pgloader",
                pgloader_rows,
                lambda: run_pgloader(bench, pgloader_rows),
                missing="" if bench.programs.pgloader else "not installed",
            ),
        ],
        wanted=[
            Wanted("pgsluice load, dedupe = segment", psql.name, rate_at_least=0.95),
            Wanted("pgsluice load, dedupe = message", psql.name, rate_at_least=0.45),
        ],
    )


def psql_contender(bench: Bench) -> Contender:
    """The yardstick of loads: one session, one connection, one `\\copy` a chunk."""
    return Contender("psql `\\copy`", bench.dataset.rows, lambda: run_psql(bench, bench.dataset.rows))


def run_load(bench: Bench, dedupe: str) -> Usage:
    """`pgsluice load` on all chunks."""
    staging = bench.dataset.staging_with_chunks()
    arguments = [bench.programs.pgsluice, "load", "--quiet", "--staging-dir", staging]
    return into_user_logins(bench, bench.dataset.rows, lambda: measure.run(arguments, bench.environment(dedupe)))


def run_psql(bench: Bench, rows: int) -> Usage:
    """All chunks in one session."""
    script = copy_script(bench.dataset.scratch() / "copy.sql", bench.dataset.chunks(rows))
    arguments = [*PSQL, "-f", script, bench.database.url]
    return into_user_logins(bench, rows, lambda: measure.run(arguments, {}))


def run_two_psql(bench: Bench) -> Usage:
    """Every other chunk in a session of its own."""
    chunks = bench.dataset.chunks(bench.dataset.rows)
    scratch = bench.dataset.scratch()
    scripts = [copy_script(scratch / f"copy{half}.sql", chunks[half::2]) for half in range(2)]
    both = f"{' '.join(PSQL)} -f '{scripts[0]}' \"$0\" & {' '.join(PSQL)} -f '{scripts[1]}' \"$0\" && wait $!"
    arguments = ["sh", "-c", both, bench.database.url]
    return into_user_logins(bench, bench.dataset.rows, lambda: measure.run(arguments, {}))


def run_pgloader(bench: Bench, rows: int) -> Usage:
    """pgloader on a directory of chunks."""
    environment = {
        "CHUNKS_DIR": str(bench.dataset.directory_of_chunks(rows)),
        "DATABASE_URL": bench.database.url,
    }
    arguments = [bench.programs.pgloader, "--quiet", PEERS / "pgloader.load"]
    return into_user_logins(bench, rows, lambda: measure.run(arguments, environment))


def into_user_logins(bench: Bench, rows: int, run: Callable[[], Usage]) -> Usage:
    """Measures a load of the first rows, and checks that the table then holds them."""
    expected = reference(bench, rows)
    bench.database.reset()
    usage = run()
    bench.check(bench.database.content(), expected)
    return usage


@functools.cache
def reference(bench: Bench, rows: int) -> Content:
    """What the table must hold once the first rows are loaded: what Postgres itself makes of their chunks."""
    bench.database.reset()
    script = bench.dataset.root / "reference.sql"
    bench.database.query(copy_script(script, bench.dataset.chunks(rows)).read_text())
    return bench.database.content()


def copy_script(path: Path, chunks: list[Path]) -> Path:
    """A script for psql, one `\\copy` a chunk."""
    columns = ", ".join(COLUMNS)
    path.write_text("".join(f"\\copy user_logins ({columns}) from '{chunk}' csv\n" for chunk in chunks))
    return path
