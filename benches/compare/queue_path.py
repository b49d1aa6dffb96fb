"""(c) The queue path: messages from the queue server into rows, and deleted.

Always true: every run has a queue server of its own, with the same messages in it, one in a hundred of them no login.
A run counts only if the queue is empty after it.
"""

import functools
from pathlib import Path

import measure
import servers
from bench import PEERS, Bench
from contender import Contender, Group, Wanted, WrongResultError
from database import COLUMNS, FAUCET_TABLE, Content
from measure import Usage

USUAL_MESSAGES = 2_000
# Without the day of sending, which is today's: a comparison may run past midnight.
LOGIN_COLUMNS = tuple(column for column in COLUMNS if column != "create_date")
# What faucet stores as pgsluice does.
UNCHANGED_COLUMNS = ("user_id", "device_type", "locale")


def group(bench: Bench) -> Group:
    """The contenders, and what is wanted of them."""
    messages = bench.messages
    usual_messages = min(USUAL_MESSAGES, messages)
    floor, run, faucet = "floor: receive, delete, throw away", "pgsluice run", "faucet"
    usual = "script: boto3, the usual"
    return Group(
        name="c",
        title="Queue path: messages in the queue to rows, masked, and deleted",
        unit="messages",
        base=run,
        contenders=[
            Contender(floor, messages, lambda: run_floor(bench), remark="stores nothing"),
            Contender(run, messages, lambda: run_pgsluice(bench)),
            Contender(
                faucet,
                messages,
                lambda: run_faucet(bench),
                remark="no masking, no dedupe",
                missing="" if bench.programs.faucet else "not installed (FAUCET=1)",
            ),
            Contender(
                "script: boto3, tuned",
                messages,
                lambda: run_script(bench, "boto3_tuned.py", messages),
                remark="no dedupe",
            ),
            Contender(
                usual,
                usual_messages,
                lambda: run_script(bench, "boto3_usual.py", usual_messages),
                remark="no dedupe",
            ),
        ],
        wanted=[
            Wanted(run, faucet, rate_at_least=2),
            Wanted(run, faucet, cpu_at_most=1),
            Wanted(run, usual, rate_at_least=200),
            Wanted(run, floor, cpu_at_most=1.3),
        ],
    )


def run_floor(bench: Bench) -> Usage:
    """Receives and deletes alone."""
    usage = empty(bench, bench.messages, [bench.programs.examples / "sqs-floor"])
    if int(usage.output) != bench.messages:
        raise WrongResultError(f"{usage.output.strip()} messages of {bench.messages} were deleted")
    return usage


def run_pgsluice(bench: Bench) -> Usage:
    """`pgsluice run` in a new staging directory."""
    expected = reference(bench, bench.messages, LOGIN_COLUMNS)
    staging = bench.dataset.scratch()
    usage = empty(bench, bench.messages, [bench.programs.pgsluice, "run", "--quiet", "--staging-dir", staging])
    bench.check(bench.database.content(columns=LOGIN_COLUMNS), expected)
    return usage


def run_faucet(bench: Bench) -> Usage:
    """faucet, into a table of its own."""
    expected = reference(bench, bench.messages, UNCHANGED_COLUMNS)
    usage = empty(bench, bench.messages, [bench.programs.faucet, "run", "--quiet", PEERS / "faucet.yaml"])
    bench.check(bench.database.content(FAUCET_TABLE, UNCHANGED_COLUMNS), expected)
    return usage


def run_script(bench: Bench, script: str, messages: int) -> Usage:
    """One of the boto3 scripts."""
    expected = reference(bench, messages, LOGIN_COLUMNS)
    usage = empty(bench, messages, script_arguments(bench, script))
    bench.check(bench.database.content(columns=LOGIN_COLUMNS), expected)
    return usage


def script_arguments(bench: Bench, script: str) -> list[str | Path]:
    """A script and where its rejects go."""
    return [*bench.programs.peer(script), bench.dataset.scratch() / "rejects.ndjson"]


def empty(bench: Bench, messages: int, arguments: list[str | Path]) -> Usage:
    """Measures a program that empties a new queue, and checks that it is empty."""
    bench.database.reset()
    with servers.queue(bench.programs.examples, messages) as queue:
        usage = measure.run(arguments, bench.environment() | queue)
        if left := servers.left_in_queue(queue):
            raise WrongResultError(f"{left} messages are left in the queue")
    return usage


@functools.cache
def reference(bench: Bench, messages: int, columns: tuple[str, ...]) -> Content:
    """What the table must hold once so many messages are loaded: what the tuned script makes of them."""
    empty(bench, messages, script_arguments(bench, "boto3_tuned.py"))
    return bench.database.content(columns=columns)
