from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cli.stack.access import open_the_way
from cli.stack.environment import EXPORTED, environment, isolated
from cli.stack.process import Identity
from cli.stack.state import RoleRecord, State, free_port, identity
from pipeline.errors import ConfigurationError, ConflictError


@pytest.fixture
def state(tmp_path: Path) -> State:
    made = State(tmp_path / "var")
    made.create()
    return made


def record(pid: int, ticks: int) -> RoleRecord:
    return {"role": "supervisor", "pid": pid, "ticks": ticks, "started_at": "", "status": "running"}


def test_a_second_lock_is_refused_and_a_released_one_is_not(state: State) -> None:
    with state.lock(), pytest.raises(ConflictError) as raised, State(state.root).lock():
        pass
    assert raised.value.code == "ALREADY_RUNNING"
    with State(state.root).lock():
        pass


def test_secrets_are_random_and_kept(state: State) -> None:
    first = state.secret("flower")
    assert State(state.root).secret("flower") == first
    assert state.secret("postgres") != first
    assert len(first) == 48


def test_what_the_state_writes_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    place = State(tmp_path / "var")
    (place.root / "aws").mkdir(mode=0o755, parents=True)
    before = os.umask(0)
    try:
        place.create()
        with place.lock():
            place.choose_ports()
            place.write_record([])
            place.secret("flower")
    finally:
        os.umask(before)
    modes = {path.relative_to(place.root).as_posix(): mode(path) for path in place.root.rglob("*")}
    folders = dict.fromkeys(("aws", "log", "secrets", "spool"), 0o700)
    files = dict.fromkeys(("lock", "ports.json", "secrets/flower", "stack.json"), 0o600)
    assert modes == folders | files
    assert mode(place.root) == (0o711 if os.geteuid() == 0 else 0o700)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_ports_stay_as_long_as_they_are_free(state: State) -> None:
    state.choose_ports()
    first = dict(state.ports())
    assert len(set(first.values())) == len(first)
    again = State(state.root)
    again.choose_ports()
    assert again.ports() == first
    with socket.socket() as other:
        other.bind(("127.0.0.1", first["api"]))
        other.listen()
        moved = State(state.root)
        moved.choose_ports()
    assert moved.ports()["api"] != first["api"]
    assert moved.ports()["aws"] == first["aws"]


def test_a_port_that_is_taken_by_another_role_is_not_chosen() -> None:
    wanted = free_port()
    assert free_port(wanted) == wanted
    assert free_port(wanted, taken=[wanted]) != wanted


def test_a_process_is_known_by_pid_and_start_time() -> None:
    me = Identity.of(os.getpid())
    assert me is not None
    assert identity(record(me.pid, me.ticks)) == me
    assert identity(record(me.pid, me.ticks + 1)) is None


def test_a_process_that_ended_is_dead_even_before_it_is_reaped() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        found = Identity.of(child.pid)
        assert found is not None
        assert found.alive()
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not found.alive()


def test_a_record_whose_supervisor_is_gone_is_no_running_stack(state: State) -> None:
    me = Identity.of(os.getpid())
    assert me is not None
    state.write_record([record(me.pid, me.ticks)])
    assert state.running()
    state.write_record([record(me.pid, me.ticks + 1)])
    assert state.running() == []
    state.remove_record()
    assert state.read_record() == []


def test_a_state_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="--state") as raised:
        State(tmp_path / "file" / "var").create()
    assert raised.value.code == "STATE_UNUSABLE"


def test_environment_names_everything_that_is_exported(state: State) -> None:
    state.choose_ports()
    values = environment(state)
    assert set(EXPORTED) <= set(values)
    assert f":{state.ports()['postgres']}/dailies" in values["DAILIES_DATABASE_URL"]
    assert values["DAILIES_FLOWER_BASIC_AUTH"] == f"dailies:{state.secret('flower')}"


def test_isolated_keeps_what_would_lead_to_another_account_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://elsewhere")
    monkeypatch.setenv("NO_PROXY", "intern")
    monkeypatch.setenv("DAILIES_WORKER_CONCURRENCY", "7")
    found = isolated({"AWS_ACCESS_KEY_ID": "own"})
    assert {"AWS_PROFILE", "AWS_ENDPOINT_URL_S3"}.isdisjoint(found)
    assert found["AWS_ACCESS_KEY_ID"] == "own"
    assert found["NO_PROXY"] == "intern,127.0.0.1,localhost"
    assert found["DAILIES_WORKER_CONCURRENCY"] == "7"


def test_postgres_user_passes_a_closed_folder_and_nobody_else_does(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    inside = closed / "inside"
    inside.mkdir(parents=True)
    closed.chmod(0o700)
    open_the_way(inside, "nobody")
    open_the_way(inside, "nobody")
    assert closed.stat().st_mode & stat.S_IRWXO == 0
    if os.geteuid() == 0:
        inside.chmod(0o755)
        assert can_list(inside, "nobody")
        assert not can_list(inside, "daemon")
        closed.chmod(0o700)  # which also closes it for the entry that was made
        assert not can_list(inside, "nobody")
        open_the_way(inside, "nobody")
        assert can_list(inside, "nobody")


def can_list(folder: Path, user: str) -> bool:
    command = ["/bin/ls", str(folder)]
    return subprocess.run(command, user=user, group="nogroup", extra_groups=[], check=False).returncode == 0  # noqa: S603
