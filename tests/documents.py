"""Small PDF documents and drawings, written by hand: libraries write only sound ones."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pipeline.media.reader import Limits

LIMITS = Limits(pixels=12_000_000, text=5_000)
ENOUGH = (1280, 720)
SVG = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
_FONT = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
#: What pads passwords (ISO 32000-1, 7.6.3.3)
_PADDING = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")


def written(folder: Path, data: bytes | str, name: str = "file") -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def svg(inside: str = "", attributes: str = 'viewBox="0 0 160 90"') -> str:
    return f"<svg {SVG} {attributes}>{inside}</svg>"


def pdf(
    *pages: str,
    box: str = "0 0 612 792",
    count: int | None = None,
    kids: str | None = None,
    catalog: str = "",
    page: str = "",
    info: str = "",
    trailer: str = "",
    more: tuple[str, ...] = (),
) -> bytes:
    """A document with a line of text on each page; ``count``, ``kids`` and the rest replace what is right.

    Objects: 1 catalog, 2 page tree, 3 font, 4 information, then ``more``, then page and content in turn.
    """
    pages = pages or ("Hello",)
    first = 5 + len(more)
    numbers = [first + 2 * place for place in range(len(pages))]
    kids = kids or " ".join(f"{number} 0 R" for number in numbers)
    objects = [
        f"<< /Type /Catalog /Pages 2 0 R {catalog} >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages) if count is None else count} >>",
        _FONT.decode(),
        f"<< {info} >>",
        *more,
    ]
    for number, text in zip(numbers, pages, strict=True):
        content = f"BT /F 24 Tf 72 700 Td ({text}) Tj ET"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [{box}] /Contents {number + 1} 0 R "
            f"/Resources << /Font << /F 3 0 R >> >> {page} >>"
        )
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
    return _file(objects, f"/Info 4 0 R {trailer}")


def encrypted(*, owner: bytes = b"o" * 32, opens_without_password: bool) -> bytes:
    """A document under RC4 with 40 bits; its strings and streams are left plain, which shows as noise."""
    identifier, permissions = b"0123456789abcdef", -4
    made_of = _PADDING + owner + permissions.to_bytes(4, "little", signed=True) + identifier
    key = hashlib.md5(made_of, usedforsecurity=False).digest()[:5]
    user = _rc4(key, _PADDING) if opens_without_password else b"u" * 32
    return pdf(
        trailer=f"/ID [<{identifier.hex()}> <{identifier.hex()}>] /Encrypt << /Filter /Standard /V 1 /R 2 "
        f"/O <{owner.hex()}> /U <{user.hex()}> /P {permissions} >>"
    )


def _file(objects: list[str], trailer: str) -> bytes:
    data, places = b"%PDF-1.7\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(data))
        data += f"{number} 0 obj\n{content}\nendobj\n".encode("latin-1")
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    end = f"xref\n0 {len(places) + 1}\n0000000000 65535 f \n{table}trailer\n"
    end += f"<< /Size {len(places) + 1} /Root 1 0 R {trailer} >>\nstartxref\n{len(data)}\n%%EOF\n"
    return data + end.encode()


def _rc4(key: bytes, data: bytes) -> bytes:
    state, other = list(range(256)), 0
    for place in range(256):
        other = (other + state[place] + key[place % len(key)]) % 256
        state[place], state[other] = state[other], state[place]
    place, other, out = 0, 0, bytearray()
    for byte in data:
        place = (place + 1) % 256
        other = (other + state[place]) % 256
        state[place], state[other] = state[other], state[place]
        out.append(byte ^ state[(state[place] + state[other]) % 256])
    return bytes(out)
