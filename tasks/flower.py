"""Flower for this app: on loopback unless told otherwise, never without a password."""

from __future__ import annotations

import os

from pipeline.errors import ConfigurationError
from pipeline.settings import get_settings
from tasks.app import get_app

#: An answer to a remote-control request travels over SNS and SQS: longer than Flower's default second.
INSPECT_TIMEOUT_MS = 5_000
MAX_TASKS = 50_000


def main() -> None:
    """The ``flower`` process."""
    settings = get_settings()
    if settings.flower_basic_auth is None:
        raise ConfigurationError(
            "Flower can stop workers and needs a password: set DAILIES_FLOWER_BASIC_AUTH to user:password."
        )
    # By the environment: arguments of a process are readable by every user of the machine.
    os.environ["FLOWER_BASIC_AUTH"] = settings.flower_basic_auth.get_secret_value()
    get_app().start(
        [
            "flower",
            f"--address={settings.flower_host}",
            f"--port={settings.flower_port}",
            f"--inspect_timeout={INSPECT_TIMEOUT_MS}",
            f"--max_tasks={MAX_TASKS}",
            "--natural_time=False",
        ]
    )
