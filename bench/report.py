"""The numbers of a run as Markdown."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Iterable
from typing import Any

from bench.costs import POOL, per_asset

Row = tuple[object, ...]


def markdown(found: dict[str, Any]) -> str:
    """The whole report. The details are those of the round whose rate is the median."""
    assets, rounds = found["assets"], found["rounds"]
    middle = sorted(rounds, key=lambda one: one["stack"]["seconds"])[len(rounds) // 2]
    fsync = "with" if found["durable"] else "without"
    parts = [
        f"# End to end: {assets} photographs of 12 megapixels, {found['processes']} pool processes",
        (
            f"{len(rounds)} rounds, stack and limit in turn, on {platform.machine()}, CPython"
            f" {platform.python_version()}; PostgreSQL {fsync} fsync. Details: the median round."
        ),
        _rates(assets, rounds),
        _requests(middle["stack"], assets),
        _cpu(middle, assets, found["processors"]),
        _pool(middle, assets, found["processes"]),
    ]
    return "\n\n".join(parts)


def _rates(assets: int, rounds: list[dict[str, Any]]) -> str:
    def row(name: str, values: list[float]) -> Row:
        return (name, f"{statistics.median(values):.2f}", f"{min(values):.2f} to {max(values):.2f}")

    stack = [assets / one["stack"]["seconds"] for one in rounds]
    limit = [assets / one["limit"]["seconds"] for one in rounds]
    ratios = [ours / bound for ours, bound in zip(stack, limit, strict=True)]
    rows = [
        row("end to end, assets a second", stack),
        row("compute limit, assets a second", limit),
        row("ratio", ratios),
    ]
    return _table(("", "median", "spread"), rows)


def _requests(stack: dict[str, Any], assets: int) -> str:
    by_service: dict[str, float] = {}
    for name, count in stack["requests"].items():
        service = name.split(" ")[0]
        by_service[service] = by_service.get(service, 0) + count
    rows: list[Row] = [
        (service, "**all**", f"**{count:.1f}**") for service, count in per_asset(by_service, assets).items()
    ]
    rows += [
        (*name.split(" ", 1), f"{count:.2f}") for name, count in per_asset(stack["requests"], assets).items()
    ]
    rows.append(("PostgreSQL", "transactions", f"{stack['transactions'] / assets:.1f}"))
    order = {service: place for place, service in enumerate(by_service)}
    rows.sort(key=lambda one: order.get(str(one[0]), len(order)))
    return _table(("to", "what", "an asset"), rows)


def _cpu(middle: dict[str, Any], assets: int, processors: int) -> str:
    stack = middle["stack"]
    in_stages = sum(stage["cpu_ms"] for stage in stack["stages"].values()) / assets
    spent = {name: seconds * 1000 for name, seconds in per_asset(stack["cpu_s"], assets).items()}
    spent[f"{POOL}: not in a stage"] = spent.pop(POOL) - in_stages
    spent[f"{POOL}: in stages"] = in_stages
    whole = stack["seconds"] * processors * 1000 / assets
    rows: list[Row] = [(name, f"{ms:.1f}", f"{ms / whole:.0%}") for name, ms in sorted(
        spent.items(), key=lambda item: -item[1])]  # fmt: skip
    others = whole - sum(spent.values())
    rows.append(("the machine's other processes", f"{others:.1f}", f"{others / whole:.0%}"))
    rows.append((f"**{processors} processors**", f"**{whole:.1f}**", "**100%**"))
    rows.append(("the same stages at the limit", f"{middle['limit']['cpu_ms']:.1f}", ""))
    return _table(("processor time", "ms an asset", "share"), rows)


def _pool(middle: dict[str, Any], assets: int, processes: int) -> str:
    """Where the seconds of the pool processes went: stages, claim and settle, and between two attempts."""
    stack, limit = middle["stack"], middle["limit"]["stages"]
    stages = {
        name: {what: ms / assets for what, ms in stage.items()} for name, stage in stack["stages"].items()
    }
    whole = stack["seconds"] * processes * 1000 / assets
    held = sum(stage["held_ms"] for stage in stages.values())
    in_stages = sum(stage["stage_ms"] for stage in stages.values())
    rows: list[Row] = [
        (f"stage {name}, with its transfers", f"{stage['stage_ms']:.1f}", f"{stage['stage_ms'] / whole:.0%}",
         f"{stage['cpu_ms']:.1f}", f"{limit[name]:.1f}")
        for name, stage in stages.items()
    ]  # fmt: skip
    between = whole - held
    rows += [
        ("claim and settle", f"{held - in_stages:.1f}", f"{(held - in_stages) / whole:.0%}", "", ""),
        ("between two rows", f"{between:.1f}", f"{between / whole:.0%}", "", ""),
        ("hash (in the stack: part of ingest)", "", "", "", f"{limit['hash']:.1f}"),
        (f"**{processes} processes**", f"**{whole:.1f}**", "**100%**", "", f"**{sum(limit.values()):.1f}**"),
    ]
    return _table(("pool process", "ms an asset", "share", "of it processor", "at the limit, ms"), rows)


def _table(head: Row, rows: Iterable[Row]) -> str:
    lines = [head, ("---",) + ("---:",) * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
