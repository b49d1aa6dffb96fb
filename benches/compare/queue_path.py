"""(c) The queue path: messages from the queue server into rows, and deleted.

Always true: every run has a queue server of its own, with the same messages in it, of which one in
a hundred is no login. A run counts only if the queue is empty after it.
"""

import functools
from typing import NamedTuple

import measure
import servers
from bench import PEERS, Bench
from contender import Contender, Group, Wanted
from database import COLUMNS, FAUCET_TABLE, Content, WrongResultError
from measure import Arguments, Usage

USUAL_MESSAGES = 2_000
# Without the day of sending, which is today's: a comparison may run past midnight.
LOGIN_COLUMNS = tuple(column for column in COLUMNS if column != "create_date")
# What faucet stores as pgsluice does.
UNCHANGED_COLUMNS = ("user_id", "device_type", "locale")


def group(bench: Bench) -> Group:
    """The contenders, and what is wanted of them."""
    messages = bench.messages
    usual_messages = min(USUAL_MESSAGES, messages)
    floor, run, faucet = "floor: receive and delete", "pgsluice run", "faucet"
    tuned, usual = "script: boto3, tuned", "script: boto3, the usual"
    return Group(
        name="c",
        title="Queue path: messages in a queue to rows, masked, and deleted from it",
        unit="messages",
        base=usual,
        contenders=[
            Contender(
                usual,
                usual_messages,
                lambda: run_script(bench, "boto3_usual.py", usual_messages),
                "no dedupe",
            ),
            Contender(
                tuned, messages, lambda: run_script(bench, "boto3_tuned.py", messages), "no dedupe"
            ),
            Contender(
                faucet,
                messages,
                lambda: run_faucet(bench),
                "no masking, no dedupe, no rejects",
                missing="" if bench.programs.faucet.exists() else "not installed (FAUCET=1)",
            ),
            Contender(run, messages, lambda: run_pgsluice(bench)),
            Contender(floor, messages, lambda: run_floor(bench), "messages are thrown away"),
        ],
        wanted=[
            Wanted(run, faucet, 2),
            Wanted(run, faucet, 1, of="cpu"),
            Wanted(run, usual, 200),
            Wanted(run, floor, 1.3, of="cpu"),
        ],
    )


def run_floor(bench: Bench) -> Usage:
    """Receives and deletes alone."""
    usage = empty(bench, bench.messages, [bench.programs.examples / "sqs-floor"])
    if int(usage.output) != bench.messages:
        raise WrongResultError(f"{usage.output.strip()} messages were deleted")
    return usage


def run_pgsluice(bench: Bench) -> Usage:
    """`pgsluice run` in a new staging directory."""
    expected = reference(bench, bench.messages)
    staging = bench.dataset.scratch()
    arguments: Arguments = [bench.programs.pgsluice, "run", "--quiet", "--staging-dir", staging]
    usage = empty(bench, bench.messages, arguments)
    bench.database.content(columns=LOGIN_COLUMNS).must_be(expected.logins)
    return usage


def run_faucet(bench: Bench) -> Usage:
    """The program faucet, into a table of its own."""
    expected = reference(bench, bench.messages)
    arguments: Arguments = [bench.programs.faucet, "run", "--quiet", PEERS / "faucet.yaml"]
    usage = empty(bench, bench.messages, arguments)
    bench.database.content(FAUCET_TABLE, UNCHANGED_COLUMNS).must_be(expected.unchanged)
    return usage


def run_script(bench: Bench, script: str, messages: int) -> Usage:
    """One of the boto3 scripts."""
    expected = reference(bench, messages)
    usage = empty(bench, messages, script_arguments(bench, script))
    bench.database.content(columns=LOGIN_COLUMNS).must_be(expected.logins)
    return usage


def script_arguments(bench: Bench, script: str) -> Arguments:
    """A script and where its rejects go."""
    return [*bench.programs.peer(script), bench.dataset.scratch() / "rejects.ndjson"]


def empty(bench: Bench, messages: int, arguments: Arguments) -> Usage:
    """Measures a program that empties a new queue, and checks that it is empty."""
    bench.database.reset()
    with servers.queue(bench.programs.examples, messages) as queue:
        usage = measure.run(arguments, bench.environment() | queue)
        if remaining := servers.messages_in(queue):
            raise WrongResultError(f"{remaining} messages are still in the queue")
    return usage


class Reference(NamedTuple):
    """What the table must hold: in the columns of every contender, and in those that faucet has."""

    logins: Content
    unchanged: Content


@functools.cache
def reference(bench: Bench, messages: int) -> Reference:
    """What the table must hold of this number of messages: what the tuned script loads."""
    empty(bench, messages, script_arguments(bench, "boto3_tuned.py"))
    content = bench.database.content
    return Reference(content(columns=LOGIN_COLUMNS), content(columns=UNCHANGED_COLUMNS))
