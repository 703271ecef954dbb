"""What a reader of files is: two plain functions, one for what a file says, one for the picture of it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from pipeline.media.image import Still

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a reader may spend on one file, beside the memory and time that its process is given."""

    pixels: int = 250_000_000  #: of one decoded picture
    text: int = 200_000  #: characters of text kept: the words of more might not fit a tsvector (1 MB)


@dataclass(frozen=True, slots=True)
class Description:
    """What a file says of itself. None and empty where it says nothing."""

    width: int | None = None  #: pixels, upright; None where there is no picture in it
    height: int | None = None
    orientation: int = 1  #: as the file says, EXIF's 1 to 8
    captured_at: datetime | None = None  #: in UTC where the file gives no offset
    gps: tuple[float, float] | None = None  #: latitude, longitude in degrees
    duration_seconds: float | None = None
    title: str | None = None
    text: str = ""  #: what is written inside, for the search
    details: dict[str, Any] = field(default_factory=dict)  #: JSON, by docs/metadata.md
    warnings: tuple[str, ...] = ()


class Reader(Protocol):
    """A module that reads some types of files. Neither function trusts a byte.

    Both raise PermanentStageError, with a code of docs/errors.md, for bytes that cannot be read.
    """

    def describe(self, path: Path, limits: Limits) -> Description:
        """What the file says of itself, and whether it is what it claims to be."""
        ...

    def picture(self, path: Path, limits: Limits, at_least: Size) -> AbstractContextManager[Still]:
        """The picture that stands for the file, no smaller than ``at_least`` where it can be had cheaply."""
        ...
