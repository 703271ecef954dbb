"""A whole stack as an operator has it: the ``dailies`` command, its own state, free ports."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3

from cli.client import Api
from cli.stack.process import Identity, end_group, spawn

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DAILIES = [sys.executable, "-P", "-m", "cli.main"]
START_LIMIT_S = 120.0
STOP_LIMIT_S = 15.0
COMMAND_LIMIT_S = 150.0


def dailies(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a ``dailies`` command to its end."""
    return subprocess.run(  # noqa: S603
        [*DAILIES, *args],
        env={**clean_environment(), **env},
        capture_output=True,
        text=True,
        timeout=COMMAND_LIMIT_S,
        check=False,
    )


def clean_environment() -> dict[str, str]:
    """The caller's environment without the addresses of the servers that other tests use."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("DAILIES_", "AWS_"))}


def until(true: Callable[[], object], limit_s: float) -> None:
    """Wait until ``true()`` is."""
    limit = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < limit, f"not within {limit_s} s"
        time.sleep(0.1)


@dataclass(frozen=True)
class Stack:
    """A stack that is up, from outside."""

    folder: Path
    process: subprocess.Popen[bytes]
    env: Mapping[str, str]  #: what `dailies env` prints

    @property
    def api(self) -> Api:
        return Api(self.env["DAILIES_API_URL"])

    @property
    def output(self) -> str:
        """What the supervisor has said."""
        return (self.folder / "output").read_text(encoding="utf-8")

    def s3(self) -> S3Client:
        client: S3Client = boto3.client(
            "s3",
            endpoint_url=self.env["DAILIES_AWS_ENDPOINT_URL"],
            aws_access_key_id=self.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"],
            region_name=self.env["AWS_DEFAULT_REGION"],
        )
        return client

    def dailies(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run a ``dailies`` command on this stack's state."""
        return dailies(*args, DAILIES_STATE_DIR=str(self.folder / "var"))

    def ps(self) -> dict[str, dict[str, Any]]:
        """``dailies ps --json`` by role."""
        return {row["role"]: row for row in json.loads(self.dailies("ps", "--json").stdout)}

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Ask it to end; returns its exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout=STOP_LIMIT_S)


@contextmanager
def running_stack(folder: Path | None = None) -> Iterator[Stack]:
    """``dailies up`` until the block ends, on the state in ``folder`` or on a new one."""
    new = folder is None
    folder = folder or Path(tempfile.mkdtemp(prefix="dailies-e2e-"))
    state = folder / "var"
    output = folder / "output"
    output.write_text("")
    process = spawn(
        [*DAILIES, "up", "--state", str(state), "--no-samples"],
        env=clean_environment(),
        log=output,
        user=None,
        death_signal=signal.SIGTERM,
    )
    try:
        until(
            lambda: "Dailies is up" in output.read_text() or process.poll() is not None,
            START_LIMIT_S,
        )
        printed = dailies("env", "--state", str(state))
        assert printed.returncode == 0, output.read_text()
        yield Stack(folder, process, exports(printed.stdout))
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=STOP_LIMIT_S)
        end_group(process.pid)
        if new:
            shutil.rmtree(folder, ignore_errors=True)


def exports(text: str) -> dict[str, str]:
    """What a shell would know after ``eval``."""
    words = [shlex.split(line) for line in text.splitlines()]
    assert all(len(line) == 2 and line[0] == "export" for line in words)
    return dict(line[1].split("=", 1) for line in words)


def identities(stack: Stack) -> dict[str, Identity]:
    """The processes of a stack, by role."""
    found = {role: Identity.of(row["pid"]) for role, row in stack.ps().items()}
    return {role: known for role, known in found.items() if known}
