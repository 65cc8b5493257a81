"""Bones to SMPL-X's 55 joints, and the A-pose to the T-pose.

Each joint takes the bones below it that have no joint of their own. The T-pose is reached by one constant world
rotation per joint, so that a T-posed vertex stays linear in shape. Plain skinning with those rotations would make the
T-pose look right and lowered arms wrong; instead every T-posed vertex is the least-squares answer over everyday poses
and uniformly random ones:

    posed by native Anny   sum_j W_j G_pj y_j     y_j = Q_j (v_A - J_A,j) + J_T,j
    posed by SMPL-X        (sum_j W_j G_pj) v_T   G_pj: world rotation of joint j in pose p; translations cancel
    so                     v_T = sum_j C_j y_j    C_j = M^-1 sum_p A_p' W_j G_pj
                           M = sum_p A_p' A_p,      A_p = sum_j W_j G_pj
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from bake.source import Source

SIDES = {"left": ".L", "right": ".R"}
FINGERS = {"index": 2, "middle": 3, "pinky": 5, "ring": 4, "thumb": 1}
"""MakeHuman's finger numbers, in SMPL-X's order."""

THUMB_REST = np.array([0.62, -0.30, 0.72]) / np.linalg.norm([0.62, -0.30, 0.72])
"""Direction of the left thumb in the T-pose; straight, between the palm's plane and the forward axis."""


def _joint_table() -> list[tuple[str, str, str]]:
    """SMPL-X's joints in order: (name, parent, Anny's bone whose head it is)."""
    table = [("pelvis", "", "spine05")]
    chain = ("hip", "knee", "ankle", "foot")
    for level, bone in zip(chain, ("upperleg01", "lowerleg01", "foot", "toes"), strict=True):
        for side, suffix in SIDES.items():
            above = chain[chain.index(level) - 1] if level != "hip" else ""
            table.append((f"{side}_{level}", f"{side}_{above}" if above else "pelvis", bone + suffix))
        if level != "foot":
            number = chain.index(level) + 1
            table.append((f"spine{number}", f"spine{number - 1}" if number > 1 else "pelvis", f"spine0{4 - number}"))
    table.append(("neck", "spine3", "neck01"))
    table += [(f"{side}_collar", "spine3", "clavicle" + suffix) for side, suffix in SIDES.items()]
    table.append(("head", "neck", "head"))
    for level, above, bone in (
        ("shoulder", "collar", "upperarm01"),
        ("elbow", "shoulder", "lowerarm01"),
        ("wrist", "elbow", "wrist"),
    ):
        table += [(f"{side}_{level}", f"{side}_{above}", bone + suffix) for side, suffix in SIDES.items()]
    table.append(("jaw", "head", "jaw"))
    table += [("left_eye_smplhf", "head", "eye.L"), ("right_eye_smplhf", "head", "eye.R")]
    for side, suffix in SIDES.items():
        for finger, number in FINGERS.items():
            for k in (1, 2, 3):
                above = f"{side}_{finger}{k - 1}" if k > 1 else f"{side}_wrist"
                table.append((f"{side}_{finger}{k}", above, f"finger{number}-{k}{suffix}"))
    return table


JOINT_TABLE = _joint_table()
JOINTS = tuple(name for name, _, _ in JOINT_TABLE)
PARENTS = tuple(JOINTS.index(parent) if parent else -1 for _, parent, _ in JOINT_TABLE)


@dataclass(frozen=True)
class Rig:
    """The 55 joints over Anny's rest mesh."""

    weights: NDArray
    """(V, 55) skinning weights, rows sum to 1."""
    regressor: NDArray
    """(55, N) joints from bone heads."""
    rotations: NDArray
    """(55, 3, 3) world rotation of each joint from the A-pose to the T-pose."""
    group: NDArray
    """(N,) joint of each bone."""

    def joints(self, heads: NDArray) -> NDArray:
        """A-pose joints (..., 55, 3) from bone heads (..., N, 3)."""
        return np.einsum("jn,...nd->...jd", self.regressor, heads)

    def pose_joints(self, joints: NDArray, rotations: NDArray) -> NDArray:
        """Joints (..., 55, 3) after rotating every joint's bones by its world rotation (55, 3, 3); the root stays."""
        posed = joints.copy()
        for j in range(1, len(PARENTS)):
            offset = joints[..., j, :] - joints[..., PARENTS[j], :]
            posed[..., j, :] = posed[..., PARENTS[j], :] + offset @ rotations[PARENTS[j]].T
        return posed


