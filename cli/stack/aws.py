"""The AWS API (S3, SQS, SNS, Cognito, Secrets Manager) from ministack, as a plain foreground process."""

from __future__ import annotations

import http.client
import os
import signal
import sys
from collections.abc import Callable
from importlib.util import find_spec

from cli.stack.roles import Role
from cli.stack.state import PRIVATE_FOLDER, State
from pipeline.errors import ConfigurationError

SERVICES = "s3,sqs,sns,sts,cognito-idp,secretsmanager"
READY_TIMEOUT_S = 2.0


def url(state: State) -> str:
    """Where the AWS API of this state answers."""
    return f"http://127.0.0.1:{state.ports()['aws']}"


def credentials(state: State) -> tuple[str, str]:
    """The access key's id and its secret: random, this state's own."""
    return f"AKIA{state.secret('aws-access-key')[:16].upper()}", state.secret("aws-secret-key")


def role(state: State, *, durable: bool, on_ready: Callable[[], None]) -> Role:
    """The server on this state. Buckets and queues are written at a clean stop and read at a start."""
    if find_spec("ministack") is None:
        raise ConfigurationError(
            "The embedded AWS API is not installed: install dailies with the extra `embedded`.",
            code="EMBEDDED_MISSING",
        )
    (state.root / "aws" / "tmp").mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    port = state.ports()["aws"]
    return Role(
        name="aws",
        argv=[sys.executable, "-P", "-m", "ministack"],
        env=_environment(state, keep="1" if durable else "0"),
        server=True,
        ready=lambda: answers(port, "/_ministack/health"),
        on_ready=on_ready,
        death_signal=signal.SIGTERM,  # so that it writes its state
    )


def _environment(state: State, *, keep: str) -> dict[str, str]:
    folder = state.root / "aws"
    access_key, secret = credentials(state)
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "TMPDIR": str(folder / "tmp"),  # its pid file
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(state.ports()["aws"]),
        "MINISTACK_HOST": "127.0.0.1",  # queue URLs name it
        "SERVICES": SERVICES,
        "AWS_ACCESS_KEY_ID": access_key,  # it opens presigned URLs of this key alone
        "AWS_SECRET_ACCESS_KEY": secret,
        "S3_PERSIST": keep,
        "S3_DATA_DIR": str(folder / "s3"),
        "PERSIST_STATE": keep,
        "STATE_DIR": str(folder / "state"),
        "IOT_MTLS_ENABLED": "false",  # would listen for MQTT
        "SFTP_ENABLED": "false",
        "DOCKER_HOST": f"unix://{folder}/no-docker",  # would look for containers to clean up
        "LOG_LEVEL": "WARNING",
        "PYTHONUNBUFFERED": "1",
    }


def answers(port: int, path: str) -> bool:
    """Whether an HTTP server on 127.0.0.1 answers ``path`` with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=READY_TIMEOUT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
