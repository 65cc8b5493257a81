"""The least time of short work, and tables of one column per batch size: for benchmarks of pieces of the fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from measure import table, timed


def least(work: Callable[[], object], device: str, seconds: float = 2.0) -> float:
    """Return the least time of some work, run for so many seconds, in milliseconds."""
    threads, best, spent = torch.get_num_threads(), float("inf"), 0.0
    work()
    while spent < seconds:
        _, took = timed(work, device, people=1 if threads == 1 else 1 << 30)
        taken = took.wall if device.startswith("cuda") else took.cpu
        best, spent = min(best, taken), spent + took.wall
    return 1000 * best


def columns(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows that have a `batch` each as a table of one column per batch."""
    names = [str(row["batch"]) for row in rows]
    lines = [
        {"batch": key, **{name: row[key] for name, row in zip(names, rows, strict=True)}} for key in list(rows[0])[1:]
    ]
    return table(lines, ["batch", *names])
