"""SVG: drawn by its own size, told by its own words; what it names elsewhere is never opened."""

from __future__ import annotations

import base64
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from pipeline.errors import PermanentStageError, StageError, TransientStageError
from pipeline.media import vector as reader
from pipeline.media.colour import on_white
from pipeline.media.reader import Description
from tests.documents import ENOUGH, LIMITS, SVG, svg, written
from tests.images import RED, encoded

needs_program = pytest.mark.skipif(
    shutil.which(reader.PROGRAM) is None, reason="rsvg-convert is not installed"
)
WHITE = (255, 255, 255)


def described(folder: Path, data: str | bytes) -> Description:
    return reader.describe(written(folder, data), LIMITS)


def drawn(folder: Path, data: str | bytes) -> Image.Image:
    with reader.picture(written(folder, data), LIMITS, ENOUGH) as still:
        still.load()
        return on_white(still.image.copy())


def refused(folder: Path, data: str | bytes) -> str:
    codes = set()
    for read in (described, drawn):
        with pytest.raises(PermanentStageError) as error:
            read(folder, data)
        codes.add(error.value.code)
    return codes.pop() if len(codes) == 1 else str(codes)


def colours(image: Image.Image) -> set[object]:
    return {colour for _, colour in image.getcolors(1 << 24) or ()}


def test_words_and_structure_are_found(tmp_path: Path) -> None:
    inside = "<title>Slate</title><desc>For\n  day 3</desc><g><text>Take <tspan>four</tspan></text></g>"
    inside += "<text>A\u202eB</text>"
    found = described(tmp_path, svg(inside, 'viewBox="0,0 160 90" width="320"'))
    assert (found.width, found.height, found.title) == (320, 180, "Slate")
    assert found.text == "Slate\nFor day 3\nTake four\nAB"
    assert found.details == {
        "format": "SVG",
        "view_box": [0, 0, 160, 90],
        "elements": 7,
        "embedded_files": 0,
        "external_references": [],
        "scripts": 0,
        "animated": False,
        "title": "Slate",
        "description": "For day 3",
    }


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ('width="100" height="50px"', (100, 50)),
        ('width="1in" height="25.4mm"', (96, 96)),
        ('width="72pt" height="6pc"', (96, 96)),
        ('width="2.54cm" height="1e2"', (96, 100)),
        ('viewBox="5 5 30 20"', (30, 20)),
        ('viewBox="0 0 30 20" width="100%" height="40"', (60, 40)),
        ('viewBox="0 0 30 20" width="60"', (60, 40)),
        ('width="0.2" height="0.2"', (1, 1)),
        ('width="1000000" height="1"', (1_000_000, 1)),
        ('width="1000001" height="1"', (None, None)),
        ('width="1e30" height="1e30"', (None, None)),
        ('width="9e999" height="1"', (None, None)),
        ('width="-5" height="5"', (None, None)),
        ('width="nan" height="5furlong"', (None, None)),
        ('viewBox="0 0 1e-320 1e308" width="1"', (None, None)),
        ('viewBox="0 0 nan 1"', (None, None)),
        ('viewBox="0 0 10"', (None, None)),
        ("", (None, None)),
    ],
)
def test_the_size_is_what_the_units_say(
    tmp_path: Path, attributes: str, size: tuple[int | None, int | None]
) -> None:
    found = described(tmp_path, svg("", attributes))
    assert (found.width, found.height) == size
    assert bool(found.warnings) == (size == (None, None))


def test_what_is_not_shown_or_run_is_told(tmp_path: Path) -> None:
    inside = '<script>alert(1)</script><rect onclick="x()"/><a xlink:href="javascript:x()"/><a href="https://e.org"/>'
    inside += '<use href="javascript:x()"/><use href="#a"/><image xlink:href=" file:///etc/hostname"/>'
    inside += '<image href="data:image/png;base64,AAAA"/><rect style="fill:url(other.svg#a)" fill="url(#b)"/>'
    inside += (
        "<style>@import 'a.css'; g { fill: url( \"http://e.org/x\" ) }</style><animate/><foreignObject/>"
    )
    found = described(tmp_path, f'<?xml-stylesheet href="s.css"?>{svg(inside)}')
    assert found.details["external_references"] == [
        "s.css",
        "file:///etc/hostname",
        "other.svg#a",
        "a.css",
        "http://e.org/x",
    ]
    assert (found.details["scripts"], found.details["embedded_files"], found.details["animated"]) == (
        3,
        1,
        True,
    )
    assert found.warnings == (
        "The drawing refers to what lies outside of it, such as 's.css'; nothing is fetched.",
        "The drawing carries scripts; they are not run.",
        "The drawing holds HTML, which is not shown.",
    )


