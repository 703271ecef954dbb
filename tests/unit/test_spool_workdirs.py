from __future__ import annotations

from pathlib import Path

from pipeline.spool import sweep_workdirs


def _left(directory: Path, *names: str) -> None:
    for name in names:
        (directory / "work" / name).mkdir(parents=True)
        (directory / "work" / name / "primary.jpg").write_bytes(b"half a picture")


def test_folders_of_attempts_that_are_over_are_deleted(tmp_path: Path) -> None:
    _left(tmp_path, "7-abc", "8-def", "9-ghi", "notes")
    asked: list[frozenset[int]] = []

    def living(tokens: frozenset[int]) -> set[int]:
        asked.append(tokens)
        _left(tmp_path, "10-new")  # begun after the look
        return {8, 99}

    assert sweep_workdirs(tmp_path, living) == 2
    assert asked == [frozenset({7, 8, 9})]
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"8-def", "10-new", "notes"}


def test_nothing_is_asked_where_nothing_is_left(tmp_path: Path) -> None:
    def living(_: frozenset[int]) -> set[int]:
        raise AssertionError

    assert sweep_workdirs(tmp_path, living) == 0
    _left(tmp_path, "notes")
    assert sweep_workdirs(tmp_path, living) == 0
