"""The ``dailies`` command."""

from __future__ import annotations

import sys

import typer
from pydantic import ValidationError

from cli import control, dlq, fleet, parts, queries, stack_commands, work
from cli.duplicates import duplicates_command
from cli.stage import stage_command
from pipeline.errors import DailiesError

EXIT_ERROR, EXIT_NOT_RUNNING = 1, 3

app = typer.Typer(
    name="dailies",
    help="A media pipeline: uploads to S3 become searchable, thumbnailed, audited assets.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for group in (stack_commands.app, work.app, queries.app, fleet.app, control.app, parts.app):
    app.add_typer(group)
app.add_typer(dlq.app, name="dlq", rich_help_panel=queries.PANEL, no_args_is_help=True)
app.command("duplicates", rich_help_panel=queries.PANEL)(duplicates_command)
app.command("stage", rich_help_panel=queries.PANEL)(stage_command)


def run() -> None:
    """Run the command; what goes wrong on purpose is one sentence on standard error, and an exit status."""
    try:
        app()
    except DailiesError as error:
        print(f"error {error.code}: {error}", file=sys.stderr)
        sys.exit(EXIT_NOT_RUNNING if error.code == "NOT_RUNNING" else EXIT_ERROR)
    except ValidationError as error:
        for wrong in error.errors():
            name = "_".join(str(part) for part in wrong["loc"]).upper()
            print(f"error CONFIGURATION_ERROR: {name or error.title}: {wrong['msg']}", file=sys.stderr)
        sys.exit(EXIT_ERROR)


if __name__ == "__main__":
    run()
