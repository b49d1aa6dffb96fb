"""pgsluice beside its peers: one run, one machine, the same data, in turn and repeated.

Prints the result as Markdown, and writes it as `compare.md` and `compare.json`. Exit code 1: a
contender failed, or what it loaded was wrong. `make compare` installs the peers and calls this;
README.md says how to read the result.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import load
import machine
import queue_path
import replay
import servers
import table
from bench import MASKING, Bench, Programs, config_path, write_configs
from contender import Results, in_turn, tell
from database import Database
from dataset import spooled

GROUPS = {
    "load": load.group,
    "replay": replay.replay,
    "transform": replay.transform,
    "queue": queue_path.group,
}
# Settings of the user's that would lead a program elsewhere than to the servers started here.
MISLEADING = ("AWS_", "PG", "PGSLUICE_")


def main() -> int:
    """Compares, and reports."""
    arguments = parse()
    # Ended in any way that can be noticed, everything is taken down.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    for name in [name for name in os.environ if name.startswith(MISLEADING)]:
        del os.environ[name]
    programs = Programs(release=arguments.target / "release", root=arguments.target / "compare")
    programs.root.mkdir(parents=True, exist_ok=True)
    write_configs(programs)
    with servers.postgres(programs.examples) as url:
        database = Database(url)
        about = machine.describe(programs, database) | {
            "command": arguments.command,
            "rounds": arguments.repeat,
        }
        results = compare(programs, database, arguments)
    report = table.markdown(results, about)
    (programs.root / "compare.md").write_text(report)
    (programs.root / "compare.json").write_text(
        json.dumps(table.data(results, about), indent=2) + "\n"
    )
    print(report, end="")
    return int(any(outcome.failure for _, outcomes in results for outcome in outcomes))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="compare", description=__doc__)
    parser.add_argument("--target", type=Path, default=Path("target"), help="cargo's")
    parser.add_argument("--repeat", type=int, default=3, help="rounds")
    parser.add_argument("--rows", type=int, default=2_000_000, help="logins in the spool")
    parser.add_argument("--messages", type=int, default=100_000, help="messages in the queue")
    parser.add_argument("--group", action="append", choices=GROUPS, help="only this one")
    parser.add_argument(
        "--command", default=shlex.join(["python", *sys.argv]), help="what the result names"
    )
    arguments = parser.parse_args()
    arguments.target = arguments.target.resolve()
    return arguments


def compare(programs: Programs, database: Database, arguments: argparse.Namespace) -> Results:
    """Makes tables and data, and runs the groups."""
    subprocess.run(
        [programs.pgsluice, "init", "--quiet", "--database-url", database.url], check=True
    )
    tell(f"writing {arguments.rows:,} logins into a spool")
    data = spooled(
        programs.root / "data",
        arguments.rows,
        programs.examples / "spool-logins",
        programs.pgsluice,
        MASKING | {"PGSLUICE_CONFIG": str(config_path(programs, "message"))},
    )
    with data as dataset:
        bench = Bench(programs, database, dataset, arguments.messages)
        groups = [GROUPS[name](bench) for name in arguments.group or GROUPS]
        return [(group, in_turn(group, arguments.repeat)) for group in groups]


if __name__ == "__main__":
    sys.exit(main())