def group_bones(source: Source) -> NDArray:
    """Joint index of every bone: its own joint, else that of its nearest ancestor that has one."""
    own = {bone: j for j, (_, _, bone) in enumerate(JOINT_TABLE)}
    own |= {f"toe{k}-1{suffix}": own["toes" + suffix] for k in range(1, 6) for suffix in SIDES.values()}
    own["root"] = own["spine05"]
    group = np.zeros(len(source.bones), int)
    for i, (bone, parent) in enumerate(zip(source.bones, source.parents, strict=True)):
        group[i] = own.get(bone, group[parent])
    return group


def build_rig(source: Source, heads: NDArray) -> Rig:
    """The rig over Anny's rest mesh; `heads` (N, 3) of the mean person set the rotations to the T-pose."""
    group = group_bones(source)
    weights = np.zeros((len(source.vertices), len(JOINTS)))
    np.add.at(weights.T, group, source.weights.T)
    regressor = np.zeros((len(JOINTS), len(source.bones)))
    for j, (_, _, bone) in enumerate(JOINT_TABLE):
        name, suffix = bone[:-2], bone[-2:]
        of = [f"toe{k}-1{suffix}" for k in range(1, 6)] if name == "toes" else [bone]
        regressor[j, [source.bones.index(b) for b in of]] = 1 / len(of)
    tails = {f"{s}_{f}": _tip(source, s, f) for s in SIDES for f in FINGERS}
    joints = regressor @ heads
    return Rig(weights, regressor, t_pose_rotations(joints, {k: v(heads) for k, v in tails.items()}), group)


def _tip(source: Source, side: str, finger: str):
    """Function from bone heads to the direction of a finger's last bone, taken from the template's bone tails."""
    bone = source.bones.index(f"finger{FINGERS[finger]}-3{SIDES[side]}")
    last = source.tails[bone] - source.heads[bone]
    before = source.heads[bone] - source.heads[bone - 1]
    turn = align(before, last)
    return lambda heads: turn @ (heads[bone] - heads[bone - 1])


def unit(vector: NDArray) -> NDArray:
    """The vector at length 1."""
    return vector / np.linalg.norm(vector)


def align(source: NDArray, target: NDArray) -> NDArray:
    """The smallest rotation (3, 3) that turns direction `source` into direction `target`."""
    a, b = unit(source), unit(target)
    axis, cosine = np.cross(a, b), float(a @ b)
    cross = np.cross(np.eye(3), axis)
    return np.eye(3) + cross + cross @ cross / (1.0 + cosine)


def frame(first: NDArray, second: NDArray) -> NDArray:
    """Orthonormal columns: `first`, `second` made orthogonal to it, their cross product."""
    a = unit(first)
    b = unit(second - a * (a @ second))
    return np.stack([a, b, np.cross(a, b)], axis=1)


def t_pose_rotations(joints: NDArray, last_bones: dict[str, NDArray]) -> NDArray:
    """World rotations (55, 3, 3) from the A-pose to the T-pose of these joints (55, 3).

    Arms go along x with the elbow's hinge vertical and the palm down; fingers parallel to the arm; thumbs along
    `THUMB_REST`. Trunk, head, collars and legs keep Anny's rest.
    """
    turns = np.tile(np.eye(3), (len(JOINTS), 1, 1))
    at = {name: joints[i] for i, name in enumerate(JOINTS)}
    for side, sign in (("left", 1.0), ("right", -1.0)):
        out, down, front = np.array([sign, 0, 0]), np.array([0, -1.0, 0]), np.array([0, 0, 1.0])
        upper, fore = at[f"{side}_elbow"] - at[f"{side}_shoulder"], at[f"{side}_wrist"] - at[f"{side}_elbow"]
        hinge = np.cross(upper, fore) * sign
        knuckles = at[f"{side}_index1"] - at[f"{side}_pinky1"]
        turns[JOINTS.index(f"{side}_shoulder")] = frame(out, down) @ frame(upper, hinge).T
        turns[JOINTS.index(f"{side}_elbow")] = frame(out, down) @ frame(fore, hinge).T
        wrist = frame(out, front) @ frame(at[f"{side}_middle1"] - at[f"{side}_wrist"], knuckles).T
        turns[JOINTS.index(f"{side}_wrist")] = wrist
        for finger in FINGERS:
            target = THUMB_REST * [sign, 1, 1] if finger == "thumb" else out
            names = [f"{side}_{finger}{k}" for k in (1, 2, 3)]
            bones = [at[names[1]] - at[names[0]], at[names[2]] - at[names[1]], last_bones[f"{side}_{finger}"]]
            for name, bone in zip(names, bones, strict=True):
                turns[JOINTS.index(name)] = align(wrist @ bone, target) @ wrist
    return turns


