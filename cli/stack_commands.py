"""The stack on this machine: start it, stop it, look at it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cli.client import Api
from cli.options import DEFAULT_STATE, JsonOption, StateOption, running_stack
from cli.stack.embedded import everything, running
from cli.stack.environment import EXPORTED, environment
from cli.stack.signals import interruptible
from cli.stack.state import PRIVATE_UMASK, RoleRecord, State, identity
from cli.stack.supervisor import Supervisor
from cli.uploads import SAMPLES, find
from cli.work import PANEL, console, process
from pipeline.errors import DailiesError, InfrastructureError, NotFoundError

CHECK_S = 0.25
DOWN_LIMIT_S = 20.0
FOLLOW_S = 0.3
SAMPLES_LIMIT_S = 600.0
STATUS_STYLES = {"running": "green", "starting": "yellow", "restarting": "red"}

app = typer.Typer()


@app.command(rich_help_panel=PANEL)
def up(
    state: StateOption = DEFAULT_STATE,
    samples: Annotated[bool, typer.Option(help="On an empty state, upload the sample photographs.")] = True,
) -> None:
    """Start everything and stay. Ctrl-C stops it."""
    os.umask(PRIVATE_UMASK)  # all that this process writes is state
    place = State(state)
    console.print(f"Starting Dailies on {place.root}; it takes some ten seconds ...")
    with (
        interruptible(),
        suppress(KeyboardInterrupt),
        running(place, everything, console.print) as supervisor,
    ):
        env = environment(place)
        api = Api(env["DAILIES_API_URL"])
        if samples:
            _show_samples(api, place, supervisor)
        _welcome(env)
        while True:
            supervisor.check()
            time.sleep(CHECK_S)
    console.print("Stopped.")


def _show_samples(api: Api, place: State, supervisor: Supervisor) -> None:
    """Take the samples through an empty stack. What goes wrong with them is told, and the stack stays up."""
    try:
        if api.get("media-items", limit=1)["data"]:
            return
        sheet = place.root / "contact-sheet.jpg"
        process(api, find(SAMPLES), timeout=SAMPLES_LIMIT_S, contact_sheet=sheet, tick=supervisor.check)
    except DailiesError as error:
        console.print(f"[red]The samples are not done: {error.code}: {error}[/]")


def _welcome(env: dict[str, str]) -> None:
    on_path = shutil.which("dailies") is not None
    command = "dailies" if on_path else os.path.relpath(Path(sys.executable).with_name("dailies"))
    console.print(
        f"\n[bold]Dailies is up.[/] Ctrl-C stops it.\n"
        f"  API     {env['DAILIES_API_URL']}/docs\n"
        f"  Flower  {env['DAILIES_FLOWER_URL']}  (user and password: {env['DAILIES_FLOWER_BASIC_AUTH']})\n"
        f"  S3      {env['DAILIES_AWS_ENDPOINT_URL']}, bucket {env['DAILIES_STORAGE_BUCKET']}\n"
        f"In another terminal: {command} ingest PATH, and so jobs, search WORDS, ps, logs -f;\n"
        f'eval "$({command} env)" gives a shell the addresses.',
        soft_wrap=True,
        highlight=False,
    )


@app.command(rich_help_panel=PANEL)
def down(state: StateOption = DEFAULT_STATE) -> None:
    """Stop the stack that `dailies up` started in another terminal."""
    record = State(state).running()
    supervisor = identity(record[0]) if record else None
    if supervisor is None:
        console.print(f"No stack runs on {State(state).root}.")
        return
    import signal

    supervisor.send(signal.SIGTERM)
    limit = time.monotonic() + DOWN_LIMIT_S
    while supervisor.alive():
        if time.monotonic() > limit:
            raise InfrastructureError(
                f"The supervisor (pid {supervisor.pid}) has not ended in {DOWN_LIMIT_S:.0f} s.",
                code="STILL_RUNNING",
            )
        time.sleep(CHECK_S)
    console.print("Stopped.")


@app.command(rich_help_panel=PANEL)
def ps(state: StateOption = DEFAULT_STATE, as_json: JsonOption = False) -> None:
    """Show the stack's processes."""
    _, record = running_stack(state)
    rows = [_shown(role) for role in record]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = Table("role", "pid", "started", "status")
    for row in rows:
        started = datetime.fromisoformat(str(row["started_at"])).astimezone().strftime("%H:%M:%S")
        style = STATUS_STYLES.get(str(row["status"]), "red")
        table.add_row(str(row["role"]), str(row["pid"] or "-"), started, f"[{style}]{row['status']}[/]")
    console.print(table)


def _shown(role: RoleRecord) -> dict[str, object]:
    """A record as ``ps`` tells it: the pid only while it is that process's."""
    known = identity(role)
    status = role["status"] if known or role["pid"] is None else "dead"
    return {
        "role": role["role"],
        "pid": known.pid if known else None,
        "started_at": role["started_at"],
        "status": status,
    }


@app.command(rich_help_panel=PANEL)
def env(state: StateOption = DEFAULT_STATE) -> None:
    """Print what a shell needs to join in: eval "$(dailies env)"."""
    place, _ = running_stack(state)
    values = environment(place)
    for name in EXPORTED:
        print(f"export {name}={_quoted(values[name])}")


def _quoted(value: str) -> str:
    return shlex.quote(value) if "'" in value else f"'{value}'"


@app.command(rich_help_panel=PANEL)
def logs(
    role: Annotated[str | None, typer.Argument(help="One role of `dailies ps`; all unless given.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", help="Last lines of each to begin with.", min=0)
    ] = 20,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Show the logs."""
    folder = State(state).logs
    files = sorted(folder.glob(f"{role or '*'}.log"))
    if not files:
        known = ", ".join(sorted(file.stem for file in folder.glob("*.log"))) or "there are none yet"
        raise NotFoundError(f"There is no log of {role or 'any role'} in {folder} (logs: {known}).")
    width = max(len(file.stem) for file in files)
    read: dict[Path, int] = {}
    for file in files:
        content = file.read_bytes()
        read[file] = len(content)
        shown = content.decode("utf-8", "replace").splitlines()
        _print_lines(file, shown[-lines:] if lines else [], width)
    with suppress(KeyboardInterrupt):
        while follow:
            time.sleep(FOLLOW_S)
            for file in files:
                _print_lines(file, _new_lines(file, read), width)


def _new_lines(file: Path, read: dict[Path, int]) -> list[str]:
    """Whole lines written since the last look; a log that was begun anew is read from its start."""
    if file.stat().st_size < read[file]:
        read[file] = 0
    with file.open("rb") as log:
        log.seek(read[file])
        new = log.read()
    whole = new[: new.rfind(b"\n") + 1]
    read[file] += len(whole)
    return whole.decode("utf-8", "replace").splitlines()


def _print_lines(file: Path, lines: list[str], width: int) -> None:
    for line in lines:
        print(f"{file.stem:<{width}} | {line}", flush=True)


@app.command(rich_help_panel=PANEL)
def doctor(state: StateOption = DEFAULT_STATE) -> None:
    """Say what is wrong on this machine. Exit 1 when something is."""
    from cli import doctor as checks  # imported here: it knows the stages, which no other command waits for

    found = checks.examine(State(state))
    table = Table("", "what", "found")
    for check in found:
        table.add_row("[green]ok[/]" if check.ok else "[red]wrong[/]", check.what, check.found)
    console.print(table)
    if not all(check.ok for check in found):
        raise typer.Exit(1)
