"""Files through the stack: demo, ingest, stage; and what `up` does with the samples."""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import sheet
from cli.client import Api
from cli.console import make_console
from cli.follow import Items, upload_and_follow
from cli.options import DEFAULT_STATE, StateOption, join
from cli.outcome import all_final, collect, summary, table
from cli.stack.embedded import everything, running
from cli.stack.signals import INTERRUPTED, interruptible
from cli.stack.state import State
from cli.uploads import SAMPLES, Upload, find, find_all
from pipeline.settings import get_settings

app = typer.Typer()
PANEL = "The stack on this machine"
console = make_console()

TimeoutOption = Annotated[
    float, typer.Option(help="Seconds after which a file that is not final is given up on.")
]


def _writable(path: Path | None) -> Path | None:
    """Refuse at once what could not be written at the end."""
    if path and not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"the folder {path.absolute().parent} does not exist")
    return path


SheetOption = Annotated[
    Path | None,
    typer.Option(
        "--sheet", help="Write a contact sheet here (.jpg or .png).", dir_okay=False, callback=_writable
    ),
]
ResultOption = Annotated[
    Path | None,
    typer.Option(
        "--json", help="Write what became of each file here, as JSON.", dir_okay=False, callback=_writable
    ),
]
PathArgument = Annotated[
    Path, typer.Argument(help="A file, or a folder with everything below it.", exists=True)
]


@app.command(rich_help_panel=PANEL)
def demo(
    path: PathArgument = SAMPLES,
    result: ResultOption = None,
    timeout: TimeoutOption = 600,
    contact_sheet: SheetOption = None,
) -> None:
    """Take files through a stack that is made for it and thrown away. Exit 0 when every file is final."""
    if not (uploads := find(path)):
        console.print(f"There is no file to upload below {path}.")
        _write(result, [])
        return
    with interruptible(), tempfile.TemporaryDirectory(prefix="dailies-demo-") as folder:
        console.print("Starting a stack to throw away ...")
        roles = partial(everything, durable=False)
        try:
            with running(State(Path(folder)), roles, say=console.print) as supervisor:
                final = process(
                    Api(_api_url()), uploads, timeout=timeout, result=result, contact_sheet=contact_sheet,
                    tick=supervisor.check,
                )  # fmt: skip
        except KeyboardInterrupt:
            console.print("Stopped before the end; nothing is left.")
            raise typer.Exit(INTERRUPTED) from None
    if not final:
        raise typer.Exit(1)


@app.command(rich_help_panel=PANEL)
def ingest(
    paths: Annotated[
        list[Path], typer.Argument(help="Files, or folders with everything below.", exists=True)
    ],
    result: ResultOption = None,
    timeout: TimeoutOption = 600,
    contact_sheet: SheetOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Upload files to the running stack and show what becomes of them. Exit 0 when every file is final.

    A folder's files go to uploads/NAME OF THE FOLDER/..., a single file to uploads/NAME.
    """
    api = join(state)
    if not process(api, find_all(paths), timeout=timeout, result=result, contact_sheet=contact_sheet):
        raise typer.Exit(1)


def process(
    api: Api,
    uploads: list[Upload],
    *,
    timeout: float | None = None,
    result: Path | None = None,
    contact_sheet: Path | None = None,
    tick: Any = lambda: None,
) -> bool:
    """Upload, follow, tell. Returns whether every file is final."""
    if not uploads:
        console.print("There is no file to upload.")
    items: Items = {}
    if uploads:
        items = upload_and_follow(api, uploads, get_settings(), console=console, tick=tick, timeout=timeout)
    files = collect(api, uploads, items)
    _write(result, files)
    if uploads:
        console.print(table(files))
        console.print(summary(files))
    if contact_sheet and files:
        sheet.draw(api, files, items, contact_sheet)
        console.print(f"Contact sheet: {contact_sheet}")
    final = all_final(uploads, items)
    if not final:
        console.print(
            "[red]Not every file is final.[/] What is not goes on by itself: `dailies jobs` shows it."
        )
    return final


def _write(result: Path | None, files: list[dict[str, Any]]) -> None:
    if result:
        result.write_text(json.dumps({"files": files}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _api_url() -> str:
    url = get_settings().api_url
    assert url is not None  # noqa: S101 - the environment that was adopted has it
    return url
