"""Every file that means harm ends as it should, in bounds, alone, and brings no other file to light.

``python -m tests.hostile`` runs them all, the slow ones too, and says what they cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import tests.kinds
from pipeline.decoder.process import Decoder
from pipeline.errors import InvalidRequestError
from pipeline.keys import parse_key
from pipeline.media import kinds
from pipeline.media.vector import missing_part
from tests.hostile.case import (
    SECRET,
    SECRET_COLOUR,
    SECRET_PICTURE,
    SECRET_TEXT,
    Case,
    Outcome,
    plant,
    take_through,
    write,
)
from tests.hostile.cases import CASES, CUT, SHARES
from tests.images import detailed, encoded


class Machine:
    """A worker's decoder, and files for it."""

    def __init__(self, decoder: Decoder, folder: Path) -> None:
        self.decoder = decoder
        self.folder = folder
        self.workdir = folder / "work"
        self.workdir.mkdir()
        self._sound = folder / "sound.jpg"
        self._sound.write_bytes(encoded(detailed((640, 480))))
        plant(folder)

    def take(self, path: Path, key: str | None = None) -> Outcome:
        outcome = take_through(self.decoder, path, self.workdir, key=key)
        assert outcome.peak <= outcome.allowed
        assert SECRET not in outcome.told
        assert not outcome.shows(SECRET_COLOUR)
        return outcome

    def is_as_before(self) -> bool:
        """Whether the next file is read as if nothing had been."""
        outcome = self.take(self._sound)
        made = [one.variant for output in outcome.outputs for one in output.renditions]
        return not outcome.error and not outcome.warnings and made == ["primary", "medium", "small"]


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with closing(Decoder()) as decoder:
        yield decoder


@pytest.fixture
def machine(decoder: Decoder, tmp_path: Path) -> Machine:
    return Machine(decoder, tmp_path)


def _skip_where_it_cannot_be_drawn(name: str) -> None:
    if name.endswith("svg") and (sentence := missing_part()):
        pytest.skip(sentence)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES if not case.slow])
def test_file_that_means_harm_ends_as_it_should(case: Case, machine: Machine) -> None:
    _skip_where_it_cannot_be_drawn(case.file)
    outcome = machine.take(write(case, machine.folder))
    assert (outcome.code, str(outcome.error or "")) == (case.code, str(outcome.error or ""))
    assert case.warning in " ".join(outcome.warnings)
    assert machine.is_as_before()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file of every type, by extension."""
    return tests.kinds.make(tmp_path_factory.mktemp("sound"))


@pytest.mark.parametrize("extension", CUT)
def test_file_that_breaks_off_says_so(extension: str, machine: Machine, sound: dict[str, Path]) -> None:
    _skip_where_it_cannot_be_drawn(extension)
    path = machine.folder / f"cut.{extension}"
    data = sound[extension].read_bytes()
    codes = set()
    for share in SHARES:
        path.write_bytes(data[: len(data) * share // 100])
        codes.add(machine.take(path).code)
    assert codes <= CUT[extension]
    path.write_bytes(data)
    assert machine.take(path).code == ""
    assert machine.is_as_before()


def test_one_file_of_every_type_is_cut() -> None:
    assert {kinds.BY_EXTENSION[f".{extension}"] for extension in CUT} == set(kinds.TYPES)


@pytest.mark.parametrize(
    "key",
    [
        "uploads/../../../etc/passwd",
        "../a.jpg",
        "/etc/passwd",
        "uploads//./a.jpg",
        "uploads/a\n\r\x1b[2J\x07.jpg",
        "uploads/\u202egpj.exe",
        "uploads/" + "\U0001f98b" * 254,
        "uploads/" + "a" * 1016,
        "uploads/'; DROP TABLE media_items; --.jpg",
        "uploads/$(reboot).jpg",
        "uploads/-o.jpg",
    ],
    ids=ascii,
)
def test_name_that_means_harm_is_a_name(key: str, machine: Machine) -> None:
    outcome = machine.take(machine.folder / "sound.jpg", key)
    assert outcome.code == ""
    assert all(one.path.parent == machine.workdir for out in outcome.outputs for one in out.renditions)


@pytest.mark.parametrize(
    "key", ["", "uploads/a\0.jpg", "uploads/" + "a" * 1017, "\U0001f98b" * 257], ids=ascii
)
def test_name_that_cannot_be_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequestError):
        parse_key(key)


def test_file_of_this_machine_would_be_seen(machine: Machine) -> None:
    text = take_through(machine.decoder, machine.folder / SECRET_TEXT, machine.workdir)
    assert SECRET in text.told
    picture = take_through(machine.decoder, machine.folder / SECRET_PICTURE, machine.workdir)
    assert picture.shows(SECRET_COLOUR)
