"""`dailies demo` on the samples, and `dailies ingest` on files of one's own."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from PIL import Image

from cli.uploads import SAMPLES
from pipeline.workflows import STAGES_OF, WorkflowType
from tests.e2e.stacks import Stack, dailies, until

KEYS = {
    "key", "media_item_id", "job_id", "status", "error_code", "error_message", "kind", "mime_type", "size",
    "sha256", "width", "height", "captured_at", "gps", "duplicate_of", "warnings", "thumbnails", "rows",
}  # fmt: skip
BROKEN = {"truncated.jpg": "TRUNCATED_IMAGE", "noise.jpg": "UNSUPPORTED_TYPE", "empty.jpg": "EMPTY_FILE"}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the demo says of the samples, by file name."""
    folder = tmp_path_factory.mktemp("demo")
    done = dailies("demo", "--json", str(folder / "out.json"), "--sheet", str(folder / "sheet.jpg"))
    assert done.returncode == 0, done.stdout + done.stderr
    with Image.open(folder / "sheet.jpg") as sheet:
        assert sheet.width > 1000
    files = json.loads((folder / "out.json").read_text(encoding="utf-8"))["files"]
    return {file["key"].removeprefix("uploads/"): file for file in files}


def duplicate_in(shown: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(file for file in shown.values() if file["duplicate_of"])
    return found


def test_every_sample_is_told_with_every_field(shown: dict[str, Any]) -> None:
    names = {path.relative_to(SAMPLES).as_posix() for path in SAMPLES.rglob("*") if path.is_file()}
    assert set(shown) == names - {"README.md"}
    assert all(set(file) == KEYS for file in shown.values())


def test_the_broken_three_fail_with_their_reasons_and_the_others_complete(shown: dict[str, Any]) -> None:
    assert {name: file["error_code"] for name, file in shown.items() if file["status"] == "failed"} == BROKEN
    assert {file["status"] for name, file in shown.items() if name not in BROKEN} == {"completed"}
    assert all(file["error_message"] for name, file in shown.items() if name in BROKEN)


def test_an_original_has_its_facts_rows_and_pictures(shown: dict[str, Any]) -> None:
    otters = next(file for name, file in shown.items() if "otters" in name and not file["duplicate_of"])
    assert (otters["width"], otters["height"], otters["kind"]) == (3840, 2160, "image")
    assert otters["gps"] == pytest.approx([37.7498, -122.1476], abs=1e-3)
    assert otters["captured_at"].startswith("2013-10-27T")
    assert otters["size"] == (SAMPLES / "otters.jpg").stat().st_size
    assert [row["job_type"] for row in otters["rows"]] == list(STAGES_OF[WorkflowType.INGEST])
    assert all(row["status"] == "completed" and row["attempts"] >= 1 for row in otters["rows"])
    assert all(isinstance(row["ms"], int) for row in otters["rows"])
    assert {(one["variant"], one["width"], one["height"]) for one in otters["thumbnails"]} == {
        ("primary", 1280, 720), ("medium", 640, 360), ("small", 320, 180),
    }  # fmt: skip


def test_the_duplicate_answers_with_its_original(shown: dict[str, Any]) -> None:
    twin = duplicate_in(shown)
    original = shown[twin["duplicate_of"].removeprefix("uploads/")]
    assert twin["sha256"] == original["sha256"]
    assert twin["thumbnails"] == original["thumbnails"]
    assert [row["status"] for row in twin["rows"]] == ["completed"] * 2 + ["skipped"] * 4


def test_a_turned_photograph_is_measured_upright(shown: dict[str, Any]) -> None:
    assert (shown["osprey.jpg"]["width"], shown["osprey.jpg"]["height"]) == (1620, 2160)


def test_files_that_are_not_final_in_time_are_exit_1(stack: Stack, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "teal").save(tmp_path / "teal.png")
    late = stack.dailies("ingest", str(tmp_path), "--timeout", "0")
    assert late.returncode == 1
    assert "Not every file is final" in late.stdout


def test_ingest_tells_of_odd_names_and_of_what_cannot_be_read(stack: Stack, tmp_path: Path) -> None:
    odd = "ünïcode + [bold] #1?%41.png"
    folder = tmp_path / "mine"
    folder.mkdir()
    Image.new("RGB", (400, 300), "navy").save(folder / odd)
    (folder / "nowhere.jpg").symlink_to("/nonexistent")
    result = tmp_path / "result.json"
    done = stack.dailies("ingest", str(folder), "--json", str(result))
    assert done.returncode == 0, done.stdout + done.stderr
    files = {file["key"]: file for file in json.loads(result.read_text(encoding="utf-8"))["files"]}
    assert files[f"uploads/mine/{odd}"]["status"] == "completed"
    assert files["uploads/mine/nowhere.jpg"]["error_code"] == "UNREADABLE_FILE"
    assert odd.partition(" ")[0] in stack.dailies("jobs").stdout
    job = stack.dailies("jobs", files[f"uploads/mine/{odd}"]["job_id"]).stdout
    assert "thumbnails" in job
    found = json.loads(stack.dailies("search", "ünïcode", "--json").stdout)
    assert [hit["key"] for hit in found["hits"]] == [f"uploads/mine/{odd}"]
    assert "completed" in stack.dailies("queue").stdout
    assert dailies("demo", str(tmp_path), "--json", str(tmp_path / "no" / "such.json")).returncode == 2


def test_ingest_says_that_a_lane_is_paused(stack: Stack, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "plum").save(tmp_path / "plum.png")
    assert stack.dailies("pause", "standard", "--reason", "disk swap").returncode == 0
    try:
        waits = stack.dailies("ingest", str(tmp_path / "plum.png"), "--timeout", "25")
    finally:
        assert stack.dailies("resume", "standard").returncode == 0
    assert waits.returncode == 1
    assert waits.stdout.count("(disk swap): `dailies resume standard` goes on.") == 1
    assert stack.dailies("ingest", str(tmp_path / "plum.png")).returncode == 0


def test_folders_with_equal_file_names_are_both_kept(stack: Stack, tmp_path: Path) -> None:
    for name, colour in (("party", "red"), ("holiday", "blue")):
        (tmp_path / name).mkdir()
        Image.new("RGB", (320, 200), colour).save(tmp_path / name / "IMG_0001.png")
        assert stack.dailies("ingest", str(tmp_path / name)).returncode == 0
    assert {item["key"] for item in stack.api.pages("media-items")} >= {
        "uploads/party/IMG_0001.png", "uploads/holiday/IMG_0001.png",
    }  # fmt: skip


def test_two_files_for_one_key_are_refused_before_any_is_uploaded(stack: Stack, tmp_path: Path) -> None:
    files = [tmp_path / name / "one-key.png" for name in ("a", "b")]
    for file in files:
        file.parent.mkdir()
        Image.new("RGB", (320, 200), "green").save(file)
    done = stack.dailies("ingest", *map(str, files))
    assert done.returncode == 1
    assert "error DUPLICATE_KEY" in done.stderr
    assert all(str(file) in done.stderr for file in files)
    bucket = stack.env["DAILIES_STORAGE_BUCKET"]
    assert stack.s3().list_objects_v2(Bucket=bucket, Prefix="uploads/one-key.png")["KeyCount"] == 0


def test_the_same_file_again_is_done_at_once(stack: Stack, tmp_path: Path) -> None:
    Image.new("RGB", (300, 300), "olive").save(tmp_path / "again.png")
    first, second = tmp_path / "1.json", tmp_path / "2.json"
    assert stack.dailies("ingest", str(tmp_path / "again.png"), "--json", str(first)).returncode == 0
    assert stack.dailies("ingest", str(tmp_path / "again.png"), "--json", str(second)).returncode == 0
    jobs = [json.loads(path.read_text())["files"][0]["job_id"] for path in (first, second)]
    assert jobs[0] == jobs[1]


def test_the_same_file_again_after_a_day_of_others_is_done_at_once(stack: Stack, tmp_path: Path) -> None:
    Image.new("RGB", (301, 300), "olive").save(tmp_path / "old.png")
    Image.new("RGB", (302, 300), "olive").save(tmp_path / "new.png")
    assert stack.dailies("ingest", str(tmp_path / "old.png")).returncode == 0
    with psycopg.connect(stack.env["DAILIES_DATABASE_URL"]) as connection:
        connection.execute(
            "UPDATE media_items SET created_at = now() - interval '1 day' WHERE key = 'uploads/old.png'"
        )
    assert stack.dailies("ingest", str(tmp_path / "new.png")).returncode == 0
    again = stack.dailies("ingest", str(tmp_path / "old.png"), "--timeout", "60")
    assert (again.returncode, "1 file: 1 completed" in again.stdout) == (0, True)


def test_ingest_outlives_an_api_that_is_started_again(stack: Stack, tmp_path: Path) -> None:
    Image.new("RGB", (303, 300), "olive").save(tmp_path / "patient.png")
    assert stack.dailies("pause", "standard").returncode == 0
    with ThreadPoolExecutor(1) as beside:
        ingest = beside.submit(stack.dailies, "ingest", str(tmp_path / "patient.png"))
        until(lambda: stack.api.get("media-items", key_prefix="uploads/patient.png")["data"], 60)
        running = json.loads(stack.dailies("ps", "--json").stdout)
        os.kill(next(one["pid"] for one in running if one["role"] == "api"), signal.SIGKILL)
        until(lambda: stack.dailies("resume", "standard").returncode == 0, 60)
    assert ingest.result().returncode == 0


def test_another_file_of_the_name_is_said_to_replace_the_first(stack: Stack, tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    for size in ((300, 200), (500, 400)):
        Image.new("RGB", size, "coral").save(tmp_path / "clip.png")
        done = stack.dailies("ingest", str(tmp_path / "clip.png"), "--json", str(told))
        assert done.returncode == 0
    (file,) = json.loads(told.read_text(encoding="utf-8"))["files"]
    assert (file["width"], file["warnings"]) == (500, ["It has replaced an earlier file of this name."])
    assert "1 file: 1 completed" in done.stdout
