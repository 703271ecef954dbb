"""What goes between a worker and its decoder: one frame of JSON each way, which can run no code."""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from pydantic import TypeAdapter

from pipeline import errors
from pipeline.decoder.budget import Budget
from pipeline.errors import DailiesError, StageError
from pipeline.stages import STAGES
from pipeline.stages.base import Asset, Context, Rendition, StageOutput
from pipeline.workflows import StageName


def _is_error(kind: object) -> TypeGuard[type[DailiesError]]:
    return isinstance(kind, type) and issubclass(kind, DailiesError)


HEAD = struct.Struct(">I")
LONGEST = 64_000_000  #: bytes of a frame; the longest text of a document is far below

_ERRORS = {name: kind for name, kind in vars(errors).items() if _is_error(kind)}
_RENDITIONS = TypeAdapter(tuple[Rendition, ...])


@dataclass(frozen=True, slots=True)
class Order:
    """One run of a stage."""

    stage: StageName
    asset: Asset
    context: Context
    budget: Budget


_ORDER = TypeAdapter(Order)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a run."""

    outcome: StageOutput | DailiesError
    peak: int  #: bytes: the most memory that the process held
    cpu_s: float  #: CPU time, with that of the programs that were called
    spent: bool  #: the process is to be replaced


def pack_order(order: Order) -> bytes:
    """``order`` as JSON."""
    return json.dumps(_ORDER.dump_python(order, mode="json")).encode()  # escapes what a path has of no UTF-8


def unpack_order(body: bytes) -> Order:
    """The order in ``body``."""
    return _ORDER.validate_python(json.loads(body))


def pack_answer(answer: StageOutput | DailiesError, *, peak: int, cpu_s: float, spent: bool) -> bytes:
    """What a stage returned or raised, and what ``Answer`` tells of the run."""
    if isinstance(answer, DailiesError):
        told: dict[str, Any] = {
            "error": type(answer).__name__,
            "code": answer.code,
            "message": answer.message,
        }
    else:
        told = {
            "value": answer.value.model_dump(mode="json"),
            "renditions": _RENDITIONS.dump_python(answer.renditions, mode="json"),
            "warnings": answer.warnings,
        }
    return json.dumps(told | {"peak": peak, "cpu_s": cpu_s, "spent": spent}).encode()


def unpack_answer(body: bytes, stage: StageName, workdir: Path) -> Answer:
    """The answer in ``body``, of a run of ``stage`` in ``workdir``: its files are there, or it is none."""
    told = json.loads(body)
    outcome: StageOutput | DailiesError
    if "error" in told:
        kind = _ERRORS.get(told["error"], StageError)
        outcome = kind(told["message"], code=told["code"])
    else:
        value = STAGES[stage].value.model_validate(told["value"])
        renditions = _RENDITIONS.validate_python(told["renditions"])
        if any(one.path.parent != workdir or one.path.is_symlink() for one in renditions):
            outcome = StageError("The decoder names a file that is not of its making.")
            return Answer(outcome, told["peak"], told["cpu_s"], spent=True)
        outcome = StageOutput(value, renditions, tuple(told["warnings"]))
    return Answer(outcome, told["peak"], told["cpu_s"], told["spent"])


def send(channel: socket.socket, body: bytes) -> None:
    """Send one frame."""
    channel.sendall(HEAD.pack(len(body)) + body)


def receive(channel: socket.socket) -> bytes | None:
    """The next frame; None when the other side has gone, or says what no frame can be."""
    head = _exactly(channel, HEAD.size)
    if head is None:
        return None
    (length,) = HEAD.unpack(head)
    return _exactly(channel, length) if length <= LONGEST else None


def _exactly(channel: socket.socket, length: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < length:
        try:
            part = channel.recv(min(length - len(parts), 1 << 20))
        except ConnectionError:
            return None
        if not part:
            return None
        parts += part
    return bytes(parts)
