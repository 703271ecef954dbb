"""What our own processes share: a loop that ends on SIGTERM or SIGINT."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

T = TypeVar("T")


class _Interrupted(BaseException):
    """Ends a wait that a signal should end; never leaves this module."""


class Stop:
    """Set by SIGTERM and SIGINT; ``wait`` is a sleep that ends early."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._waiting = False

    def install(self) -> Stop:
        """Listen for the signals; only in a process's main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        return self

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._event.set()
        if self._waiting:
            self._waiting = False
            raise _Interrupted

    def wait_for(self, call: Callable[[], T], otherwise: T) -> T:
        """The result of ``call``, or ``otherwise`` as soon as a signal comes: for waits such as a long poll.

        What the call was about to return is lost then. Only in the main thread, where Python handles signals.
        """
        try:
            self._waiting = True
            return otherwise if self.asked else call()
        except _Interrupted:
            return otherwise
        finally:
            self._waiting = False

    def set(self) -> None:
        """Ask the loop to end."""
        self._event.set()

    @property
    def asked(self) -> bool:
        """Whether the loop should end."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleep for at most ``seconds``; returns whether the loop should end."""
        return self._event.wait(seconds)
