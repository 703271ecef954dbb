"""What a case is, and what a worker makes of it: ingest, metadata and thumbnails, in one decoder."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import numpy as np
from PIL import Image

from cli.stage import described
from pipeline.decoder.budget import budget_for
from pipeline.decoder.process import Decoder
from pipeline.decoder.serve import MOST_HELD
from pipeline.errors import DailiesError
from pipeline.media.pictures import place_beside
from pipeline.stages import STAGES
from pipeline.stages.base import Asset, Context, LocalFile, StageOutput
from pipeline.workflows import StageName

READING = (StageName.INGEST, StageName.METADATA, StageName.THUMBNAILS)
SECRET, SECRET_COLOUR = "hunter2-in-a-file-of-this-machine", (255, 0, 255)
SECRET_TEXT, SECRET_PICTURE = "secret.txt", "secret.png"
Maker = Callable[[Path], bytes | str | object]


@dataclass(frozen=True, slots=True)
class Case:
    """A file that means harm, and what it must come to."""

    name: str
    file: str  #: the name it is uploaded under
    make: Maker  #: gives the file's content, or writes it to the path that it is given
    code: str = ""  #: of the error it ends with; "" if it is read
    warning: str = ""  #: part of one that it must have
    slow: bool = False  #: takes seconds, and is left to ``python -m tests.hostile``


@dataclass(slots=True)
class Outcome:
    """What became of a file."""

    error: DailiesError | None = None
    outputs: list[StageOutput] = field(default_factory=list)
    seconds: float = 0.0
    peak: int = 0  #: bytes: the most that the decoder held; 0 if it did not live to tell
    allowed: int = 0  #: bytes that it might have held then

    @property
    def code(self) -> str:
        """Of the error; "" if it was read."""
        return self.error.code if self.error else ""

    @property
    def warnings(self) -> list[str]:
        """Of all stages."""
        return [warning for output in self.outputs for warning in output.warnings]

    @property
    def told(self) -> str:
        """Everything that the stages say, for people and for the database."""
        values = [output.value.model_dump(mode="json") for output in self.outputs]
        return json.dumps([values, self.warnings, str(self.error or "")], allow_nan=False)

    def shows(self, colour: tuple[int, int, int]) -> bool:
        """Whether a thumbnail has an area of about ``colour``."""
        for output in self.outputs:
            for one in output.renditions:
                with Image.open(one.path) as image:
                    pixels = np.asarray(image.convert("RGB"), np.int16)
                if (np.abs(pixels - colour).max(axis=2) < 60).mean() > 0.001:
                    return True
        return False


def plant(folder: Path) -> None:
    """Put what no file may bring to light into ``folder``."""
    (folder / SECRET_TEXT).write_text(SECRET, encoding="utf-8")
    Image.new("RGB", (64, 64), SECRET_COLOUR).save(folder / SECRET_PICTURE)


def write(case: Case, folder: Path) -> Path:
    """Make the file of ``case`` in ``folder``."""
    path = folder / case.file
    content = case.make(path)
    if isinstance(content, (bytes, str)):
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def take_through(decoder: Decoder, path: Path, workdir: Path, *, key: str | None = None) -> Outcome:
    """Run the stages that read on the file at ``path``, as a worker does; its pictures go to ``workdir``."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    local = LocalFile(path, path.stat().st_size, digest)
    asset = Asset(media_item_id=uuid4(), key=key or f"uploads/{path.name}", size=local.size, sha256=digest)
    context = Context(local, workdir, primary=place_beside(path))
    outcome, started = Outcome(), time.perf_counter()
    for name in READING:
        decoder.peak = 0
        try:
            output = decoder.run(STAGES[name], asset, context)
        except DailiesError as error:
            outcome.error = error
        else:
            outcome.outputs.append(output)
            asset = described(asset, output)
        if decoder.peak > outcome.peak:
            outcome.peak = decoder.peak
            outcome.allowed = MOST_HELD + budget_for(name, asset.kind, local.size).memory
        if outcome.error:
            break
    if not decoder.peak:  # it ended in the last of the stages, which is the one that counts
        outcome.peak = 0
    outcome.seconds = time.perf_counter() - started
    return outcome
