"""What a stage is: a plain function on a file and a description, and the value it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from pipeline.media.reader import Limits
from pipeline.workflows import StageName


class Asset(BaseModel):
    """What is known of a media item when a stage starts: where it is, and what earlier stages found."""

    model_config = ConfigDict(frozen=True)

    media_item_id: UUID
    bucket: str = ""
    key: str
    version_id: str | None = None
    etag: str | None = None
    size: int | None = None  #: bytes
    content_type: str | None = None  #: as the uploader said; never trusted
    entity_type: str = "media_item"
    entity_id: UUID | None = None  #: None: the media item itself
    mime_type: str | None = None
    kind: str | None = None
    sha256: str | None = None
    width: int | None = None  #: pixels, orientation applied
    height: int | None = None
    captured_at: datetime | None = None
    gps: tuple[float, float] | None = None  #: latitude, longitude in degrees
    title: str | None = None  #: as the file says
    metadata: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A local copy of an object's bytes."""

    path: Path
    size: int  #: bytes
    sha256: str  #: hexadecimal
    #: as the uploader said: known to whoever downloaded the file, never trusted
    content_type: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Context:
    """What a stage may use besides the asset."""

    file: LocalFile | None  #: set for stages that need the bytes
    workdir: Path  #: an empty folder of its own; deleted after the stage
    #: where the stage that decodes first leaves the picture for the next one; None: each decodes for itself
    primary: Path | None = None
    config: Mapping[str, Any] = field(default_factory=dict)  #: the job's ``config``
    size_limit: int = 200_000_000  #: bytes
    limits: Limits = field(default_factory=Limits)
    jpeg_quality: int = 85

    def require_file(self) -> LocalFile:
        """The file, for a stage registered with ``needs_file``."""
        if self.file is None:
            msg = "this stage was registered without needs_file and asks for the file"
            raise LookupError(msg)
        return self.file


@dataclass(frozen=True, slots=True)
class Rendition:
    """A file that a stage made, to be stored under a key of its own before the stage settles."""

    variant: str
    path: Path
    content_type: str
    extension: str  #: without the dot
    width: int
    height: int
    fingerprint: str  #: of source bytes, parameters and processor version; part of the key


@dataclass(frozen=True, slots=True)
class StageOutput:
    """What a stage returns: a value for the database, and files for the bucket."""

    value: BaseModel
    renditions: tuple[Rendition, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: the function, and what the engine must know to run it."""

    name: StageName
    run: Callable[[Asset, Context], StageOutput]
    value: type[BaseModel]  #: what its output holds
    version: str  #: changes whenever the same input may give another output
    needs_file: bool = True
    decodes: bool = False  #: reads what a stranger has written: runs in a process of its own, under limits
