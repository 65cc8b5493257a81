"""What the network's proposal costs a person. Usage: python benchmarks/initialiser.py [--save].

Proposals include belief and camera. Synthetic people (118 keypoints, focal length unknown) as `fitkit.fit` hands them
to the default recipe's initialiser, in double precision on a CPU. Batch sizes take turns, and the least time of each
counts: processor time on a CPU, the clock's on a GPU.
"""

from __future__ import annotations

import torch
from measure import arguments, machine, save, table, timed
from synthetic import sample_people

from fitkit.api import choose_device
from fitkit.model_files import load_model
from fitkit.models.arrays import ModelChoice
from fitkit.people import Person, make_problem
from fitkit.recipe import load_recipe

DIFFERENT = 32
"""Different people; batches repeat them."""
TARGET = (64, 3.0)
"""Batch, and the milliseconds a person that it may take on a CPU."""


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.set_defaults(threads=1)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64, 512])
    parser.add_argument("--repeats", type=int, default=9, help="times that each batch size takes its turn")
    parser.add_argument("--recipe", default="default")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    dtype = torch.float64 if device == "cpu" else torch.float32
    model = load_model(ModelChoice("anny", "anny", dtype=dtype, device=device))
    recipe = load_recipe(options.recipe)
    pictures = sample_people(load_model(ModelChoice("anny", "anny", dtype=torch.float64)), DIFFERENT, options.seed)
    people = [Person(one, 0, 1.2 * 1000, "default", refine_focal=True) for one in pictures.keypoints]
    problems = {
        batch: make_problem((people * -(-batch // DIFFERENT))[:batch], model, recipe) for batch in options.batches
    }
    least: dict[int, float] = {}
    for _ in range(options.repeats + 1):
        for batch, problem in problems.items():
            _, spent = timed(lambda problem=problem: recipe.initialiser(problem), device, batch)
            cost = 1000 * (spent.cpu if device == "cpu" else spent.wall) / batch
            least[batch] = min(cost, least.get(batch, cost))
    rows = [{"batch": batch, "ms a person": round(cost, 2)} for batch, cost in least.items()]
    print(table(rows, ["batch", "ms a person"]))
    batch, bound = TARGET
    if device == "cpu" and batch in least:
        verdict = "at most" if least[batch] <= bound else "over"
        print(f"{least[batch]:.2f} ms a person at batch {batch}: {verdict} {bound:g}")
    if options.save:
        save("initialiser", {"machine": machine(device), "settings": vars(options), "rows": rows})


if __name__ == "__main__":
    main()
