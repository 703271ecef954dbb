"""``python -m tests.hostile [WORD...]``: every case, or those whose names have one of the words, as a table.

Each goes through the same decoder, one after the other, and a sound photograph after each. The exit status
is 1 if one ends otherwise than it should.
"""

from __future__ import annotations

import re
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from pipeline.decoder.process import Decoder
from tests import kinds
from tests.faults.results import machine
from tests.hostile.case import SECRET, SECRET_COLOUR, Outcome, plant, take_through, write
from tests.hostile.cases import CASES, CUT, SHARES
from tests.images import detailed, encoded

_PLACE = re.compile(r"/[^\s']*/")  # of this machine


class Table:
    """The rows so far."""

    def __init__(self, decoder: Decoder, folder: Path) -> None:
        self.decoder = decoder
        self.wrong: list[str] = []
        self._folder = folder
        self._good = folder / "good.jpg"
        self._good.write_bytes(encoded(detailed((640, 480))))
        print("| input | outcome | seconds | peak MB |\n|---|---|---|---|")  # noqa: T201

    def take(self, path: Path) -> Outcome:
        """What becomes of the file at ``path``."""
        with tempfile.TemporaryDirectory(dir=self._folder) as work:
            outcome = take_through(self.decoder, path, Path(work))
            if outcome.peak > outcome.allowed or SECRET in outcome.told or outcome.shows(SECRET_COLOUR):
                self.wrong.append(f"{path}: out of bounds")
        return outcome

    def row(self, name: str, outcomes: list[Outcome], *, ok: bool) -> None:
        """A row for what became of the files of a case."""
        if not ok or self.take(self._good).error:
            self.wrong.append(name)
        peak = max(one.peak for one in outcomes)
        said = ", ".join(dict.fromkeys(f"`{one.code}`" if one.error else _read(one) for one in outcomes))
        seconds = max(one.seconds for one in outcomes)
        told = f"{peak / 1e6:.0f}" if peak else "not told"
        print(f"| {name} | {said} | {seconds:.2f} | {told} |", flush=True)  # noqa: T201


def main() -> int:
    """Print the table; returns the exit status."""
    words = [word.lower() for word in sys.argv[1:]]
    print(f"<!-- {machine()} -->\n")  # noqa: T201
    with closing(Decoder()) as decoder, tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        table = Table(decoder, folder)
        for case in CASES:
            if words and not any(word in case.name.lower() for word in words):
                continue
            with tempfile.TemporaryDirectory(dir=folder) as own:
                plant(Path(own))
                outcome = table.take(write(case, Path(own)))
            fits = outcome.code == case.code and case.warning in " ".join(outcome.warnings)
            table.row(case.name, [outcome], ok=fits)
        if not words:
            _cut(table, folder)
    for name in table.wrong:
        print(f"otherwise than it should: {name}", file=sys.stderr)  # noqa: T201
    return 1 if table.wrong else 0


def _cut(table: Table, folder: Path) -> None:
    for extension, path in kinds.make(folder / "sound").items():
        data, outcomes = path.read_bytes(), []
        for share in SHARES:
            path.write_bytes(data[: len(data) * share // 100])
            outcomes.append(table.take(path))
        fits = {one.code for one in outcomes} <= CUT[extension]
        table.row(f"{extension.upper()} cut at every 5 % (worst of {len(SHARES)})", outcomes, ok=fits)


def _read(outcome: Outcome) -> str:
    said = outcome.warnings[0] if outcome.warnings else ""
    return f"read: {re.sub(_PLACE, '/', said)}" if said else "read"


if __name__ == "__main__":
    sys.exit(main())
