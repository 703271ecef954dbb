"""What became of each file: as JSON for programs, as a table for people."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from cli.client import Api
from cli.follow import Items, is_final
from cli.uploads import Upload

STYLES = {"completed": "green", "failed": "red", "cancelled": "yellow"}
#: What is taken from a media item as it is, under the name it has here.
COPIED = {
    "media_item_id": "id",
    "kind": "kind",
    "mime_type": "mime_type",
    "size": "size_bytes",
    "sha256": "sha256",
    "width": "width",
    "height": "height",
    "captured_at": "captured_at",
    "warnings": "warnings",
}
PICTURE = ("variant", "key", "width", "height", "bytes")


def collect(api: Api, uploads: list[Upload], items: Items) -> list[dict[str, Any]]:
    """One entry a file, in the order of the uploads; what is unknown is None."""
    return [_refused(one) if one.error else _told(api, one, items.get(one.key)) for one in uploads]


def all_final(uploads: list[Upload], items: Items) -> bool:
    """Whether nothing is under way any more. A file that could not be uploaded is over at once."""
    return all(one.error or (one.key in items and is_final(items[one.key])) for one in uploads)


def _refused(upload: Upload) -> dict[str, Any]:
    return {
        **_unknown(upload),
        "status": "failed",
        "error_code": upload.error_code,
        "error_message": upload.error,
    }


def _told(api: Api, upload: Upload, item: dict[str, Any] | None) -> dict[str, Any]:
    told = _unknown(upload)
    if item is None:
        return told
    item = api.get(f"media-items/{item['id']}")["data"]
    told |= {ours: item[theirs] for ours, theirs in COPIED.items()}
    if upload.replaced:
        told["warnings"] = [*told["warnings"], "It has replaced an earlier file of this name."]
    if item["gps"]:
        told["gps"] = [item["gps"]["latitude"], item["gps"]["longitude"]]
    if item["duplicate_of"]:
        told["duplicate_of"] = item["duplicate_of"]["key"]
    told["thumbnails"] = [{name: picture[name] for name in PICTURE} for picture in item["thumbnails"]]
    if item["latest_job"]:
        job = api.get(f"jobs/{item['latest_job']['id']}")["data"]
        told |= {"job_id": job["id"]} | {
            name: job[name] for name in ("status", "error_code", "error_message")
        }
        told["rows"] = [_row(row) for row in job["rows"]]
    return told


def _row(row: dict[str, Any]) -> dict[str, Any]:
    tries = row["tries"]
    return {
        "job_type": row["job_type"],
        "status": row["status"],
        "attempts": len(tries),
        "ms": tries[-1]["duration_ms"] if tries else None,
    }


def _unknown(upload: Upload) -> dict[str, Any]:
    names = ("media_item_id", "job_id", "status", "error_code", "error_message", "kind", "mime_type", "size",
             "sha256", "width", "height", "captured_at", "gps", "duplicate_of")  # fmt: skip
    entry: dict[str, Any] = {"key": upload.key, **dict.fromkeys(names)}
    return {**entry, "size": upload.size, "warnings": [], "thumbnails": [], "rows": []}


def table(files: list[dict[str, Any]]) -> Table:
    """The entries of ``collect`` for people."""
    made = Table(
        title="What became of each file", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    made.add_column("key", overflow="fold", ratio=2)
    for name in ("status", "type", "pixels", "captured"):
        made.add_column(name, no_wrap=True)
    made.add_column("what there is to say", overflow="fold", ratio=3)
    made.add_column("ms", justify="right", no_wrap=True)
    for file in files:
        status = file["status"] or "not final"
        made.add_row(
            escape(file["key"]),
            f"[{STYLES.get(status, 'yellow')}]{status}[/]",
            (file["mime_type"] or "-").rpartition("/")[2],
            f"{file['width']}x{file['height']}" if file["width"] else "-",
            (file["captured_at"] or "-")[:10],
            _reason(file),
            str(sum(row["ms"] or 0 for row in file["rows"])) if file["rows"] else "-",
        )
    return made


def summary(files: list[dict[str, Any]]) -> str:
    """How many files there are of each status."""
    counts = Counter(file["status"] or "not final" for file in files)
    word = "file" if len(files) == 1 else "files"
    return f"{len(files)} {word}: {', '.join(f'{count} {status}' for status, count in counts.most_common())}"


def _reason(file: dict[str, Any]) -> str:
    if file["error_code"]:
        return f"[red]{file['error_code']}[/] {escape(file['error_message'] or '')}"
    if file["duplicate_of"]:
        return escape(f"same bytes as {file['duplicate_of']}")
    return f"[yellow]{escape(' '.join(map(str, file['warnings'])))}[/]"
