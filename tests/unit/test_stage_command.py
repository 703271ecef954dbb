from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from cli.stage import stage_command
from pipeline.workflows import StageName
from tests.images import corners, encoded, gps_tags, with_exif


def invoke(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(stage_command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "Red [bold]Dress.jpg"
    path.write_bytes(with_exif({}, gps_tags(48.2, 16.4)))
    return path


@pytest.mark.parametrize("name", list(StageName))
def test_stage_runs_each_stage_after_what_it_needs(picture: Path, name: StageName) -> None:
    result = invoke(name, picture, "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["stage"] == name
    described_before = {
        StageName.AUDIT: lambda: report["value"]["summary"]["gps"] == pytest.approx([48.2, 16.4]),
        StageName.INDEX: lambda: (
            report["value"]["facets"]["has_gps"] and report["value"]["facets"]["kind"] == "image"
        ),
    }
    assert described_before.get(name, lambda: report["value"])()


def test_stage_prints_for_people(picture: Path) -> None:
    result = invoke("index", picture)
    assert result.exit_code == 0
    assert "[bold]Dress.jpg" in result.stdout


def test_stage_keeps_what_it_makes_where_it_is_told(picture: Path, tmp_path: Path) -> None:
    result = invoke("thumbnails", picture, "--out", tmp_path / "made", "--json")
    assert json.loads(result.stdout)["renditions"] == ["primary.jpg", "medium.jpg", "small.jpg"]
    with Image.open(tmp_path / "made" / "primary.jpg") as image:
        assert image.size == (1280, 720)


def test_stage_prints_warnings(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(corners()))
    assert "the bytes are image/jpeg" in " ".join(invoke("ingest", path).stdout.split())


@pytest.mark.parametrize("name", ["ingest", "thumbnails", "audit"])
def test_stage_that_fails_prints_code_and_sentence(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\0no type")
    result = invoke(name, path)
    assert result.exit_code == 1
    assert result.stderr.startswith("error UNSUPPORTED_TYPE: ")
    assert result.stdout == ""


def test_stage_holds_the_limits_of_the_key_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(corners()))
    assert "KIND_NOT_ALLOWED" in invoke("ingest", path, "--key", "audio/x/a.jpg").stderr
