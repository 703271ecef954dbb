"""What our own processes share: a loop that ends on SIGTERM or SIGINT."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class Stop:
    """Set by SIGTERM and SIGINT; ``wait`` is a sleep that ends early."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def install(self) -> Stop:
        """Listen for the signals; only in a process's main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        return self

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._event.set()

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
