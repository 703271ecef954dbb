"""Asking what may not answer, in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")

#: A dependency that needs longer is no help to a request.
LIMIT_S = 3.0


def ask(question: Callable[[], T]) -> Future[T]:
    """The answer to come. The threads of the requests may all wait for what is asked about here."""
    answer: Future[T] = Future()
    Thread(target=_answer, args=(answer, question), daemon=True).start()  # a daemon holds up no shutdown
    return answer


def _answer(answer: Future[T], question: Callable[[], T]) -> None:
    answer.set_running_or_notify_cancel()  # from here on nobody can cancel it: who gave up just does not look
    try:
        told = question()
    except Exception as problem:  # noqa: BLE001 - raised again where the answer is awaited
        answer.set_exception(problem)
    else:
        answer.set_result(told)
