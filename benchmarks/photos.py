"""How fits of real photos end: statuses and reprojection errors of everybody whom the detector finds.

    python benchmarks/photos.py FOLDER [--out OUT]

Prints a line per photo and the totals; with --out it also writes overlays with a view from the side.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path

import numpy as np

import fitkit
from fitkit.keypoints.detectors import DETECTORS, detect
from fitkit.keypoints.images import find_images, read_image
from fitkit.pictures import write_picture
from fitkit.viewers.overlay import DrawnBody
from fitkit.viewers.side_view import picture


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    detector = DETECTORS.get("mediapipe")()
    statuses: Counter[str] = Counter()
    relative, seconds = [], 0.0
    for path in find_images([str(arguments.folder)]):
        (people,) = detect(path, detector=detector)
        begin = time.process_time()
        results = fitkit.fit(people, recipe=arguments.recipe)
        seconds += time.process_time() - begin
        errors = [result.reprojection_relative for result in results]
        statuses.update(result.status for result in results)
        relative += errors
        print(
            f"{path.name:45s}{len(results):3d} people", " ".join(f"{100 * error:.1f}%" for error in errors), flush=True
        )
        if arguments.out and results:
            arguments.out.mkdir(parents=True, exist_ok=True)
            bodies = [DrawnBody(result.vertices, result.faces, result.camera.intrinsics) for result in results]
            write_picture(arguments.out / f"{path.stem}.png", picture(read_image(path).pixels, bodies, side=True))
    shares = np.array(relative)
    print(f"{len(shares)} people, statuses {dict(statuses)}, {seconds / max(len(shares), 1):.2f} CPU s a person")
    print(
        f"reprojection, share of height: median {100 * np.median(shares):.2f} %, worst {100 * shares.max():.2f} %, "
        f"{(shares > 0.02).sum()} above 2 %"
    )


if __name__ == "__main__":
    main()
