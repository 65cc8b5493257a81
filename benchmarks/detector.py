"""People found and time taken on photos. Usage: python benchmarks/detector.py PHOTO|FOLDER... [--threads 2] [--save].

With --truth FOLDER, keypoint files named as OpenPose names them (`<stem>_keypoints.json`) are compared: how many of the
people with at least eight points were found, by COCO's object keypoint similarity, and how well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from measure import arguments, machine, save, table, timed

from fitkit.keypoints.containers import Keypoints
from fitkit.keypoints.conventions import COCO_17
from fitkit.keypoints.detectors import DETECTORS
from fitkit.keypoints.images import find_images, read_image

FOUND = 0.5
"""Similarity from which a person counts as found."""
FEWEST_POINTS = 8
"""People with fewer points in the truth are not counted."""
SPREAD = dict(zip(COCO_17, (26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89), strict=True))
"""COCO's spread of annotators, in thousandths of the person's size."""


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("photos", nargs="+", help="photos, folders or patterns")
    parser.add_argument("--truth", type=Path, help="folder of OpenPose files")
    options = parser.parse_args()
    detector, started = timed(lambda: DETECTORS.get("mediapipe")(num_threads=options.threads), "cpu", 1)
    rows = [measure(detector, photo, options.truth) for photo in find_images(options.photos)]
    print(f"Networks loaded in {started.wall:.2f} s.")
    print(table(rows, list(rows[0])))
    counted = [row for row in rows if row["of"] is not None]
    summary: dict[str, Any] = {"photos": len(rows), "median s": float(np.median([row["s"] for row in rows]))}
    if counted:
        summary["recall"] = f"{sum(row['found'] for row in counted)} / {sum(row['of'] for row in counted)}"
        summary["similarity"] = float(np.mean([s for row in counted for s in row["similarity"]]))
    print(summary)
    if options.save:
        save("detector", {"machine": machine("cpu"), "rows": rows, "summary": summary})


def measure(detector: Any, photo: Path, truth: Path | None) -> dict[str, Any]:
    """Return the row of a photo."""
    image = read_image(photo)
    people, spent = timed(lambda: detector.detect(image.pixels), "cpu", 1)
    row: dict[str, Any] = {"photo": photo.name, "people": len(people), "s": round(spent.wall, 2)}
    row |= {"CPU s": round(spent.cpu, 2), "found": None, "of": None, "similarity": None}
    file = truth / f"{photo.stem}_keypoints.json" if truth else None
    if file is not None and file.exists():
        from fitkit.keypoints.formats import read_keypoints

        values = [best_similarity(person, people) for person in coco_people(read_keypoints(file)[0])]
        row["of"] = len(values)
        row["similarity"] = [round(value, 2) for value in values if value > FOUND]
        row["found"] = len(row["similarity"])
    return row


def coco_people(truth: Keypoints) -> list[np.ndarray]:
    """Return (17, 3) x, y, confidence of each person with enough points."""
    index = [truth.names.index(name) for name in COCO_17]
    people = np.concatenate([truth.points, truth.confidence[..., None]], axis=-1)[:, index]
    return [person for person in people if (person[:, 2] > 0.2).sum() >= FEWEST_POINTS]


def best_similarity(person: np.ndarray, found: Keypoints) -> float:
    """Return the object keypoint similarity of a person (17, 3) with the nearest one found."""
    seen = person[:, 2] > 0.2
    width, height = np.ptp(person[seen, :2], axis=0)
    longer, shorter = max(width, height), min(width, height)
    size = np.sqrt(0.6 * longer * max(shorter, 0.35 * longer))
    index = [found.names.index(name) for name in COCO_17]
    squared = ((found.points[:, index] - person[:, :2]) ** 2).sum(-1)
    scale = 2.0 * np.array(list(SPREAD.values())) / 1000.0 * size
    alike = np.exp(-squared / (2.0 * scale**2))[:, seen].mean(-1)
    return float(alike.max(initial=0.0))


if __name__ == "__main__":
    main()
