"""What each part of the default recipe buys, in mm and ms: the recipe with one part left out or exchanged.

    python benchmarks/ablation.py [--poses train.npz] [--people 96] [--cases all body no_feet outliers] [--save]

People, cases and errors are those of `accuracy.py`. Prints for each variant and case the PA-MPJPE, its difference to
the recipe as it is with the standard error of that difference (the people are the same), root-aligned MPJPE, PA-V2V,
hands, iterations and CPU time a person. Writes benchmarks/results/ablation.json with --save.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from accuracy import Method, Settings, fitted, run, start_alone
from measure import arguments, machine, save, table

from fitkit.recipe import Recipe, load_recipe, parse_recipe

Plain = dict[str, Any]
AS_IT_IS = "as it is"
CASES = ("all", "body", "no_feet", "outliers")
COLUMNS = ("case", "without", "PA-MPJPE", "difference", "MPJPE", "PA-V2V", "hands PA", "iterations", "CPU ms")


def believed(recipe: Plain) -> list[Plain]:
    """Return the stages that follow the network."""
    return [stage for stage in recipe["stages"] if stage.get("when") != "unbelieved"]


def weighted(term: str, weight: float) -> Callable[[Plain], None]:
    """Return an edit that gives a term another weight everywhere."""

    def edit(recipe: Plain) -> None:
        for place in (recipe, *recipe["stages"]):
            if place is recipe or term in place.get("terms", {}):
                place["terms"][term] = (place["terms"].get(term) or {}) | {"weight": weight}

    return edit


def reprojecting(**settings: Any) -> Callable[[Plain], None]:
    """Return an edit of the reprojection of all stages that adapt to the keypoints' noise."""

    def edit(recipe: Plain) -> None:
        for stage in believed(recipe):
            if stage["terms"]["reprojection"].get("adaptive"):
                stage["terms"]["reprojection"].update(settings)

    return edit


def staged(without: str) -> Callable[[Plain], None]:
    """Return an edit that leaves a stage out; the hypotheses it would choose from are then all kept by the next."""

    def edit(recipe: Plain) -> None:
        gone = next(stage for stage in recipe["stages"] if stage["name"] == without)
        following = recipe["stages"].index(gone) + 1
        if gone.get("keep") and following < len(recipe["stages"]):
            recipe["stages"][following].setdefault("keep", gone["keep"])
        recipe["stages"].remove(gone)

    return edit


def solved(**solver: Any) -> Callable[[Plain], None]:
    """Return an edit by which another solver minimises, with ten times the iterations."""

    def edit(recipe: Plain) -> None:
        recipe["solver"] = solver
        for stage in recipe["stages"]:
            own = stage.setdefault("solver", {})
            own["max_iterations"] = 10 * own.get("max_iterations", 15)
            own.pop("change_tolerance", None)

    return edit


def _prior(name: str) -> Callable[[Plain], None]:
    def edit(recipe: Plain) -> None:
        for stage in believed(recipe):
            stage["terms"]["pose_prior"]["prior"] = name

    return edit


def _hypotheses(recipe: Plain) -> None:
    recipe["initialiser"]["hypotheses"] = 4


EDITS: dict[str, Callable[[Plain], None]] = {
    "the network's belief": weighted("belief", 0.0),
    "pose prior": weighted("pose_prior", 0.0),
    "joint limits": weighted("joint_limits", 0.0),
    "bone directions": weighted("bone_directions", 0.0),
    "upright": weighted("upright", 0.0),
    "first stage": staged("proposal"),
    "last stage": staged("proposal, polish"),
    "weights by the keypoints' spread": reprojecting(adaptive=False),
    "a usual detector's spread": reprojecting(usual=None),
    "outliers by spread": reprojecting(spreads=None),
    "Welsch's loss (Geman-McClure's)": reprojecting(loss="geman_mcclure"),
    "one hypothesis (four)": _hypotheses,
    "mixture prior (student)": _prior("student"),
    "mixture prior (vae)": _prior("vae"),
    "Levenberg-Marquardt (L-BFGS)": solved(name="lbfgs"),
}
"""What is left out, or exchanged (for what) -> the edit of the recipe's file that does it."""


def variants(edits: dict[str, Callable[[Plain], None]] = EDITS) -> dict[str, Recipe]:
    """Return the default recipe as it is, and with each edit."""
    whole = yaml.safe_load((resources.files("fitkit.configs") / "default.yaml").read_text(encoding="utf-8"))
    found = {AS_IT_IS: load_recipe()}
    for name, edit in edits.items():
        # Aliases of the file share mappings; an edit must reach each stage once.
        changed = yaml.safe_load(yaml.dump(whole, Dumper=_Unshared))
        edit(changed)
        found[name] = parse_recipe(yaml.safe_dump(changed), f"default without {name}")
    return found


class _Unshared(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def methods() -> dict[str, Method]:
    """Return every variant as a method of `accuracy.run`, and the starts alone."""
    found = {name: fitted(recipe) for name, recipe in variants().items()}
    alone, mean = fitted(start_alone("default")), fitted("default", init="mean")
    return found | {"refinement (the network alone)": alone, "network (mean pose)": mean}


def compared(rows: list[Plain]) -> list[Plain]:
    """Return rows as the table shows them, each against the recipe as it is."""
    whole = {row["case"]: row["errors"]["PA-MPJPE"] for row in rows if row["method"] == AS_IT_IS}
    found = []
    for row in rows:
        apart = row["errors"]["PA-MPJPE"] - whole[row["case"]]
        deviation = float(np.std(apart) / np.sqrt(len(apart)))
        means = {name: value["mean"] for name, value in row["metrics"].items()}
        found.append(
            means
            | {"case": row["case"], "without": "" if row["method"] == AS_IT_IS else row["method"]}
            | {"difference": float(np.mean(apart)), "standard error": deviation, "CPU ms": row["CPU ms"]}
        )
    return found


def shown(row: Plain) -> Plain:
    """Return a row as the table shows it."""
    cells = {name: f"{row[name]:.1f}" for name in ("PA-MPJPE", "MPJPE", "PA-V2V", "hands PA", "iterations")}
    cells["difference"] = f"{row['difference']:+.1f} +- {row['standard error']:.1f}" if row["without"] else ""
    return row | cells | {"CPU ms": f"{row['CPU ms']:.0f}"}


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.set_defaults(seed=1, device="cpu", threads=1)
    parser.add_argument("--poses", type=Path, help="motion capture (npz); without it, samples of the pose prior")
    parser.add_argument("--people", type=int, default=96)
    parser.add_argument("--cases", nargs="*", default=CASES, help="cases of accuracy.py")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    settings = Settings(options.poses, options.people, tuple(options.cases), seed=options.seed)
    rows = compared(run(settings, methods(), lambda row: print(row["case"], row["method"], flush=True)))
    print("\n" + table([shown(row) for row in rows], COLUMNS) + "\n")
    if options.save:
        told = {"poses": options.poses.name if options.poses else "samples of the pose prior"}
        told |= {"people": options.people, "seed": options.seed, "noise px": 2.0}
        save("ablation", {"machine": machine("cpu"), "settings": told, "rows": rows})


if __name__ == "__main__":
    main()
