"""Runs a program, and writes to a file what it cost.

A line of five numbers: wall-clock seconds, CPU seconds, peak memory, the least peak that can be
told, exit code. Memory is in the unit of getrusage.

A process of its own, and a small one, because the kernel counts the memory of a child from before
it became the program. So no peak below this process's own memory can be told; which that is, a
program that does nothing shows.

usage: launch.py ACCOUNT_FILE PROGRAM ARGUMENT…
"""

import os
import resource
import sys
import time


def main() -> None:
    """Two runs: of nothing, and of the program."""
    account_file, *program = sys.argv[1:]
    _, least = run(["true"])
    started = time.perf_counter()
    exit_code, usage = run(program)
    wall_seconds = time.perf_counter() - started
    cpu_seconds = usage.ru_utime + usage.ru_stime
    account = wall_seconds, cpu_seconds, usage.ru_maxrss, least.ru_maxrss, exit_code
    with open(account_file, "w", encoding="utf-8") as file:  # noqa: PTH123 - pathlib costs memory
        print(*account, file=file)


def run(program: list[str]) -> tuple[int, resource.struct_rusage]:
    """A program's exit code, and the kernel's account of it and of those that it waited for."""
    _, status, usage = os.wait4(os.posix_spawnp(program[0], program, os.environ), 0)
    return os.waitstatus_to_exitcode(status), usage


if __name__ == "__main__":
    main()
