"""What the accuracy benchmark is meant to reach, and whether it does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

TARGET_NOISE = 2.0
"""Pixels: the noise at which the targets hold."""
TARGETS: dict[str, dict[str, float]] = {
    "all": {"PA-MPJPE": 15, "PA-V2V": 19, "MPJPE": 23},
    "body": {"PA-MPJPE": 22, "PA-V2V": 28, "MPJPE": 34},
    "upper": {"PA-MPJPE": 20, "MPJPE": 30},
    "upper_pelvis": {"PA-MPJPE": 20, "MPJPE": 30},
    "waist_up": {"PA-MPJPE": 20, "MPJPE": 30},
    "no_feet": {"PA-MPJPE": 24, "MPJPE": 36},
    "no_ankles": {"PA-MPJPE": 24, "MPJPE": 36},
    "outliers": {"PA-MPJPE": 25, "MPJPE": 38},
    "offsets": {"PA-MPJPE": 25, "MPJPE": 40},
    "equal_offsets": {"PA-MPJPE": 25, "MPJPE": 40},
    "pitch": {"PA-MPJPE": 19, "MPJPE": 30},
    "far": {"PA-MPJPE": 24, "MPJPE": 36},
}
"""Case -> the most that a mean may be, mm. The three upper bodies, the two without feet and the two of offsets are
readings of one goal."""
FACING_WRONG = 0.5
"""Percent of the people, every case with a target."""
ALL_POINTS = (("hands PA", "mean", 5.0), ("focal error", "median", 10.0), ("reprojection", "median", 3.0))
"""Metric, statistic, bound: of the case `all`."""
JUDGED = ("mean pose", "network", "full")
"""Methods whose rows show the targets."""

Row = dict[str, Any]


def target_column(row: Row) -> str:
    """Return a row's targets, each with what it is compared to: "PA-MPJPE 14.2 <= 15 yes, ..."."""
    if not _applies(row):
        return ""
    bounds = TARGETS[row["case"]] | {"facing wrong": FACING_WRONG}
    return ", ".join(_verdict(name, row["metrics"][name]["mean"], bound) for name, bound in bounds.items())


def comparisons(rows: Sequence[Row]) -> list[str]:
    """Return sentences: the targets that compare methods with each other, as far as the rows allow."""
    table = {(row["method"], row["case"]): row for row in rows if row["noise px"] == TARGET_NOISE and "metrics" in row}
    lines = []
    for case in dict.fromkeys(row["case"] for row in rows):
        full = table.get(("full", case))
        if full is None:
            continue
        if case == "all":
            lines += [
                f"full, all: {name} {statistic}: " + _verdict("", full["metrics"][name][statistic], bound)
                for name, statistic, bound in ALL_POINTS
            ]
        lines += _against(case, full, {name: table.get((name, case)) for name in ("published", "mean pose", "network")})
    return lines


def _against(case: str, full: Row, others: dict[str, Row | None]) -> list[str]:
    lines = []
    if (published := others["published"]) and case == "all":
        ratio = _mean(published, "PA-MPJPE") / _mean(full, "PA-MPJPE")
        lines.append(f"published / full, {case}: PA-MPJPE {ratio:.2f} times (>= 4: {_yes(ratio >= 4)})")
    if start := others["mean pose"]:
        worse = [name for name in ("PA-MPJPE", "MPJPE", "PA-V2V") if _mean(full, name) >= _mean(start, name)]
        lines.append(f"full better than mean pose, {case}: {'yes' if not worse else 'not in ' + ', '.join(worse)}")
        share = _mean(full, "iterations") / max(_mean(start, "iterations"), 1e-9)
        lines.append(f"iterations of full / mean pose, {case}: {share:.2f} (<= 0.33: {_yes(share <= 1 / 3)})")
    if network := others["network"]:
        gain = 100 * (1 - _mean(full, "PA-V2V") / _mean(network, "PA-V2V"))
        lines.append(f"full against network, {case}: PA-V2V lower by {gain:.1f} % (>= 15: {_yes(gain >= 15)})")
    return lines


def _applies(row: Row) -> bool:
    known = row.get("known focal", False)
    return row["method"] in JUDGED and row["noise px"] == TARGET_NOISE and row["case"] in TARGETS and not known


def _verdict(name: str, value: float, bound: float) -> str:
    return f"{name} {value:.1f} <= {bound:g} {_yes(value <= bound)}".strip()


def _yes(met: bool) -> str:
    return "yes" if met else "NO"


def _mean(row: Row, metric: str) -> float:
    return float(row["metrics"][metric]["mean"])
