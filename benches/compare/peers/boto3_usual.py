"""Empties a queue the usual way: one message, one INSERT, one delete.

A message that is no login goes to a file, so that it is not lost, and is deleted.

usage: boto3_usual.py REJECTS_FILE
"""

import os
import sys
from pathlib import Path

import boto3
import psycopg
from login import COLUMNS, Login, NotALoginError, login

WAIT_SECONDS = 1
INSERT = f"INSERT INTO user_logins ({COLUMNS}) VALUES ({', '.join(['%s'] * len(Login._fields))})"


def main() -> None:
    """Until the queue is empty."""
    sqs = boto3.client("sqs")
    queue_url = os.environ["PGSLUICE_QUEUE_URL"]
    with (
        psycopg.connect(os.environ["DATABASE_URL"]) as connection,
        Path(sys.argv[1]).open("w", encoding="utf-8") as rejects,
    ):
        while True:
            answer = sqs.receive_message(
                QueueUrl=queue_url,
                WaitTimeSeconds=WAIT_SECONDS,
                MessageSystemAttributeNames=["SentTimestamp"],
            )
            if not (messages := answer.get("Messages")):
                break
            for message in messages:
                try:
                    row = login(message["Body"], int(message["Attributes"]["SentTimestamp"]))
                except NotALoginError:
                    print(message["Body"], file=rejects, flush=True)
                else:
                    connection.execute(INSERT, row)
                    connection.commit()
                sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])


if __name__ == "__main__":
    main()
