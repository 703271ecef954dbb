"""SVG: what a drawing says of itself, and its picture by librsvg's ``rsvg-convert``.

The program reads the drawing from its standard input, so that it has no base address and follows no reference
to a file or host. It runs no script.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.errors import PermanentStageError, StageError, TransientStageError
from pipeline.media.image import Still, decoding
from pipeline.media.paper import Size, covering
from pipeline.media.reader import Description, Limits
from pipeline.media.svg import Drawing, read_svg
from pipeline.media.text import shortened, storable

PROGRAM = "rsvg-convert"
_CPU_S, _WALL_S = 10, 50  # seconds that the program may take: of CPU time, and in all
_MOST_OUTPUT = 100_000_000  # bytes
_LONGEST_SIDE = 1_000_000  # pixels that a drawing may claim and be believed
_LONGEST_VALUE = 1000
_FONT_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "/System/Library/Fonts", "/Library/Fonts")
_FONT_FILES = {".ttf", ".otf", ".ttc", ".pfb"}


def missing_part() -> str | None:
    """What keeps drawings from being read on this machine, and how to mend it; None if nothing does."""
    if shutil.which(PROGRAM):
        return None
    return f"SVG needs {PROGRAM}, which is not installed here: apt-get install librsvg2-bin (Debian, Ubuntu)."


def missing_fonts() -> str | None:
    """A sentence if this machine has no font, so that the text of drawings is left out of their pictures."""
    files = (file for folder in _FONT_FOLDERS for file in Path(folder).rglob("*"))
    if any(file.suffix.lower() in _FONT_FILES for file in files):
        return None
    return "No font is installed here, so text in drawings does not show: apt-get install fonts-dejavu-core."


def describe(path: Path, limits: Limits) -> Description:
    """Size, title, text, and what is inside that is not shown. Raises what ``read_svg`` raises."""
    drawing = read_svg(path)
    size = drawing.size()
    notes = list(_warnings(drawing))
    if size is not None and max(size) > _LONGEST_SIDE:
        notes.append(f"The drawing claims to be {max(size):.3g} pixels long; only its shape is believed.")
        size = None
    width, height = (None, None) if size is None else (max(1, round(side)) for side in size)
    details: dict[str, Any] = {
        "format": "SVG",
        "view_box": drawing.view_box(),
        "elements": drawing.elements,
        "embedded_files": drawing.embedded,
        "external_references": list(drawing.references),
        "scripts": drawing.scripts,
        "animated": drawing.animated,
    }
    told = {"title": drawing.title[:_LONGEST_VALUE], "description": drawing.description[:_LONGEST_VALUE]}
    text, cut = shortened("\n".join(drawing.texts), limits)
    return Description(
        width=width,
        height=height,
        title=told["title"] or None,
        text=text,
        details=details | {key: value for key, value in told.items() if value},
        warnings=(*notes, *cut),
    )


@contextmanager
def picture(path: Path, limits: Limits, at_least: Size) -> Iterator[Still]:
    """The drawing just covering ``at_least``, with its transparency.

    Raises what ``describe`` raises, and PART_MISSING where the program is not installed.
    """
    drawing = read_svg(path)
    if sentence := missing_part():
        raise PermanentStageError(sentence, code="PART_MISSING")
    size = covering(drawing.size() or (1, 1), at_least, limits.pixels)
    with tempfile.TemporaryDirectory(prefix="dailies-svg-") as folder:
        drawn = _draw(path, size, Path(folder))
        with decoding(drawn), Image.open(drawn, formats=("PNG",)) as image:
            image.load()
        yield Still(image, path, orientation=1, to_apply=1, warnings=())


def _draw(path: Path, size: Size, folder: Path) -> Path:
    """Let the program draw ``path`` into a PNG in ``folder``, no larger than ``size``."""
    drawn, said = folder / "drawing.png", folder / "said"
    command = [PROGRAM, "--keep-aspect-ratio", "--width", str(size[0]), "--height", str(size[1])]
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder), "LC_ALL": "C.UTF-8"}
    with path.open("rb") as source, drawn.open("wb") as target, said.open("wb") as errors:
        process = subprocess.Popen(  # noqa: S603 - a fixed program; nothing that the file says is on its line
            command, stdin=source, stdout=target, stderr=errors, cwd=folder, env=environment
        )
        with process:
            # Should this process be killed meanwhile, the program ends soon after.
            with suppress(OSError, ValueError):  # it has ended already; or a lower limit holds
                # It is told first (SIGXCPU), and killed if that does not end it.
                resource.prlimit(process.pid, resource.RLIMIT_CPU, (_CPU_S, _CPU_S + 2))
            try:
                status = process.wait(_WALL_S)
            except BaseException as error:
                process.kill()
                if isinstance(error, subprocess.TimeoutExpired):
                    raise _slow() from error
                raise
    if status != 0 or drawn.stat().st_size > _MOST_OUTPUT:
        with said.open(encoding="utf-8", errors="replace") as answer:
            raise _undrawn(status, " ".join(storable(answer.read(300)).split()))
    return drawn


def _slow() -> StageError:
    return TransientStageError(
        f"The drawing was not drawn within {_WALL_S} s: it is too complex, or this machine is overloaded.",
        code="TIME_LIMIT_EXCEEDED",
    )


def _undrawn(status: int, said: str) -> StageError:
    """What is wrong with a drawing at which the program ended with ``status``, below 0 for a signal."""
    if status == -signal.SIGKILL and not said:
        return TransientStageError("Something ended the program that draws.", code="DECODER_CRASHED")
    # It aborts where it gets no more memory.
    if status < 0 or "exceeded" in said or "cannot load more" in said:
        return PermanentStageError(
            "Drawing it takes more time or memory than one file may use; upload a simpler one.",
            code="VECTOR_TOO_COMPLEX",
        )
    return PermanentStageError(
        f"The drawing cannot be drawn: {PROGRAM} says {said!r}; repair it and upload it again.",
        code="CORRUPT_VECTOR",
    )


def _warnings(drawing: Drawing) -> Iterator[str]:
    if drawing.references:
        first = next(iter(drawing.references))
        yield f"The drawing refers to what lies outside of it, such as {first[:80]!r}; nothing is fetched."
    if drawing.scripts:
        yield "The drawing carries scripts; they are not run."
    if drawing.foreign:
        yield "The drawing holds HTML, which is not shown."
    if drawing.size() is None:
        yield "The drawing does not say how large it is."
    if drawing.has_letters and (sentence := missing_fonts()):
        yield sentence
