"""``python -m bench.thumbnails``: our three variants beside sharp's, picture by picture, on one core."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import IO, Any, NamedTuple, cast

from PIL import Image

from bench.thumbnails import corpus, quality
from tests.faults.results import machine

HERE = Path(__file__).parent
#: The handler of the first requirements, sharp done well, ours with and without the SIMD resampler.
SIDES = ("handler", "tuned", "pillow", "simd")
OURS = frozenset({"pillow", "simd"})
PRIMARY = "primary.jpg"


class Run(NamedTuple):
    """One picture on one side."""

    wall: float  #: seconds
    cpu: float
    size: int  #: bytes of the three variants
    peak: int  #: bytes of memory, of the process so far


def main() -> None:
    """Measure and print."""
    given = _arguments()
    print(f"{machine()}; one core; {given.pictures} photographs, {given.rounds} rounds")
    with tempfile.TemporaryDirectory(prefix="dailies-bench-") as scratch:
        folder = Path(scratch)
        peer = _install(folder / "peer")
        found = corpus.make(folder / "corpus", given.pictures)
        runs = _measure(found, peer, given.rounds)
        seen = _judge(found, folder, peer)
        print(_table(found, runs, seen))
        print(_memory(found, corpus.huge(folder), peer))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.thumbnails", description=__doc__)
    parser.add_argument(
        "--pictures", type=int, default=24, help="baseline JPEGs, half of 12 and 24 megapixels"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of every picture on every side")
    return parser.parse_args()


def _install(folder: Path) -> Path:
    """The peer with its sharp, by npm, in a folder of its own."""
    folder.mkdir()
    for name in ("package.json", "peer.mjs"):
        shutil.copy(HERE / name, folder)
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("npm is needed: the peer is sharp on Node.js.")
    subprocess.run([npm, "install", "--silent", "--no-audit", "--no-fund"], cwd=folder, check=True)
    return folder / "peer.mjs"


class Side:
    """A process that makes the variants of one picture after another."""

    def __init__(self, name: str, orders: IO[str], answers: IO[str]) -> None:
        self.name, self.orders, self.answers = name, orders, answers

    def run(self, path: Path, keep: Path | None = None) -> Run:
        """Make the variants of ``path``; in ``keep``, if it is given."""
        order = {"side": self.name, "path": str(path), "keep": str(keep) if keep else None}
        print(json.dumps(order), file=self.orders, flush=True)
        answer: dict[str, Any] = json.loads(self.answers.readline())
        return Run(answer["wall"], answer["cpu"], answer["bytes"], answer["peak"])


@contextmanager
def _side(name: str, peer: Path) -> Iterator[Side]:
    command = [sys.executable, "-m", "bench.thumbnails.ours"] if name in OURS else ["node", str(peer)]
    core = {min(os.sched_getaffinity(0))}
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"UV_THREADPOOL_SIZE": "1"},
        preexec_fn=lambda: os.sched_setaffinity(0, core),  # noqa: PLW1509 - one thread here
    ) as process:
        yield Side(name, cast("IO[str]", process.stdin), cast("IO[str]", process.stdout))
        process.communicate()


Runs = dict[tuple[str, Path], list[Run]]


def _measure(found: dict[str, list[Path]], peer: Path, rounds: int) -> Runs:
    """Every picture on every side, one after the other, the sides in another order each time."""
    dice, runs = random.Random(1), defaultdict(list)
    with ExitStack() as stack:
        sides = [stack.enter_context(_side(name, peer)) for name in SIDES]
        for side in sides:
            side.run(next(iter(found.values()))[0])  # a warm-up
        for _ in range(rounds):
            for path in (path for paths in found.values() for path in paths):
                for side in dice.sample(sides, len(sides)):
                    runs[side.name, path].append(side.run(path))
    return runs


class Seen(NamedTuple):
    """How near the primary variant is to the reference."""

    psnr: float  #: decibels
    ssim: float


def _judge(found: dict[str, list[Path]], folder: Path, peer: Path) -> dict[tuple[str, Path], Seen]:
    seen, keep = {}, folder / "kept"
    keep.mkdir()
    with ExitStack() as stack:
        sides = [stack.enter_context(_side(name, peer)) for name in SIDES]
        for path in (path for paths in found.values() for path in paths):
            wanted = quality.reference(path)
            for side in sides:
                side.run(path, keep)
                with Image.open(keep / PRIMARY) as made:
                    seen[side.name, path] = Seen(quality.psnr(made, wanted), quality.ssim(made, wanted))
    return seen


def _table(found: dict[str, list[Path]], runs: Runs, seen: dict[tuple[str, Path], Seen]) -> str:
    lines = [
        "",
        "| pictures | side | a CPU s | of the handler | of tuned sharp | wall ms | PSNR dB | SSIM | kB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    groups = {"JPEG, all": found["JPEG, 12 MP"] + found["JPEG, 24 MP"], **found}
    for kind, paths in groups.items():
        rates = {side: _rates(runs, side, paths) for side in SIDES}
        for side in SIDES:
            mine = [one for path in paths for one in runs[side, path]]
            near = [seen[side, path] for path in paths]
            to_handler, to_tuned = (_ratio(rates[side], rates[other]) for other in ("handler", "tuned"))
            lines.append(
                f"| {kind} | {side} | {median(rates[side]):.1f} | {to_handler} | {to_tuned} |"
                f" {1000 * median(one.wall for one in mine):.0f} | {median(one.psnr for one in near):.1f} |"
                f" {median(one.ssim for one in near):.4f} | {median(one.size for one in mine) / 1000:.0f} |"
            )
    return "\n".join(lines)


def _rates(runs: Runs, side: str, paths: Sequence[Path]) -> list[float]:
    """Images of each round for a second of one core: other processes' work is not in it."""
    rounds = zip(*(runs[side, path] for path in paths), strict=True)
    return [len(paths) / sum(one.cpu for one in round_) for round_ in rounds]


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """The median of the rounds' ratios, and their spread."""
    ratios = sorted(mine / other for mine, other in zip(ours, theirs, strict=True))
    return f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def _memory(found: dict[str, list[Path]], huge: Path, peer: Path) -> str:
    """The most memory that a process holds which makes the variants of one picture and nothing else."""
    pictures = {"JPEG, 24 MP": found["JPEG, 24 MP"][0], "JPEG, 100 MP": huge, "PNG, 12 MP": found["PNG"][0]}
    lines = ["", "| peak memory, MB | " + " | ".join(SIDES) + " |", "|---" * (len(SIDES) + 1) + "|"]
    for kind, path in pictures.items():
        peaks = []
        for name in SIDES:
            with _side(name, peer) as side:
                peaks.append(side.run(path).peak)
        lines.append(f"| {kind} | " + " | ".join(f"{peak / 1e6:.0f}" for peak in peaks) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
