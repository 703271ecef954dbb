"""`dailies up` as an operator meets it."""

from __future__ import annotations

import json
import os
import signal
import stat
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from cli.stack.environment import EXPORTED
from cli.stack.process import Identity
from cli.stack.state import PASSABLE_FOLDER, PRIVATE_UMASK, port_is_free
from pipeline.media.vector import missing_part
from tests.e2e.stacks import STOP_LIMIT_S, Stack, dailies, identities, running_stack, until

ROLES = ["supervisor", "postgres", "aws", "api", "listener", "steward", "worker", "worker-heavy", "flower"]


def test_every_role_runs_as_a_process_of_its_own(stack: Stack) -> None:
    rows = stack.ps()
    assert list(rows) == ROLES
    assert {row["status"] for row in rows.values()} == {"running"}
    assert len({row["pid"] for row in rows.values()}) == len(ROLES)
    assert all(set(row) == {"role", "pid", "started_at", "status"} for row in rows.values())


def test_env_exports_what_joins_in(stack: Stack) -> None:
    assert tuple(stack.env) == EXPORTED
    assert stack.api.get("queue/stats")["data"]["living"] >= 0
    assert stack.s3().head_bucket(Bucket=stack.env["DAILIES_STORAGE_BUCKET"])


def test_every_port_is_on_loopback_alone(stack: Stack) -> None:
    roles = {row["pid"] for row in stack.ps().values()}
    inodes = {link for pid in roles for link in sockets_of(pid)}
    addresses = {
        fields[1].partition(":")[0]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        if (fields := line.split())[3] == "0A" and f"socket:[{fields[9]}]" in inodes
    }
    assert addresses == {"0100007F"}  # 127.0.0.1, its bytes reversed


def sockets_of(pid: int) -> set[str]:
    return {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()}


def test_no_secret_is_on_a_command_line(stack: Stack) -> None:
    password = stack.env["DAILIES_FLOWER_BASIC_AUTH"].partition(":")[2]
    secrets = (password, stack.env["AWS_SECRET_ACCESS_KEY"], stack.env["DAILIES_DATABASE_URL"])
    for row in stack.ps().values():
        command = Path(f"/proc/{row['pid']}/cmdline").read_text()
        assert not any(secret in command for secret in secrets)


def test_nothing_in_the_state_folder_is_for_others(stack: Stack, tmp_path: Path) -> None:
    Image.new("RGB", (320, 200), "orchid").save(tmp_path / "private.png")
    assert stack.dailies("ingest", str(tmp_path / "private.png")).returncode == 0
    found = modes(stack.folder / "var")
    assert {"aws", "log", "spool", "secrets", "ports.json", "stack.json"} <= found.keys()
    assert any(name.startswith("aws/s3/") for name in found)
    assert any(name.startswith("spool/objects") for name in found)
    assert open_to_others(stack.folder / "var") == {}


def modes(state: Path) -> dict[str, int]:
    """The mode of each folder and file of a stack, by its path; of PostgreSQL's, of the folder alone."""
    found = {".": stat.S_IMODE(state.stat().st_mode)}
    for path in state.rglob("*"):
        name = path.relative_to(state).as_posix()
        with suppress(FileNotFoundError):  # the stack works, and files come and go
            if not path.is_symlink() and not name.startswith("postgres/"):
                found[name] = stat.S_IMODE(path.stat().st_mode)
    return found


def open_to_others(state: Path) -> dict[str, str]:
    """Whatever group or others may do anything with; where we are root, PostgreSQL's user passes the root."""
    found = modes(state)
    if os.geteuid() == 0 and found["."] == PASSABLE_FOLDER:
        del found["."]
    return {name: oct(mode) for name, mode in found.items() if mode & PRIVATE_UMASK}


def test_search_leaves_out_what_has_a_dash_before_it(stack: Stack, tmp_path: Path) -> None:
    for name, colour in (("canon sharp.png", "gold"), ("canon blurry.png", "khaki")):
        Image.new("RGB", (320, 200), colour).save(tmp_path / name)
    assert stack.dailies("ingest", *map(str, tmp_path.iterdir())).returncode == 0
    found = stack.dailies("search", "canon", "-blurry", "--json")
    assert [hit["key"] for hit in json.loads(found.stdout)["hits"]] == ["uploads/canon sharp.png"]
    mistyped = stack.dailies("search", "canon", "--jsn")
    assert mistyped.returncode == 2
    assert "no such option: --jsn" in mistyped.stderr