def sample_everyday_poses(count: int, seed: int) -> NDArray:
    """Local rotations (2 * count, 55, 3, 3) relative to the T-pose: arms mostly lowered, everything a little bent.

    The second half mirrors the first, so that what is solved from them is symmetric; the first is the T-pose. Fingers
    curl, elbows and knees flex one way, shoulders range from hanging to raised.
    """
    draw = np.random.default_rng(seed)
    angles = np.radians(12.0) * draw.standard_normal((count, len(JOINTS), 3))
    for side, sign in (("left", 1.0), ("right", -1.0)):
        index = {
            name: JOINTS.index(f"{side}_{name}") for name in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
        }
        angles[:, index["shoulder"]] += np.radians([20, 30, 35]) * draw.standard_normal((count, 3))
        angles[:, index["shoulder"], 2] -= sign * np.radians(45)
        angles[:, index["shoulder"], 1] -= sign * np.radians(15)
        angles[:, index["elbow"], 1] -= sign * np.radians(65) * np.abs(draw.standard_normal(count))
        angles[:, index["wrist"]] += np.radians([10, 10, 20]) * draw.standard_normal((count, 3))
        angles[:, index["hip"], 0] -= np.radians(35) * np.abs(draw.standard_normal(count))
        angles[:, index["knee"], 0] += np.radians(45) * np.abs(draw.standard_normal(count))
        curl = np.abs(draw.standard_normal((count, 1))) * np.radians(30)
        for finger in ("index", "middle", "pinky", "ring"):
            for k in (1, 2, 3):
                angles[:, JOINTS.index(f"{side}_{finger}{k}"), 2] -= sign * curl[:, 0]
    angles[:, 0] = 0.0
    angles[0] = 0.0
    return with_mirror_images(angles)


def uniform_poses(count: int, seed: int, limit: float = 0.6) -> NDArray:
    """Local rotations (2 * count, 55, 3, 3): every component of every axis-angle vector uniform within +-limit radians.

    The second half mirrors the first.
    """
    angles = np.random.default_rng(seed).uniform(-limit, limit, (count, len(JOINTS), 3))
    angles[:, 0] = 0.0
    return with_mirror_images(angles)


def with_mirror_images(angles: NDArray) -> NDArray:
    """Rotations (2 * S, 55, 3, 3) of axis-angle poses (S, 55, 3) and then of their mirror images."""
    names = [name.replace("left_", "?").replace("right_", "left_").replace("?", "right_") for name in JOINTS]
    mirrored = angles[:, [JOINTS.index(name) for name in names]] * [1.0, -1.0, -1.0]
    both = np.concatenate([angles, mirrored])
    return Rotation.from_rotvec(both.reshape(-1, 3)).as_matrix().reshape(-1, len(JOINTS), 3, 3)


def world_rotations(local: NDArray) -> NDArray:
    """World rotations (..., 55, 3, 3) of local ones."""
    world = local.copy()
    for j in range(1, len(PARENTS)):
        world[..., j, :, :] = world[..., PARENTS[j], :, :] @ local[..., j, :, :]
    return world


@dataclass(frozen=True)
class Straightener:
    """The linear map from Anny's A-posed rest mesh and joints to the T-posed ones."""

    rig: Rig
    slots: NDArray
    """(V, K) joints that move each vertex."""
    blends: NDArray
    """(V, K, 3, 3) matrix weights C of the slots; they sum to the identity."""

    def joints(self, joints: NDArray) -> NDArray:
        """T-posed joints (..., 55, 3) with the pelvis at the origin, from A-posed ones."""
        posed = self.rig.pose_joints(joints, self.rig.rotations)
        return posed - posed[..., :1, :]

    def vertices(self, vertices: NDArray, joints: NDArray) -> NDArray:
        """T-posed vertices (V, 3), pelvis at the origin, from A-posed vertices (V, 3) and joints (55, 3)."""
        offset = self.joints(joints) - np.einsum("jab,jb->ja", self.rig.rotations, joints)
        turned = np.einsum("vkab,vb->vka", self.rig.rotations[self.slots], vertices) + offset[self.slots]
        return np.einsum("vkab,vkb->va", self.blends, turned)


def build_straightener(rig: Rig, poses: int = 128, seed: int = 5) -> Straightener:
    """The least-squares T-pose (see the module's docstring) over `poses` everyday and as many random poses."""
    world = world_rotations(np.concatenate([sample_everyday_poses(poses, seed), uniform_poses(poses, seed)]))
    width = int((rig.weights > 0).sum(axis=1).max())
    slots = np.argsort(-rig.weights, axis=1)[:, :width]
    weights = np.take_along_axis(rig.weights, slots, axis=1)
    normal, blends = np.zeros((len(slots), 3, 3)), np.zeros((*slots.shape, 3, 3))
    for pose in world:
        each = weights[..., None, None] * pose[slots]
        total = each.sum(axis=1)
        normal += np.einsum("vba,vbc->vac", total, total)
        blends += np.einsum("vba,vkbc->vkac", total, each)
    return Straightener(rig, slots, np.linalg.solve(normal[:, None], blends))
