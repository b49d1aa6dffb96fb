"""Runs a program, and writes to a file what it cost: wall-clock seconds, CPU seconds, peak memory, the least memory that
can be told, exit code. Memory is in the unit of getrusage.

A process of its own, and a small one, because the kernel counts the memory of a child from before it became the
program. So no less than this process's own memory can be told; what that is, a program that does nothing shows.

usage: launch.py ACCOUNT_FILE PROGRAM ARGUMENT…
"""

import os
import sys
import time


def main() -> None:
    account_file, *program = sys.argv[1:]
    _, least = run(["true"])
    started = time.perf_counter()
    status, usage = run(program)
    wall_seconds = time.perf_counter() - started
    cpu_seconds = usage.ru_utime + usage.ru_stime
    with open(account_file, "w", encoding="utf-8") as file:
        print(
            wall_seconds,
            cpu_seconds,
            usage.ru_maxrss,
            least.ru_maxrss,
            os.waitstatus_to_exitcode(status),
            file=file,
        )


def run(program: list[str]) -> tuple[int, "resource.struct_rusage"]:  # noqa: F821 - to import it would cost memory
    """A program's exit status, and the kernel's account of it and of those that it waited for."""
    _, status, usage = os.wait4(os.posix_spawnp(program[0], program, os.environ), 0)
    return status, usage


if __name__ == "__main__":
    main()
