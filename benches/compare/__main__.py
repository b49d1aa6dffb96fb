"""pgsluice beside its peers: one run, one machine, the same data, in turn and repeated.

Prints the result as Markdown, and writes it as `compare.md` and `compare.json`. Exit code 1: a contender failed, or
what it loaded was wrong. `make compare` installs the peers and calls this; README.md says how to read the result.
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
from contender import in_turn, tell
from database import Database
from dataset import Dataset

GROUPS = {"load": load.group, "replay": replay.replay, "transform": replay.transform, "queue": queue_path.group}


def main() -> int:
    arguments = parse()
    # Ended in any way that can be noticed, everything is taken down.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    programs = Programs(release=arguments.target / "release", root=arguments.target / "compare")
    programs.root.mkdir(parents=True, exist_ok=True)
    write_configs(programs)
    with servers.postgres(programs.examples) as url:
        bench = prepare(programs, url, arguments)
        about = machine.describe(programs, bench.database, arguments.command) | {"rounds": arguments.repeat}
        results = []
        for name in arguments.groups:
            group = GROUPS[name](bench)
            results.append((group, in_turn(group, arguments.repeat)))
    report = table.markdown(results, about)
    (programs.root / "compare.md").write_text(report)
    (programs.root / "compare.json").write_text(json.dumps(table.data(results, about), indent=2) + "\n")
    print(report, end="")
    return int(any(outcome.failure for _, outcomes in results for outcome in outcomes))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="compare", description=__doc__)
    parser.add_argument("--target", type=Path, default=Path("target"), help="cargo's target directory")
    parser.add_argument("--repeat", type=int, default=3, help="rounds")
    parser.add_argument("--rows", type=int, default=2_000_000, help="logins in the spool")
    parser.add_argument("--messages", type=int, default=100_000, help="messages in the queue")
    parser.add_argument("--command", default=shlex.join(sys.argv), help="the command that the result names")
    parser.add_argument("groups", nargs="*", choices=[*GROUPS, []], help="which groups [default: all]")
    arguments = parser.parse_args()
    arguments.target = arguments.target.resolve()
    arguments.groups = arguments.groups or list(GROUPS)
    return arguments


def prepare(programs: Programs, url: str, arguments: argparse.Namespace) -> Bench:
    """Tables and data."""
    database = Database(url)
    environment = MASKING | {"PGSLUICE_CONFIG": str(config_path(programs, "message"))}
    subprocess.run(
        [programs.pgsluice, "init", "--quiet"], env=os.environ | {"DATABASE_URL": url}, check=True
    )
    tell(f"writing {arguments.rows:,} logins into a spool")
    dataset = Dataset.create(
        programs.root / "data",
        arguments.rows,
        programs.examples / "spool-logins",
        programs.pgsluice,
        environment,
    )
    return Bench(programs, database, dataset, arguments.messages)


if __name__ == "__main__":
    sys.exit(main())
