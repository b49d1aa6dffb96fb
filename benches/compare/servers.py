"""The queue server and Postgres, each a process of its own: clients are measured apart from them.

Always true: a server ends when its standard input closes, so at the end of its `with`, and also
when the driver ends in any other way.
"""

import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

# The local queue server accepts any. The user's own files might lead a client elsewhere.
CREDENTIALS = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "compare",
    "AWS_SECRET_ACCESS_KEY": "compare",
}


@contextmanager
def postgres(examples: Path) -> Iterator[str]:
    """An empty durable cluster; gives the URL of its database."""
    with _serving([examples / "local-postgres"], lines=1) as environment:
        yield environment["DATABASE_URL"]


@contextmanager
def queue(examples: Path, messages: int) -> Iterator[dict[str, str]]:
    """A queue of messages, the same in every run; gives the variables that lead to it."""
    with _serving([examples / "local-queue", "login-queue", str(messages)], lines=2) as environment:
        yield environment | CREDENTIALS


def messages_in(environment: Mapping[str, str]) -> int:
    """The number of messages in the queue, received or not."""
    counts = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    request = urllib.request.Request(
        environment["AWS_ENDPOINT_URL"],
        data=json.dumps(
            {"QueueUrl": environment["PGSLUICE_QUEUE_URL"], "AttributeNames": counts}
        ).encode(),
        headers={
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": "AmazonSQS.GetQueueAttributes",
        },
    )
    with urllib.request.urlopen(request) as answer:
        attributes = json.load(answer)["Attributes"]
    return sum(int(attributes[count]) for count in counts)


@contextmanager
def _serving(arguments: list[str | Path], lines: int) -> Iterator[dict[str, str]]:
    # A session of its own: Ctrl-C is for the driver, which then closes the pipe.
    server = subprocess.Popen(
        arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        announced = [server.stdout.readline().rstrip("\n") for _ in range(lines)]
        if not all(announced):
            raise RuntimeError(f"{arguments[0]} did not start")
        yield dict(line.split("=", 1) for line in announced)
    finally:
        server.stdin.close()
        server.wait()
