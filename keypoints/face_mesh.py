"""MediaPipe's face mesh: its 468 points, their mirror images, and the ones that stand for the 68 points of iBUG 300-W.

Facts taken from MediaPipe's canonical face model (canonical_face_model.obj): the mesh is symmetric, its first 248
points are those in the middle and on the subject's right, and points 248 to 467 mirror the ones on the right in the
same order.
"""

from __future__ import annotations

FACE_MESH_468: tuple[str, ...] = tuple(f"face_mesh_{i:03d}" for i in range(468))
"""MediaPipe's face mesh (without the 10 iris points of its refined variant)."""

_MIDDLE = (0, 1, 2, 4, 5, 6, *range(8, 20), 94, 151, 152, 164, 168, 175, 195, 197, 199, 200)
_RIGHT = tuple(i for i in range(248) if i not in _MIDDLE)
_SWAP = {right: 248 + k for k, right in enumerate(_RIGHT)}
_SWAP |= {left: right for right, left in _SWAP.items()} | {i: i for i in _MIDDLE}


def swap_mesh_point(name: str) -> str:
    """Return the name of a mesh point's mirror image."""
    return FACE_MESH_468[_SWAP[int(name.removeprefix("face_mesh_"))]]


def _names(*indices: int) -> tuple[str, ...]:
    return tuple(FACE_MESH_468[i] for i in indices)


def _with_mirror(*right: int) -> tuple[str, ...]:
    """Return a run from the right side to the middle, then on to the left."""
    there = _names(*right)
    back = tuple(swap_mesh_point(name) for name in reversed(there))
    return there + tuple(name for name in back if name not in there)


_EYE = _names(33, 160, 158, 133, 153, 144)  # right: outer corner, upper lid, inner corner, lower lid
_LEFT_EYE = tuple(swap_mesh_point(_EYE[i]) for i in (3, 2, 1, 0, 5, 4))
_LOWER_LIP = tuple(reversed(_with_mirror(181, 84, 17)))
_INNER_LOWER_LIP = tuple(reversed(_with_mirror(178, 14)))
_68 = (
    *_with_mirror(127, 234, 132, 58, 172, 136, 149, 148, 152),  # contour
    *_with_mirror(70, 63, 105, 66, 107),  # brows
    *_names(168, 197, 5, 4),  # bridge of the nose
    *_with_mirror(98, 97, 2),  # nostrils
    *_EYE,
    *_LEFT_EYE,
    *_with_mirror(61, 39, 37, 0),  # upper lip, outer
    *_LOWER_LIP,
    *_with_mirror(78, 81, 13),  # upper lip, inner
    *_INNER_LOWER_LIP,
)
FACE_FROM_MESH: dict[str, str] = {f"face_{i:02d}": name for i, name in enumerate(_68)}
"""The mesh point that lies nearest to each of the 68 face points; no mesh point serves twice."""

_OVAL_RIGHT = (10, 109, 67, 103, 54, 21, 162, 127, 234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152)
FACE_OVAL: tuple[str, ...] = (
    *_names(*_OVAL_RIGHT),
    *(swap_mesh_point(name) for name in reversed(_names(*_OVAL_RIGHT[1:-1]))),
)
"""The 36 mesh points round the face, from the forehead by the subject's right cheek to the chin and back."""