@needs_program
def test_a_drawing_fills_its_picture(tmp_path: Path) -> None:
    image = drawn(tmp_path, svg('<rect x="80" width="80" height="90" fill="red"/>', 'viewBox="0 0 160 90"'))
    assert image.size == ENOUGH
    assert (image.getpixel((320, 360)), image.getpixel((960, 360))) == (WHITE, RED)


@needs_program
@pytest.mark.parametrize("size", ["1e5", "1e6", "1e9", "0.001"])
def test_no_claimed_size_makes_a_large_picture(tmp_path: Path, size: str) -> None:
    square = '<rect width="100%" height="100%" fill="red"/>'
    assert colours(drawn(tmp_path, svg(square, f'width="{size}" height="{size}"'))) == {RED}
    assert max(drawn(tmp_path, svg(square, f'width="{size}" height="5"')).size) <= 4096


@needs_program
def test_a_drawing_without_size_is_drawn_by_its_content(tmp_path: Path) -> None:
    assert colours(drawn(tmp_path, svg('<rect width="40" height="10" fill="red"/>', ""))) == {RED}


@needs_program
@pytest.mark.parametrize("where", ["file://{}", "{}", "{name}", "./{name}", "file:{name}", "//localhost{}"])
@pytest.mark.parametrize("element", ["image", "use", "css", "include", "sheet"])
def test_a_local_file_never_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, element: str, where: str
) -> None:
    monkeypatch.chdir(tmp_path)
    secret = written(tmp_path, encoded(Image.new("RGB", (160, 90), RED), "PNG"), "secret.png")
    if element == "use":
        secret = written(tmp_path, svg('<rect id="a" width="160" height="90" fill="red"/>'), "secret.svg")
    elif element in {"css", "sheet"}:
        secret = written(tmp_path, "rect { fill: red }", "secret.css")
    elif element == "include":
        secret = written(tmp_path, f'<rect {SVG} width="160" height="90" fill="red"/>', "secret.xml")
    address = where.format(secret, name=secret.name)
    white = '<rect width="160" height="90" style="stroke:none" fill="white"/>'
    inside = {
        "image": f'<image width="160" height="90" xlink:href="{address}"/>',
        "use": f'<use xlink:href="{address}#a"/>',
        "css": f"<style>@import url('{address}');</style>{white}",
        "include": f'<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="{address}"/>',
        "sheet": white,
    }[element]
    sheet = f'<?xml-stylesheet type="text/css" href="{address}"?>' if element == "sheet" else ""
    assert RED not in colours(drawn(tmp_path, sheet + svg(inside)))


@needs_program
def test_a_picture_inside_does_show(tmp_path: Path) -> None:
    inside = base64.b64encode(encoded(Image.new("RGB", (16, 9), RED), "PNG")).decode()
    element = f'<image width="160" height="90" xlink:href="data:image/png;base64,{inside}"/>'
    assert RED in colours(drawn(tmp_path, svg(element)))


@pytest.mark.parametrize(
    "head",
    [
        '<!DOCTYPE svg [<!ENTITY a "b">]>',
        '<!DOCTYPE svg [<!ENTITY a SYSTEM "file:///etc/hostname">]>',
        '<!DOCTYPE svg [<!ENTITY % a SYSTEM "http://127.0.0.1:1/">%a;]>',
        '<!DOCTYPE svg [<!ENTITY a "b"><!ENTITY c "&a;&a;&a;">]>',
    ],
)
def test_entities_are_refused(tmp_path: Path, head: str) -> None:
    assert refused(tmp_path, head + svg("<text>x</text>")) == "CORRUPT_VECTOR"


def test_the_usual_doctype_is_taken(tmp_path: Path) -> None:
    head = (
        '<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">'
    )
    assert described(tmp_path, head + svg()).width == 160


