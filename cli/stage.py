"""``dailies stage``: one stage on one local file, with no servers."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer
from rich.console import Console
from rich.pretty import Pretty
from rich.table import Table
from rich.text import Text

from pipeline.decoder.process import Decoder
from pipeline.errors import DailiesError
from pipeline.keys import size_limit_of
from pipeline.media.reader import Limits
from pipeline.settings import Settings, get_settings
from pipeline.stages import STAGES
from pipeline.stages.base import Asset, Context, LocalFile, StageOutput
from pipeline.workflows import StageName

#: What an asset is described by before later stages run; the order is the workflow's.
DESCRIBING = (StageName.INGEST, StageName.DEDUPE, StageName.METADATA)


def stage_command(
    name: Annotated[StageName, typer.Argument(help="The stage to run.")],
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="A local file.")],
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Keep the files it makes in this folder.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="The key it would have; uploads/FILE.")] = None,
) -> None:
    """Run one stage on one file, with no servers, and print its result."""
    try:
        output = run_stage(name, file, key or f"uploads/{file.name}", get_settings(), out)
    except DailiesError as error:
        typer.echo(f"error {error.code}: {error.message}", err=True)
        raise typer.Exit(1) from error
    report = {
        "stage": name.value,
        "version": STAGES[name].version,
        "value": output.value.model_dump(mode="json"),
        "warnings": list(output.warnings),
        "renditions": [rendition.path.name for rendition in output.renditions],
    }
    if json_output:
        typer.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        _print(report)


def run_stage(name: StageName, path: Path, key: str, settings: Settings, out: Path | None) -> StageOutput:
    """Run ``name`` on the file at ``path`` as if it lay at ``key``, after the stages that describe it.

    What it makes is kept in ``out``, if that is given. Raises what the stages raise.
    """
    with path.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    local = LocalFile(path, path.stat().st_size, digest)
    asset = Asset(media_item_id=uuid4(), key=key, size=local.size)
    before = DESCRIBING[: DESCRIBING.index(name)] if name in DESCRIBING else DESCRIBING
    with tempfile.TemporaryDirectory() as folder, closing(Decoder()) as decoder:
        context = Context(
            file=local,
            workdir=Path(folder),
            size_limit=size_limit_of(key, settings.upload_limit),
            limits=Limits(pixels=settings.image_pixel_limit),
            jpeg_quality=settings.jpeg_quality,
        )
        for earlier in before:
            asset = described(asset, _run(decoder, earlier, asset, context))
        output = _run(decoder, name, asset, context)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            for rendition in output.renditions:
                shutil.copy(rendition.path, out)
    return output


def _run(decoder: Decoder, name: StageName, asset: Asset, context: Context) -> StageOutput:
    stage = STAGES[name]
    return decoder.run(stage, asset, context) if stage.decodes else stage.run(asset, context)


def described(asset: Asset, output: StageOutput) -> Asset:
    """``asset`` with what a stage found, as the database would carry it to the next one."""
    found = {name: getattr(output.value, name) for name in type(output.value).model_fields}
    known = {name: value for name, value in found.items() if name in Asset.model_fields}
    if "details" in found:
        known["metadata"] = found["details"]
    return asset.model_copy(update=known)


def _print(report: dict[str, Any]) -> None:
    console = Console()
    table = Table("field", "value", title=f"{report['stage']} (version {report['version']})")
    for field, value in report["value"].items():
        table.add_row(field, Pretty(value) if isinstance(value, (dict, list)) else Text(str(value)))
    console.print(table)
    for warning in report["warnings"]:
        console.print(f"warning: {warning}", style="yellow", markup=False)
