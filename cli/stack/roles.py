"""What a supervised process is."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


def _at_once() -> bool:
    return True


def _nothing() -> None:
    return


@dataclass(frozen=True)
class Role:
    """One process of the stack, and how it is started, known to be ready and stopped."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    server: bool = False  #: others need it: it is ready before they start and stops after them
    ready: Callable[[], bool] = _at_once
    on_ready: Callable[[], None] = _nothing  #: runs after every start, so it must be safe to repeat
    user: str | None = None  #: who it runs as where we are root
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL  #: what it gets when the supervisor is killed
