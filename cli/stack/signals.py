"""What asks a command to end, and how it hears of it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ASK_FOR_AN_END = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 128 + signal.SIGINT  #: exit status of what was stopped before its end


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt once for the first signal that asks for an end; later ones are not heard.

    Also where the signal was ignored before, as it is in the background of a script.
    """

    def hear(_number: int, _frame: FrameType | None) -> None:
        for number in ASK_FOR_AN_END:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    with _handled(hear):
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """Signals that ask for an end are not heard: it is being done."""
    with _handled(signal.SIG_IGN):
        yield


@contextmanager
def _handled(handler: signal._HANDLER) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in ASK_FOR_AN_END}
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)
