from __future__ import annotations

import os
from pathlib import Path

import pytest

from cli.uploads import SAMPLES, find, find_all
from pipeline.errors import InvalidRequestError


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two folders that have a file name in common."""
    for name in ("party/IMG_1.jpg", "holiday/IMG_1.jpg", "holiday/sea/IMG_2.jpg"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return tmp_path


def keys(*paths: Path | str) -> list[str]:
    return [upload.key for upload in find_all([Path(path) for path in paths])]


def test_files_of_a_folder_are_below_its_name(pictures: Path) -> None:
    assert keys(pictures / "party", pictures / "holiday") == [
        "uploads/party/IMG_1.jpg",
        "uploads/holiday/IMG_1.jpg",
        "uploads/holiday/sea/IMG_2.jpg",
    ]


def test_a_file_is_below_nothing(pictures: Path) -> None:
    assert keys(pictures / "holiday" / "sea" / "IMG_2.jpg") == ["uploads/IMG_2.jpg"]


def test_find_alone_leaves_the_name_of_the_folder_out(pictures: Path) -> None:
    (pictures / "holiday" / ".DS_Store").write_text("what a desktop leaves")
    found = find(pictures / "holiday")
    assert [upload.key for upload in found] == ["uploads/IMG_1.jpg", "uploads/sea/IMG_2.jpg"]
    assert "uploads/otters.jpg" in [upload.key for upload in find(SAMPLES)]


@pytest.mark.parametrize(
    "given", [".", "./", "..", "sea/..", "../sea", "../sea/", "{folder}/sea/", "{folder}/sea/.."]
)
def test_every_way_to_name_a_folder_gives_it_a_name(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    folder = pictures / "holiday"
    monkeypatch.chdir(folder if given in (".", "./", "sea/..") else folder / "sea")
    in_sea = given.rstrip("/").endswith("sea")
    path = given.format(folder=folder)
    expected = (
        ["uploads/sea/IMG_2.jpg"]
        if in_sea
        else ["uploads/holiday/IMG_1.jpg", "uploads/holiday/sea/IMG_2.jpg"]
    )
    assert keys(path) == expected
    assert all(upload.path.is_file() for upload in find_all([Path(path)]))


def test_a_link_to_a_folder_has_the_name_of_the_link(pictures: Path) -> None:
    (pictures / "summer").symlink_to(pictures / "party")
    assert keys(pictures / "summer") == ["uploads/summer/IMG_1.jpg"]


def test_the_root_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    # The whole machine is not for a test.
    monkeypatch.setattr(os, "walk", lambda top: [(str(top), [], ["swap.jpg"])])
    assert keys("/") == keys("/..") == ["uploads/swap.jpg"]


def test_what_is_given_twice_is_found_once(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pictures / "party")
    (pictures / "gone.jpg").symlink_to(pictures / "nowhere")
    file, gone = pictures / "holiday" / "IMG_1.jpg", pictures / "gone.jpg"
    assert keys(".", "../party", pictures / "party") == ["uploads/party/IMG_1.jpg"]
    assert keys(file, file, gone, gone) == ["uploads/IMG_1.jpg", "uploads/gone.jpg"]


@pytest.mark.parametrize(
    ("one", "other"),
    [("party/IMG_1.jpg", "holiday/IMG_1.jpg"), ("party", "old/party")],
    ids=["files", "folders"],
)
def test_two_files_for_one_key_are_refused_with_both_names(pictures: Path, one: str, other: str) -> None:
    (pictures / "old" / "party").mkdir(parents=True)
    (pictures / "old" / "party" / "IMG_1.jpg").write_text("another")
    with pytest.raises(InvalidRequestError) as caught:
        keys(pictures / one, pictures / other)
    assert caught.value.code == "DUPLICATE_KEY"
    for path in (pictures / one, pictures / other):
        assert str(path if path.is_file() else path / "IMG_1.jpg") in caught.value.message


def test_what_cannot_be_uploaded_takes_no_key(pictures: Path) -> None:
    (pictures / "IMG_1.jpg").symlink_to("IMG_1.jpg")  # a loop
    for name in (b"\xfe.jpg", b"\xff.jpg"):
        (pictures / "party" / os.fsdecode(name)).write_text("no UTF-8")
    found = find_all([pictures / "IMG_1.jpg", pictures / "party" / "IMG_1.jpg", pictures / "party"])
    assert [(upload.key, upload.error_code) for upload in found] == [
        ("uploads/IMG_1.jpg", "UNREADABLE_FILE"),
        ("uploads/IMG_1.jpg", None),
        ("uploads/party/?.jpg", "UNREADABLE_NAME"),
        ("uploads/party/?.jpg", "UNREADABLE_NAME"),
        ("uploads/party/IMG_1.jpg", None),
    ]


def test_a_link_that_leads_to_itself_is_told_of_and_stops_nothing(pictures: Path) -> None:
    (pictures / "party" / "loop.jpg").symlink_to("loop.jpg")
    codes = {upload.key: upload.error_code for upload in find(pictures / "party")}
    assert codes == {"uploads/IMG_1.jpg": None, "uploads/loop.jpg": "UNREADABLE_FILE"}


def test_a_key_that_no_listener_takes_is_refused(tmp_path: Path) -> None:
    name = "é" * 100  # 200 bytes
    folder = tmp_path.joinpath(*[name] * 5)
    folder.mkdir(parents=True)
    fits, too_long = folder / "x.jpg", folder / ("x" * 20 + ".jpg")
    fits.write_text("x")
    too_long.write_text("x")
    codes = {upload.path: upload.error_code for upload in find_all([tmp_path / name])}
    assert codes == {fits: None, too_long: "KEY_TOO_LONG"}
