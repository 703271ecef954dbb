"""A contact sheet: every file's picture on one page, with its name and what became of it."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from cli.client import Api
from cli.follow import Items
from cli.outcome import summary
from pipeline.errors import DailiesError

COLUMNS = 4
PICTURE = (320, 180)
GAP, CAPTION, HEADER = 24, 52, 84
PAPER, INK, FAINT, SLATE = "#f6f4ef", "#1d1d1f", "#7a776f", "#dedad0"
COLOURS = {"completed": "#2f7d4f", "failed": "#b3372f", "cancelled": "#a86f00"}
MAX_TILES = 200  #: more are counted in the header


def draw(api: Api, files: list[dict[str, Any]], items: Items, path: Path) -> None:
    """Write the sheet of ``files`` (entries of ``outcome.collect``) to ``path``; its ending is the format."""
    shown = files[:MAX_TILES]
    rows = max(-(-len(shown) // COLUMNS), 1)
    width = COLUMNS * (PICTURE[0] + GAP) + GAP
    sheet = Image.new("RGB", (width, HEADER + rows * (PICTURE[1] + CAPTION + GAP)), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, 22), "Dailies", font=_font(30), fill=INK)
    pen.text((width - GAP, 36), summary(files), font=_font(16), fill=FAINT, anchor="ra")
    for index, file in enumerate(shown):
        row, column = divmod(index, COLUMNS)
        corner = (GAP + column * (PICTURE[0] + GAP), HEADER + row * (PICTURE[1] + CAPTION + GAP))
        _tile(sheet, pen, corner, file, _picture(api, items.get(file["key"])))
    sheet.save(path, quality=90)


def _tile(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    file: dict[str, Any],
    picture: Image.Image | None,
) -> None:
    x, y = corner
    status = file["status"] or "not final"
    colour = COLOURS.get(status, FAINT)
    if picture:
        sheet.paste(picture, corner)
    else:
        pen.rectangle((x, y, x + PICTURE[0] - 1, y + PICTURE[1] - 1), fill=SLATE)
        middle = (x + PICTURE[0] // 2, y + PICTURE[1] // 2)
        pen.text(middle, file["error_code"] or "no picture", font=_font(16), fill=colour, anchor="mm")
    below = y + PICTURE[1] + 8
    pen.text((x, below), _fitted(pen, file["key"].rpartition("/")[2]), font=_font(16), fill=INK)
    pen.ellipse((x, below + 27, x + 9, below + 36), fill=colour)
    pen.text((x + 16, below + 23), _fitted(pen, _note(file, status)), font=_font(13), fill=FAINT)


def _note(file: dict[str, Any], status: str) -> str:
    if file["duplicate_of"]:
        return f"duplicate of {file['duplicate_of'].rpartition('/')[2]}"
    parts = [status]
    if file["width"]:
        parts.append(f"{file['width']} x {file['height']}")
    if file["captured_at"]:
        parts.append(file["captured_at"][:10])
    return "  ".join(parts)


def _fitted(pen: ImageDraw.ImageDraw, text: str) -> str:
    """The text, shortened in its middle until it is no wider than a picture."""
    keep = len(text)
    fitted = text
    while keep > 4 and pen.textlength(fitted, font=_font(16)) > PICTURE[0]:  # noqa: PLR2004 - a few letters
        keep -= 2
        fitted = f"{text[: keep // 2]}...{text[-(keep // 2) :]}"
    return fitted


def _picture(api: Api, item: dict[str, Any] | None) -> Image.Image | None:
    small = next((one for one in (item or {}).get("thumbnails", []) if one["variant"] == "small"), None)
    if small is None:
        return None
    try:
        with Image.open(io.BytesIO(api.picture(small["url"]))) as picture:
            return picture.convert("RGB").resize(PICTURE)
    except (DailiesError, OSError):
        return None  # the sheet is for looking at: one picture less is seen


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font of this machine that knows accents, else Pillow's own, which knows few."""
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)
