"""What all benchmarks share: a clock, a device, a note of the machine, a table, a place for results."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from fitkit.people import ONE_THREAD_BELOW

RESULTS = Path(__file__).parent / "results"
Value = TypeVar("Value")


@dataclass(frozen=True)
class Spent:
    """Time that a call took."""

    wall: float
    """Seconds on the clock."""
    cpu: float
    """Processor seconds of all threads: what counts where other work keeps the machine busy."""


def timed(call: Callable[[], Value], device: str, people: int) -> tuple[Value, Spent]:
    """Return what a call returns, and the time it took; fits of few people on a CPU get one thread, as in fitkit."""
    cuda = device.startswith("cuda")
    threads = torch.get_num_threads()
    if not cuda and people < ONE_THREAD_BELOW:
        torch.set_num_threads(1)
    try:
        if cuda:
            torch.cuda.synchronize()
        wall, cpu = time.perf_counter(), time.process_time()
        value = call()
        if cuda:
            torch.cuda.synchronize()
        return value, Spent(time.perf_counter() - wall, time.process_time() - cpu)
    finally:
        torch.set_num_threads(threads)


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="processor threads")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/<name>.json")
    return parser


def machine(device: str) -> dict[str, Any]:
    """Return what the figures depend on: processor, threads, device, versions, and how busy the machine was."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = models[0].split(":", 1)[1].strip() if models else name
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return {
        "processor": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": round(load, 1),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    """Return rows as a markdown table."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_shown(row.get(column)) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def save(name: str, report: dict[str, Any]) -> None:
    """Write a report to the results' folder."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
