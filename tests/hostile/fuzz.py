"""A search for bytes that harm: sound files, bent at random, through sniffing, facts and picture.

``python -m tests.hostile.fuzz --minutes 30 --keep FOLDER`` keeps what ends a process, takes too long, raises
what is no error of ours, blames this machine, or tells what cannot be stored. A number gives the same files
again with the same ``--seed``.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from pipeline.decoder.budget import budget_for
from pipeline.errors import DailiesError, InfrastructureError, PermanentStageError
from pipeline.media import pictures
from pipeline.media.image import decoding
from pipeline.media.reader import Limits
from pipeline.media.readers import reader_of
from pipeline.media.sniff import sniff
from pipeline.workflows import StageName
from tests.hostile import good

BATCH = 400  #: files for one process
SLOW_S, HANGS_S = 5.0, 90  #: of CPU time for one small file, and in all
LIMITS = Limits(pixels=20_000_000)
_EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
_PICTURES = 3  # one in so many also has its picture decoded


def bent(data: bytes, other: bytes, draw: random.Random) -> bytes:
    """``data`` with some of its bytes changed, cut, doubled, or replaced by some of ``other``."""
    body = bytearray(data)
    near_head = draw.random() < 0.6
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        reach = min(len(body), 2048) if near_head else len(body)
        at, length = draw.randrange(reach + 1), draw.choice((1, 2, 4, 8, 40, 400))
        match draw.randrange(8):
            case 0 | 1:
                body[at : at + 1] = bytes((draw.choice((0, 1, 127, 128, 255, draw.randrange(256))),))
            case 2:
                body[at : at + 1] = bytes((body[at] ^ 1 << draw.randrange(8),)) if at < len(body) else b""
            case 3 | 4:
                width = draw.choice((2, 4, 8))
                number = draw.choice(_EDGES) & (1 << 8 * width) - 1
                body[at : at + width] = number.to_bytes(width, draw.choice(("big", "little")))
            case 5:
                del body[at : at + length]
            case 6:
                body[at:at] = body[at : at + length] * draw.choice((1, 1, 30))
            case _:
                start = draw.randrange(len(other) + 1)
                body[at : at + length] = other[start : start + length]
    return bytes(body[: draw.randrange(len(body) + 1)] if draw.random() < 0.05 else body)


def look(path: Path, name: str, *, decode: bool) -> str:
    """What a worker would do with the file at ``path``; the code it ends with, "" if it is sound."""
    try:
        kind = sniff(path, name=name)
        said = reader_of(kind.mime_type).describe(path, LIMITS)
        told = [said.title, said.text, said.details, said.warnings, said.gps, said.duration_seconds]
        written = json.dumps(told, allow_nan=False)
        if "\\u0000" in written or "\\ud8" in written:
            raise AssertionError("what it tells cannot be stored")
        if decode:
            with decoding(path):
                pictures.of_file(path, kind.mime_type, LIMITS)
    except InfrastructureError as error:
        raise AssertionError(f"blames this machine: {error}") from error
    except DailiesError as error:
        return error.code if isinstance(error, PermanentStageError) else f"retried {error.code}"
    except MemoryError:
        return "MEMORY_LIMIT_EXCEEDED"
    return ""


def batch(seeds: dict[str, bytes], numbers: range, seed: int, folder: Path) -> dict[str, int]:
    """Look at the files of ``numbers``; how often each outcome was. ``folder`` holds the one at work."""
    outcomes: Counter[str] = Counter()
    for number in numbers:
        draw = random.Random(f"{seed}-{number}")  # noqa: S311 - to be found again
        extension, other = draw.choice(list(seeds)), draw.choice(list(seeds.values()))
        path = folder / f"{number}.{extension}"
        path.write_bytes(bent(seeds[extension], other, draw))
        started = time.process_time()
        signal.alarm(HANGS_S)  # ends this process
        outcomes[look(path, path.name, decode=number % _PICTURES == 0)] += 1
        if time.process_time() - started > SLOW_S:
            raise AssertionError(f"takes {time.process_time() - started:.1f} s")
        path.unlink()
    return dict(outcomes)


def main() -> int:
    """Search until the time is over; the exit status is how many files were found, 99 at most."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path("var/fuzz"), help="for the files that were found")
    given = parser.parse_args()
    given.keep.mkdir(parents=True, exist_ok=True)
    end, first, found = time.monotonic() + 60 * given.minutes, 0, 0
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        seeds = {extension: path.read_bytes() for extension, path in good.make(folder).items()}
        while time.monotonic() < end:
            numbers = range(first, first + BATCH)
            result = folder / "result"
            status = _apart(lambda: result.write_text(json.dumps(batch(seeds, numbers, given.seed, folder))))  # noqa: B023
            if status == 0:
                outcomes.update(json.loads(result.read_text(encoding="utf-8")))
                first += BATCH
            else:
                first = _keep(folder, given.keep, status) + 1
                found += 1
    print(f"{first:,} files, {found} found, kept in {given.keep}")  # noqa: T201
    for outcome, count in outcomes.most_common():
        print(f"{count:>9,} {outcome or 'sound'}")  # noqa: T201
    return min(found, 99)


def _apart(work: Callable[[], object]) -> int:
    """Do ``work`` in a process of its own under the limits of a decoder; its status, below 0 for a signal."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    budget = budget_for(StageName.METADATA, "video", 0)
    resource.setrlimit(resource.RLIMIT_DATA, (budget.memory, budget.memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    try:
        work()
    except BaseException:  # noqa: BLE001 - whatever it is, this process ends here
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


def _keep(folder: Path, kept: Path, status: int) -> int:
    """Move the file that was at work into ``kept``; its number."""
    path = next(one for one in folder.iterdir() if one.stem.isdecimal())
    print(f"{path.name}: status {status}", file=sys.stderr, flush=True)  # noqa: T201
    path.rename(kept / path.name)
    return int(path.stem)


if __name__ == "__main__":
    sys.exit(main())