def test_a_second_up_on_the_same_state_is_refused(stack: Stack) -> None:
    refused = stack.dailies("up")
    assert refused.returncode == 1
    assert "error ALREADY_RUNNING" in refused.stderr


@pytest.mark.skipif(missing_part() is not None, reason="something is wrong: rsvg-convert is not here")
def test_doctor_finds_nothing_wrong(stack: Stack) -> None:
    healthy = stack.dailies("doctor")
    assert healthy.returncode == 0, healthy.stdout
    assert "database connections" in healthy.stdout


def test_doctor_names_a_setting_that_does_not_exist(stack: Stack) -> None:
    sick = dailies("doctor", "--state", str(stack.folder / "var"), DAILIES_WORKER_CONCURENCY="3")
    assert sick.returncode == 1
    assert "DAILIES_WORKER_CONCURENCY" in sick.stdout


def test_logs_shows_a_role_and_says_which_there_are(stack: Stack) -> None:
    assert "worker" in stack.dailies("logs", "worker", "-n", "3").stdout
    unknown = stack.dailies("logs", "gardener")
    assert unknown.returncode == 1
    assert "steward" in unknown.stderr


def test_nothing_running_is_exit_3_and_a_word(tmp_path: Path) -> None:
    for command in ("env", "ps", "jobs", "queue"):
        answer = dailies(command, "--state", str(tmp_path))
        assert (answer.returncode, answer.stdout) == (3, "")
        assert "error NOT_RUNNING" in answer.stderr
    assert dailies("down", "--state", str(tmp_path)).returncode == 0


def test_who_is_killed_comes_back_and_ctrl_c_leaves_nothing() -> None:
    with running_stack() as stack:
        before = identities(stack)
        assert list(before) == ROLES
        for role in ("worker", "aws", "postgres"):
            before[role].send(signal.SIGKILL)
        before["api"].send(signal.SIGTERM)
        until(lambda: all_running_again(stack, before), 60)
        assert f"worker (pid {before['worker'].pid}) ended with signal 9" in stack.output
        assert f"api (pid {before['api'].pid}) ended with status 0" in stack.output
        assert stack.s3().head_bucket(Bucket=stack.env["DAILIES_STORAGE_BUCKET"])
        assert stack.api.get("jobs")["data"] == []

        last = identities(stack)
        ports = [
            int(stack.env[name].rpartition(":")[2]) for name in ("DAILIES_API_URL", "DAILIES_FLOWER_URL")
        ]
        assert stack.stop() == 0
        assert not any(one.alive() for one in last.values())
        assert all(port_is_free(port) for port in ports)
        assert not (stack.folder / "var" / "stack.json").exists()
        assert open_to_others(stack.folder / "var") == {}  # with what was written at the end
        assert stack.dailies("env").returncode == 3


def all_running_again(stack: Stack, before: dict[str, Identity]) -> bool:
    now = identities(stack)
    new = all(role in now and now[role] != before[role] for role in ("worker", "aws", "postgres", "api"))
    return new and all(row["status"] == "running" for row in stack.ps().values())


def test_a_killed_supervisor_takes_everything_with_it_and_the_state_goes_on(tmp_path: Path) -> None:
    Image.new("RGB", (200, 200), "maroon").save(tmp_path / "kept.png")
    with running_stack() as stack:
        assert stack.dailies("ingest", str(tmp_path / "kept.png")).returncode == 0
        known = identities(stack)
        stack.process.kill()
        until(lambda: not any(one.alive() for one in known.values()), STOP_LIMIT_S)
        assert stack.dailies("ps").returncode == 3
        with running_stack(stack.folder) as again:
            assert again.env == stack.env
            assert [item["key"] for item in again.api.pages("media-items")] == ["uploads/kept.png"]
            assert again.dailies("down").returncode == 0
            assert again.process.wait(timeout=1) == 0
