"""Runs one program and tells what it cost: wall-clock seconds, CPU seconds, peak memory.

Always true: CPU and memory are the kernel's own account (`wait4`) of the program and of those that
it waited for, not of the servers that it talks to; memory is that of the largest of them. An
interrupt of the driver leaves no process of it behind.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

Arguments = list[str | Path]

# Isolated and without packages, so that it is small.
LAUNCHER: Arguments = [sys.executable, "-I", "-S", Path(__file__).with_name("launch.py")]
# getrusage counts kibibytes on Linux and bytes on macOS.
RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024
# The launcher itself grows a little between its two runs.
LEAST_MARGIN = 1.05
KEPT_OUTPUT_LINES = 15


class ProgramFailedError(Exception):
    """The program did not end with exit code 0; holds the end of what it said."""


@dataclass(frozen=True)
class Usage:
    """What one run of a program cost."""

    wall_seconds: float
    cpu_seconds: float
    peak_rss_bytes: int
    peak_rss_is_bound: bool
    """The program needed less than can be told."""
    output: str


def run(arguments: Arguments, environment: Mapping[str, str]) -> Usage:
    """Runs a program to its end, with these variables added to the driver's."""
    with tempfile.TemporaryDirectory() as directory:
        account_file = Path(directory, "account")
        launcher = subprocess.Popen(
            [*LAUNCHER, account_file, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | dict(environment),
            start_new_session=True,
        )
        try:
            output, errors = launcher.communicate()
        except BaseException:
            os.killpg(launcher.pid, signal.SIGKILL)
            launcher.wait()
            raise
        if launcher.returncode != 0:
            raise ProgramFailedError(tail(errors))
        wall_seconds, cpu_seconds, peak, least, exit_code = account_file.read_text().split()
    if exit_code != "0":
        raise ProgramFailedError(f"exit code {exit_code}: {tail(errors) or tail(output)}")
    return Usage(
        wall_seconds=float(wall_seconds),
        cpu_seconds=float(cpu_seconds),
        peak_rss_bytes=int(peak) * RSS_UNIT_BYTES,
        peak_rss_is_bound=int(peak) < LEAST_MARGIN * int(least),
        output=output,
    )


def tail(text: str) -> str:
    """The last lines of what a program wrote."""
    return "\n".join(text.splitlines()[-KEPT_OUTPUT_LINES:])
