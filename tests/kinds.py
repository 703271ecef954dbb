"""A folder with one file of every type that is read, made from the photographs of samples/.

``python -m tests.kinds FOLDER`` writes it; `make demo DIR=FOLDER` then takes it through a stack.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image, ImageOps
from pillow_jxl import JpegXLImagePlugin

from tests import media_files, metadata_files, raw_files
from tests.documents import pdf
from tests.images import encoded
from tests.media_files import SOUND_RATE

assert JpegXLImagePlugin  # imported: Pillow knows JPEG XL
SAMPLES = Path(__file__).resolve().parent.parent / "samples"
SIZE, SMALL = (1920, 1280), (640, 360)
SECONDS = 4.0
TAGS = {"title": "Tide and Lanterns", "artist": "The Dailies", "album": "Second Unit", "genre": "Score"}

SCRIPT = """Title: The Wren
Credit: written by
Author: A. Developer
Draft date: 11/21/2026

FADE IN:

EXT. CANYON - DAWN

A WREN lands on a rock. It looks straight at the CAMERA OPERATOR.

WREN
(unimpressed)
You again.

CAMERA OPERATOR
One more take.

INT. EDIT SUITE - NIGHT

The EDITOR drags a clip into a folder. It is findable before she lets go.

EDITOR
Huh.

> FADE OUT.
"""
NOTES = """Second unit, day 12

Slate 41 to 47, dunes. Wind noise on all takes after 15:00; use the wild track.
Otters: take 3 is the one. Watch the flare in the last second.
The wren did not sign a release.
"""
DRAWING = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 320 180">
<title>Dailies, station ident</title>
<defs><linearGradient id="dusk" x2="0" y2="1">
<stop stop-color="#20304f"/><stop offset="1" stop-color="#e08a4b"/></linearGradient></defs>
<rect width="320" height="180" fill="url(#dusk)"/><circle cx="236" cy="112" r="34" fill="#ffd27a"/>
<path d="M0 150 C60 110 120 160 180 128 S280 120 320 146 V180 H0Z" fill="#17233a"/>
<text x="24" y="60" font-family="sans-serif" font-size="34" fill="#fff">DAILIES</text></svg>
"""
PAGE = "Call sheet, day 12: crew call 06:30"


def main() -> None:
    """Write the folder that is named on the command line."""
    make(Path(sys.argv[1]))


def make(folder: Path) -> dict[str, Path]:
    """Write one file of every type into ``folder``; by extension."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, write in _WRITERS.items():
        path = folder / name
        write(path)
        paths[path.suffix[1:]] = path
    return paths


def _photograph(name: str, size: tuple[int, int] = SIZE) -> Image.Image:
    with Image.open(SAMPLES / name) as image:
        return ImageOps.fit(ImageOps.exif_transpose(image).convert("RGB"), size)


def _still(source: str, kind: str, **options: object) -> Callable[[Path], object]:
    return lambda path: _photograph(source).save(path, kind, **options)


def _heic(path: Path) -> None:
    pillow_heif.from_pillow(_photograph("osprey.jpg", (1280, 1600))).save(path, quality=70)


def _animation(path: Path) -> None:
    wide = _photograph("saturn.jpg", (800, 360))
    frames = [wide.crop((left, 0, left + SMALL[0], SMALL[1])) for left in range(0, 160, 40)]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:], duration=200, loop=0)


def _raw(path: Path) -> None:
    path.write_bytes(raw_files.dng(_photograph("dune.jpg", (480, 320)), _photograph("dune.jpg", (1440, 960))))


def _shell(kind: str, source: str) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(raw_files.shell(kind, _photograph(source, (1440, 960))))


def _video(kind: str, source: str) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        wide = _photograph(source, (SMALL[0] * 2, SMALL[1]))

        def paint(number: int) -> Image.Image:  # a pan, out of black
            left = min(number * 5, SMALL[0])
            frame = wide.crop((left, 0, left + SMALL[0], SMALL[1]))
            return Image.blend(Image.new("RGB", SMALL), frame, min(1.0, number / 12))

        media_files.video(path, kind, seconds=SECONDS, size=SMALL, paint=paint, sounds=1, tags=TAGS)

    return write


def _sound(kind: str, *, cover: str | None = None) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        time = np.arange(round(SECONDS * SOUND_RATE), dtype=np.float32) / SOUND_RATE
        swell = np.sin(np.pi * time / SECONDS) * (0.6 + 0.4 * np.sin(2 * np.pi * 2.5 * time))
        notes = sum(np.sin(2 * np.pi * pitch * time) for pitch in (220, 277.2, 329.6, 440)) / 4
        picture = None if cover is None else encoded(_photograph(cover, (600, 600)), quality=85)
        samples = np.tile((swell * notes).astype(np.float32), (2, 1))
        media_files.audio(path, kind, samples=samples, tags=TAGS, cover=picture)

    return write


def _text(body: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(body, encoding="utf-8")


def _sidecar(path: Path) -> None:
    told = metadata_files.bag("dc:subject", "dune", "second unit")
    path.write_bytes(metadata_files.packet(told, xmp__Rating="5", xmp__Label="Select"))


_WRITERS: dict[str, Callable[[Path], object]] = {
    "otters.jpg": _still("otters.jpg", "JPEG", quality=88),
    "hibiscus.png": _still("hibiscus-cutout.png", "PNG"),
    "meadow.webp": _still("meadow.webp", "WEBP", quality=80),
    "saturn.gif": _animation,
    "wind-tree.tif": _still("wind-tree.tif", "TIFF", compression="tiff_lzw"),
    "yellow-flower.bmp": lambda path: _photograph("yellow-flower-cmyk.jpg", SMALL).save(path, "BMP"),
    "osprey.heic": _heic,
    "wren.avif": _still("wren.jpg", "AVIF", quality=60),
    "tea-hills.jxl": _still("tea-hills.jpg", "JXL"),
    "dune.dng": _raw,
    "dune.cr2": _shell("CR2", "dune.jpg"),
    "otters.nef": _shell("NEF", "otters.jpg"),
    "wren.arw": _shell("ARW", "wren.jpg"),
    "osprey.raf": _shell("RAF", "osprey.jpg"),
    "dandelion.rw2": _shell("RW2", "dandelion.jpg"),
    "dune.xmp": _sidecar,
    "ident.svg": _text(DRAWING),
    "dune-pan.mp4": _video("mp4", "dune.jpg"),
    "otters-pan.mov": _video("mov", "otters.jpg"),
    "wren-pan.mkv": _video("mkv", "wren.jpg"),
    "saturn-pan.webm": _video("webm", "saturn.jpg"),
    "tea-hills-pan.avi": _video("avi", "tea-hills.jpg"),
    "lanterns.mp3": _sound("mp3", cover="dandelion.jpg"),
    "lanterns.m4a": _sound("m4a"),
    "lanterns.aac": _sound("aac"),
    "lanterns.wav": _sound("wav"),
    "lanterns.flac": _sound("flac"),
    "lanterns.ogg": _sound("ogg"),
    "call-sheet.pdf": lambda path: path.write_bytes(pdf(PAGE)),
    "notes.txt": _text(NOTES),
    "the-wren.fountain": _text(SCRIPT),
}


if __name__ == "__main__":
    main()
