"""Serves SQS and Secrets Manager by LocalStack on a free port of 127.0.0.1 until standard input closes.

Prints the endpoint's URL, and nothing else, once it answers; LocalStack's own output goes to standard error. Its files
lie in a temporary directory, which goes with the process.
"""

import functools
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

LOOPBACK = "127.0.0.1"
POLL_SECONDS = 0.05


def free_port():
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        return listener.getsockname()[1]


def configure(address, root):
    """LocalStack reads its settings from the environment when it is first imported."""
    os.environ.update(
        GATEWAY_LISTEN=address,
        LOCALSTACK_HOST=address,
        SERVICES="sqs,secretsmanager",
        EAGER_SERVICE_LOADING="0",
        SQS_DISABLE_CLOUDWATCH_METRICS="1",
        SQS_ENDPOINT_STRATEGY="path",
        DNS_ADDRESS="0",
        DISABLE_EVENTS="1",
        SKIP_SSL_CERT_DOWNLOAD="1",
        FILESYSTEM_ROOT=root,
        # Inside a container it would take the whole container for its own.
        OVERRIDE_IN_DOCKER="0",
        # What it keeps elsewhere by default.
        HOME=root,
        TMPDIR=root,
        XDG_CACHE_HOME=root,
    )
    tempfile.tempdir = root


def listen_on_loopback_only():
    """LocalStack ignores the host of GATEWAY_LISTEN and would listen on every address."""
    from twisted.internet import endpoints

    endpoints.TCP4ServerEndpoint = functools.partial(endpoints.TCP4ServerEndpoint, interface=LOOPBACK)


def announce_when_ready(endpoint, output):
    while True:
        try:
            urllib.request.urlopen(f"{endpoint}/_localstack/health").close()
            break
        except (urllib.error.URLError, ConnectionError):
            time.sleep(POLL_SECONDS)
    print(endpoint, file=output, flush=True)


def end_with_standard_input(root):
    while os.read(0, 4096):
        pass
    shutil.rmtree(root, ignore_errors=True)
    os._exit(0)


def main():
    address = f"{LOOPBACK}:{free_port()}"
    root = tempfile.mkdtemp(prefix="pgsluice-localstack-")
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    configure(address, root)
    listen_on_loopback_only()
    in_background(announce_when_ready, f"http://{address}", output)
    in_background(end_with_standard_input, root)

    from localstack.runtime.main import main as serve

    try:
        serve()
    finally:
        shutil.rmtree(root, ignore_errors=True)


def in_background(function, *arguments):
    threading.Thread(target=function, args=arguments, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