def test_a_dtd_elsewhere_is_not_read(tmp_path: Path) -> None:
    dtd = written(tmp_path, '<!ENTITY word "secret">', "words.dtd")
    head = f'<!DOCTYPE svg SYSTEM "file://{dtd}">'
    assert described(tmp_path, head + svg("<text>Take</text>")).text == "Take"
    assert refused(tmp_path, head + svg("<text>&word;</text>")) == "CORRUPT_VECTOR"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<",
        b"\x1f\x8b\x08\0",
        "<svg/>",
        "<html xmlns='http://www.w3.org/1999/xhtml'/>",
        svg("&x;"),
        svg("<g>"),
        '<?xml version="1.0" encoding="martian"?>' + svg(),
    ],
)
def test_what_is_no_drawing_is_corrupt(tmp_path: Path, data: str | bytes) -> None:
    assert refused(tmp_path, data) == "CORRUPT_VECTOR"


@pytest.mark.parametrize("share", range(5, 100, 5))
def test_a_cut_drawing_is_corrupt(tmp_path: Path, share: int) -> None:
    data = svg("<title>Slate</title><g><rect width='9' height='9'/></g>").encode()
    assert refused(tmp_path, data[: len(data) * share // 100]) == "CORRUPT_VECTOR"


def test_too_many_or_too_deep_elements_are_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, svg("<g/>" * 1_000_000)) == "VECTOR_TOO_COMPLEX"
    assert refused(tmp_path, svg("<g>" * 250 + "</g>" * 250)) == "VECTOR_TOO_COMPLEX"
    assert refused(tmp_path, svg(f"<!--{'x' * 33_000_000}-->")) == "VECTOR_TOO_COMPLEX"


@needs_program
def test_a_few_elements_used_a_billion_times_are_refused(tmp_path: Path) -> None:
    levels = (f'<g id="g{n}">' + f'<use xlink:href="#g{n - 1}"/>' * 10 + "</g>" for n in range(1, 10))
    bomb = svg(
        '<defs><rect id="g0" width="9" height="9"/>' + "".join(levels) + '</defs><use xlink:href="#g9"/>'
    )
    with pytest.raises(PermanentStageError) as error:
        drawn(tmp_path, bomb)
    assert error.value.code == "VECTOR_TOO_COMPLEX"


def test_without_the_program_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert described(tmp_path, svg()).width == 160
    with pytest.raises(PermanentStageError, match="librsvg2-bin") as error:
        drawn(tmp_path, svg())
    assert error.value.code == "PART_MISSING"
    assert str(error.value) == reader.missing_part()


def test_a_machine_without_fonts_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_FONT_FOLDERS", (str(tmp_path / "none"), str(tmp_path)))
    assert described(tmp_path, svg("<text>Take 4</text>")).warnings == (reader.missing_fonts(),)
    assert described(tmp_path, svg("<title>Take 4</title>")).warnings == ()
    written(tmp_path, b"", "a.ttf")
    assert described(tmp_path, svg("<text>Take 4</text>")).warnings == ()


@pytest.mark.parametrize(
    ("ending", "sort", "code"),
    [
        ("kill -ABRT $$", PermanentStageError, "VECTOR_TOO_COMPLEX"),
        ("kill -KILL $$", TransientStageError, "DECODER_CRASHED"),
        ("echo cannot >&2; exit 1", PermanentStageError, "CORRUPT_VECTOR"),
        ("exec sleep 300", TransientStageError, "TIME_LIMIT_EXCEEDED"),
        ("echo no picture", PermanentStageError, "CORRUPT_IMAGE"),
        ("env >&2; pwd >&2; exit 1", PermanentStageError, "CORRUPT_VECTOR"),
    ],
)
def test_however_the_program_ends_there_is_a_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, sort: type[StageError], code: str
) -> None:
    program = written(tmp_path, f"#!/bin/sh\necho $$ > {tmp_path}/id\n{ending}\n", reader.PROGRAM)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    monkeypatch.setattr(reader, "_WALL_S", 2)
    with pytest.raises(sort) as error:
        drawn(tmp_path, svg())
    assert error.value.code == code
    assert "hidden" not in str(error.value)
    assert not Path(f"/proc/{(tmp_path / 'id').read_text().strip()}").exists()
