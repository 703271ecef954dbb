"""What a media item can be found by: the words of its name, and what the metadata stage found."""

from __future__ import annotations

import calendar
import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict

from pipeline.keys import parse_key
from pipeline.stages.base import Asset, Context, Stage, StageOutput
from pipeline.workflows import StageName

# Where a name changes hands: "SunsetOver", "HTTPServer", "IMG1234", "4K".
_SEAM = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=\d)(?=[^\W\d_])|(?<=[^\W\d_])(?=\d)")


class IndexValue(BaseModel):
    """The search document of a media item."""

    model_config = ConfigDict(frozen=True)

    title: str  #: the file's name in words, and the title that it gives itself
    keywords: str  #: separated by blanks
    facets: dict[str, Any]  #: JSON


def run(asset: Asset, _ctx: Context) -> StageOutput:
    """Compose the document. Takes the asset as the stages before left it, and no file."""
    return StageOutput(document_of(asset))


def document_of(asset: Asset) -> IndexValue:
    """What ``asset`` can be found by, from what is known of it so far."""
    parsed = parse_key(asset.key)
    path = PurePosixPath(asset.key)
    folders = [part for part in path.parts[:-1] if part != "/"]
    keywords = [
        parsed.filename,  # the raw name, and its stem: an editor pastes either
        path.stem,
        *(word for folder in folders for word in (folder, *words_of(folder))),
        *_keywords(asset),
    ]
    return IndexValue(
        title=" ".join(filter(None, (" ".join(words_of(path.stem)) or parsed.filename, asset.title))),
        keywords=" ".join(dict.fromkeys(_normal(word) for word in keywords if word)),
        facets={
            "kind": asset.kind,
            "mime_type": asset.mime_type,
            "camera": camera_of(asset),
            "year": asset.captured_at.year if asset.captured_at else None,
            "has_gps": asset.gps is not None,
            "prefix": parsed.prefix.rstrip("/"),
            "folder": "/".join(folders),
        },
    )


def words_of(name: str) -> list[str]:
    """The words of a name: split at whatever is no letter, mark or digit, around numbers, in camelCase."""
    spaced = "".join(mark if unicodedata.category(mark)[0] in "LMN" else " " for mark in _normal(name))
    return _SEAM.sub(" ", spaced).split()


def camera_of(asset: Asset) -> str | None:
    """Make and model as one name, the make once: most models begin with it."""
    camera = asset.metadata.get("camera", {})
    make, model = camera.get("make", ""), camera.get("model", "")
    first = make.split(" ", 1)[0].lower()
    return (model if first and model.lower().startswith(first) else f"{make} {model}".strip()) or None


def _keywords(asset: Asset) -> Iterable[str]:
    camera = asset.metadata.get("camera", {})
    yield from (camera_of(asset) or "", camera.get("make", ""), camera.get("lens", ""))
    yield from asset.metadata.get("keywords", [])
    yield from (asset.kind or "", asset.mime_type or "", (asset.mime_type or "").rpartition("/")[2])
    if asset.captured_at is not None:
        yield from (str(asset.captured_at.year), calendar.month_name[asset.captured_at.month])
    if asset.width is not None and asset.height is not None:
        yield _shape(asset.width, asset.height)


def _shape(width: int, height: int) -> str:
    if width == height:
        return "square"
    return "landscape" if width > height else "portrait"


def _normal(text: str) -> str:
    """Composed letters: macOS writes names decomposed, and people search for what they type."""
    return unicodedata.normalize("NFC", text)


STAGE = Stage(StageName.INDEX, run, IndexValue, version="2", needs_file=False)
