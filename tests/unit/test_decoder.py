"""The decoder: what its process may spend, what becomes of a file that wants more, who does not suffer."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Timer
from uuid import uuid4

import pytest
from PIL import Image

from pipeline.decoder.budget import MB, Budget, budget_for
from pipeline.decoder.process import Decoder
from pipeline.errors import InfrastructureError, PermanentStageError, StageError, TransientStageError
from pipeline.media.kinds import Kind
from pipeline.stages import STAGES
from pipeline.stages.base import Asset, Context, LocalFile, StageOutput
from pipeline.workflows import StageName
from tests.images import detailed, encoded
from tests.support import wait_until

ENOUGH = Budget(memory=500 * MB, cpu_s=20, wall_s=60)


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    with closing(Decoder()) as decoder:
        yield decoder


class Case:
    """A file, and the stages on it."""

    def __init__(self, decoder: Decoder, folder: Path, body: bytes, mime_type: str = "image/jpeg") -> None:
        path = folder / mime_type.replace("/", "-")
        path.write_bytes(body)
        self.decoder = decoder
        self.asset = Asset(media_item_id=uuid4(), key="uploads/a", kind=Kind.IMAGE, mime_type=mime_type)
        self.context = Context(LocalFile(path, len(body), hashlib.sha256(body).hexdigest()), folder)

    def run(self, stage: StageName, budget: Budget = ENOUGH) -> StageOutput:
        return self.decoder.run(STAGES[stage], self.asset, self.context, budget)


@pytest.fixture
def photo(decoder: Decoder, tmp_path: Path) -> Case:
    return Case(decoder, tmp_path, encoded(detailed((640, 480))))


@pytest.fixture
def large(decoder: Decoder, tmp_path: Path) -> Case:
    """A picture of 240 MB, which no decoder can scale."""
    path = tmp_path / "large.png"
    Image.new("RGB", (9000, 9000), "teal").save(path)
    return Case(decoder, tmp_path, path.read_bytes(), "image/png")


def test_answer_is_what_the_stage_returns_in_this_process(photo: Case) -> None:
    there = photo.run(StageName.METADATA)
    here = STAGES[StageName.METADATA].run(photo.asset, photo.context)
    assert there == here
    assert photo.decoder.peak > MB
    made = photo.run(StageName.THUMBNAILS)
    assert [one.path.exists() for one in made.renditions] == [True] * 3


def test_one_process_serves_many(photo: Case) -> None:
    pids = set()
    for _ in range(3):
        photo.run(StageName.INGEST)
        pids.add(_pid(photo.decoder))
    assert len(pids) == 1


def test_error_of_the_stage_arrives_as_it_was(decoder: Decoder, tmp_path: Path) -> None:
    with pytest.raises(PermanentStageError, match="ends too early") as caught:
        Case(decoder, tmp_path, encoded(detailed((640, 480)))[:9000]).run(StageName.METADATA)
    assert caught.value.code == "TRUNCATED_IMAGE"


def test_name_that_is_no_utf_8_gets_there(decoder: Decoder, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    assert Case(decoder, folder, encoded(detailed((64, 48)))).run(StageName.INGEST).value


def test_file_that_needs_more_memory_is_refused_and_the_next_is_not(large: Case, photo: Case) -> None:
    with pytest.raises(PermanentStageError) as caught:
        large.run(StageName.METADATA, Budget(memory=50 * MB, cpu_s=60, wall_s=60))
    assert caught.value.code == "MEMORY_LIMIT_EXCEEDED"
    assert photo.run(StageName.METADATA).value


def test_file_that_needs_more_cpu_time_is_refused_and_the_next_is_not(large: Case, photo: Case) -> None:
    def again_and_again() -> None:
        for _ in range(30):  # it gets what is left of a second each time, which is not enough for long
            large.run(StageName.METADATA, Budget(memory=2000 * MB, cpu_s=0, wall_s=60))

    with pytest.raises(PermanentStageError) as caught:
        again_and_again()
    assert caught.value.code == "CPU_LIMIT_EXCEEDED"
    assert large.decoder.cpu_s > 0.5  # the time of the run that was ended counts too
    assert photo.run(StageName.METADATA).value


def test_file_that_hangs_its_decoder_costs_an_attempt(photo: Case) -> None:
    photo.run(StageName.INGEST)
    os.kill(_pid(photo.decoder), signal.SIGSTOP)
    with pytest.raises(TransientStageError) as caught:
        photo.run(StageName.INGEST, Budget(memory=MB, cpu_s=1, wall_s=1))
    assert caught.value.code == "TIME_LIMIT_EXCEEDED"
    assert photo.run(StageName.INGEST).value


@pytest.mark.parametrize(
    ("number", "earlier", "kind"),
    [
        (signal.SIGKILL, 0, TransientStageError),
        (signal.SIGSEGV, 0, PermanentStageError),
        (signal.SIGSEGV, 1, TransientStageError),  # an earlier file may be why
    ],
)
def test_crash_names_the_signal_and_is_tried_again_where_the_bytes_may_not_be_why(
    photo: Case, number: signal.Signals, earlier: int, kind: type[StageError]
) -> None:
    photo.decoder._started()
    for _ in range(earlier):
        photo.run(StageName.INGEST)
    pid = _pid(photo.decoder)
    os.kill(pid, signal.SIGSTOP)
    timer = Timer(0.5, lambda: (os.kill(pid, number), os.kill(pid, signal.SIGCONT)))
    timer.start()
    with pytest.raises(kind, match=number.name) as caught:
        photo.run(StageName.INGEST)
    timer.join()
    assert caught.value.code == "DECODER_CRASHED"
    assert photo.run(StageName.INGEST).value


def test_it_is_given_no_secret_and_no_address(photo: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAILIES_DATABASE_URL", "postgresql://u:hunter2@127.0.0.1/x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    photo.run(StageName.INGEST)
    environment = Path(f"/proc/{_pid(photo.decoder)}/environ").read_bytes()
    assert b"hunter2" not in environment
    assert b"PATH=" in environment


def test_it_dies_with_the_process_that_made_it() -> None:
    program = (
        "import sys, time; from pipeline.decoder.process import Decoder; from pipeline.decoder import wire\n"
        "decoder = Decoder(); decoder._started(); print(decoder._process.pid, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as maker:  # noqa: S603 - ours
        assert maker.stdout is not None
        pid = int(maker.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        maker.kill()
    wait_until(lambda: not Path(f"/proc/{pid}").exists())


def test_larger_files_get_more_time_and_never_less() -> None:
    for stage in StageName:
        for kind in (None, *Kind):
            small, great = budget_for(stage, kind, 1), budget_for(stage, kind, 5_000 * MB)
            assert small.cpu_s <= great.cpu_s
            assert small.wall_s > small.cpu_s


def _pid(decoder: Decoder) -> int:
    process = decoder._process
    assert process is not None
    return process.pid


def test_full_disk_fails_nothing(photo: Case) -> None:
    (photo.context.workdir / "primary.jpg").symlink_to("/dev/full")
    with pytest.raises(InfrastructureError) as caught:
        photo.run(StageName.THUMBNAILS)
    assert caught.value.code == "SPOOL_FULL"


def test_file_that_makes_a_larger_one_than_it_may_is_refused(photo: Case) -> None:
    with pytest.raises(PermanentStageError) as caught:
        photo.run(StageName.THUMBNAILS, Budget(memory=500 * MB, cpu_s=20, wall_s=60, output=1000))
    assert caught.value.code == "OUTPUT_LIMIT_EXCEEDED"
