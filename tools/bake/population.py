"""Sample phenotypes: who the body's betas describe."""

import numpy as np
from numpy.typing import NDArray

GENDERS = {"male": 0.0, "female": 1.0}
"""Anny's gender axis."""


def sample_phenotypes(gender: str, count: int, labels: tuple[str, ...], seed: int) -> NDArray:
    """Phenotypes (count, P) of a population of adults and some teenagers.

    Ages: 8 % between 13 and 18 years, the others 18 to 80 with the mean near 38, on MakeHuman's scale (25 years at
    2/3, 90 years at 1). Heights follow from Anny's height axis so that men are 1.77 +- 0.08 m and women 1.64 +- 0.075
    m, near the means of NCD-RisC (2016). Weight, muscle and proportions fill most of their range; origins are uniform
    on the simplex.

    Args:
        gender: "neutral", "female" or "male".
        count: number of people.
        labels: the P phenotype names, in Anny's order.
        seed: of numpy's PCG64.
    """
    draw = np.random.default_rng(seed)
    columns = {"gender": sample_gender(gender, count, draw)}
    columns["age"] = sample_age(count, draw)
    centre = 0.412 - 0.022 * columns["gender"]
    columns["height"] = np.clip(centre + 0.055 * draw.standard_normal(count), 0.12, 0.7)
    for label, a, b in (
        ("muscle", 2.5, 2.5),
        ("weight", 2.0, 2.2),
        ("proportions", 2.0, 2.0),
        ("cupsize", 2.0, 2.0),
        ("firmness", 2.0, 2.0),
    ):
        columns[label] = draw.beta(a, b, count)
    origins = draw.dirichlet((1.0, 1.0, 1.0), count)
    columns |= {"african": origins[:, 0], "asian": origins[:, 1], "caucasian": origins[:, 2]}
    return np.stack([columns[label] for label in labels], axis=1)


def sample_gender(gender: str, count: int, draw: np.random.Generator) -> NDArray:
    """Values on Anny's gender axis (0 male, 1 female); the neutral population is bimodal with 10 % in between."""
    spread = draw.beta(1.2, 8.0, count)
    if gender in GENDERS:
        return np.abs(GENDERS[gender] - spread)
    side, kind = draw.integers(0, 2, count), draw.random(count)
    return np.where(kind < 0.1, draw.random(count), np.abs(side - spread))


def sample_age(count: int, draw: np.random.Generator) -> NDArray:
    """Values on Anny's age axis (1/3 child, 2/3 young adult, 1 old)."""
    adult, teen = 18.0 + 62.0 * draw.beta(1.2, 2.5, count), 13.0 + 5.0 * draw.random(count)
    years = np.where(draw.random(count) < 0.08, teen, adult)
    return np.interp(years, [13.0, 18.0, 25.0, 90.0], [0.5, 0.61, 2 / 3, 1.0])


def portrait_phenotypes(labels: tuple[str, ...]) -> NDArray:
    """14 clearly different adults (14, P) to take face pictures of."""
    people = []
    for gender in (0.05, 0.95):
        for k in range(7):
            origin = np.eye(3)[k % 3] * 0.8 + 0.2 / 3 if k < 6 else np.full(3, 1 / 3)
            row = dict.fromkeys(labels, 0.5) | {"gender": gender, "height": 0.4}
            row["age"] = (0.67, 0.67, 0.67, 0.85, 0.85, 0.85, 0.72)[k]
            row["weight"] = (0.4, 0.55, 0.45, 0.5, 0.6, 0.4, 0.5)[k]
            row |= dict(zip(("african", "asian", "caucasian"), origin, strict=True))
            people.append([row[label] for label in labels])
    return np.array(people)
