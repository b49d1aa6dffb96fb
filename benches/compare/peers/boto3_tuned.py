"""Empties a queue with boto3 and threads: receives and deletes of ten, a COPY for a thousand rows.

Each thread receives until it has enough for a COPY, commits, and then deletes. A message that is no
login goes to a file, so that it is not lost, and is deleted with the others. A message that is
delivered twice becomes two rows.

usage: boto3_tuned.py REJECTS_FILE
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TextIO

import boto3
import psycopg
from botocore.config import Config
from login import COLUMNS, Login, NotALoginError, login

# More of them only wait for each other: Python runs one at a time.
THREADS = 8
BATCH_MESSAGES = 10
COPY_MESSAGES = 1000
WAIT_SECONDS = 1

sqs = boto3.client("sqs", config=Config(max_pool_connections=THREADS))
queue_url = os.environ["PGSLUICE_QUEUE_URL"]


def receive() -> list[dict]:
    """Enough messages for a COPY; fewer only when a long poll came back empty."""
    received: list[dict] = []
    while len(received) < COPY_MESSAGES:
        answer = sqs.receive_message(
            QueueUrl=queue_url,
            MaxNumberOfMessages=BATCH_MESSAGES,
            WaitTimeSeconds=WAIT_SECONDS,
            MessageSystemAttributeNames=["SentTimestamp"],
        )
        if not (messages := answer.get("Messages")):
            break
        received += messages
    return received


def rows(messages: list[dict], rejects: TextIO) -> list[Login]:
    """The rows of those messages that are logins."""
    logins = []
    for message in messages:
        try:
            logins.append(login(message["Body"], int(message["Attributes"]["SentTimestamp"])))
        except NotALoginError:
            rejects.write(message["Body"] + "\n")
    rejects.flush()
    return logins


def store(connection: psycopg.Connection, logins: list[Login]) -> None:
    """Commits all rows by one COPY."""
    with (
        connection.transaction(),
        connection.cursor() as cursor,
        cursor.copy(f"COPY user_logins ({COLUMNS}) FROM STDIN") as copy,
    ):
        for row in logins:
            copy.write_row(row)


def delete(messages: list[dict]) -> None:
    """Deletes what is committed."""
    for start in range(0, len(messages), BATCH_MESSAGES):
        batch = messages[start : start + BATCH_MESSAGES]
        entries = [
            {"Id": str(index), "ReceiptHandle": message["ReceiptHandle"]}
            for index, message in enumerate(batch)
        ]
        answer = sqs.delete_message_batch(QueueUrl=queue_url, Entries=entries)
        if failed := answer.get("Failed"):
            raise RuntimeError(f"{len(failed)} messages were not deleted")


def work(rejects: TextIO) -> None:
    """One thread: until the queue gives nothing more."""
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        while messages := receive():
            store(connection, rows(messages, rejects))
            delete(messages)


def main() -> None:
    """All threads, until the queue is empty."""
    with (
        Path(sys.argv[1]).open("w", encoding="utf-8") as rejects,
        ThreadPoolExecutor(THREADS) as threads,
    ):
        for worker in [threads.submit(work, rejects) for _ in range(THREADS)]:
            worker.result()


if __name__ == "__main__":
    main()
