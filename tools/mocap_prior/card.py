"""The model card of the learned pose priors."""

from collections.abc import Mapping, Sequence

TEXT = """# Learned pose priors

`student.npz` ("student" in a recipe), `gaussian_mixture.npz` ("mixture") and `joint_limits.npz`
("joint_limits"): plain arrays, no pickles. `vae.safetensors` ("vae") has a page of its own,
`vae.md`. This page is written by the training script: {command}.

## Data

{frames} body poses of {clips} clips, axis-angle, from two motion-capture collections: mocap.cs.cmu.edu (free
for all uses; created with funding from NSF EIA-0196217) and the Movement Research Lab of Seoul National
University (Apache-2.0). The weights may be used under fitkit's own licence.

- Held out: the {held_clips} clips ({held_frames} frames) for which crc32("source/clip") is a multiple of 10.
  Some motions of CMU may stand in the collection twice, in different solves, so that the split is by clip and
  not by motion.
- Mirrored copies of all frames, by tied pairs of components: the prior of a pose and of its mirror image are
  equal.
- Sampling weights of the collection (they flatten its density); frames that sit, crouch, lie or stand on their
  hands (trunk more than 60 degrees from the vertical, or both hips and knees bent past 60) count {rare:g}
  times.
- Joints that a source did not capture (feet, collars) are missing entries, integrated out in training and in
  the numbers.
- Re-referenced from the ideal T-pose of the data to the embedded body's template by constant rotations per
  bone, so that posed thighs, shins and arms point where the data's do. Collars and necks are centred per
  source. Stretched ankles of one source are taken back by 12 degrees. The templates of SMPL-X and its kin
  differ from the embedded one by some degrees (their arms by 3 to 5); the same weights serve all models.

## Densities

"student" is one component; "mixture" has {components} (half of them mirror images), of which the likeliest
counts. Both are multivariate t densities with {degrees:g} degrees of freedom (heavy tails: a pose twice as far
from the data is not pulled twice as hard), full scale matrices, {floor:g} rad added in squares to every
direction's deviation so that evidence can still move what the data holds still (twists of knees, toes, axes of
the spine that sources tie together). Expectation maximisation, {iterations} iterations, {used} frames, seed
{seed}. Floor and degrees of freedom were not chosen by likelihood, which asks for a smaller floor and still
heavier tails: both make the prior stiff about the poses it knows best. In fits of 160 synthetic people the
mixture's floors of 0.08 and 0.12 did better than 0.03 and 0.05 (PA-MPJPE 49 to 50 mm against 50 to 53), and
degrees of freedom of 8 to 50 differed by less than 1 mm.

**Which one.** The better density is not the better prior for a fit from one start: the component that is
nearest at the start holds the fit. 200 synthetic people in held-out poses (keypoints with 2 px of noise in
1000, any yaw, focal length of 35 to 70 degrees unknown), default recipe, PA-MPJPE and root-aligned MPJPE of 22
joints, mean / median in mm:

| prior | 23 points, PA | MPJPE | upper body only, PA | MPJPE |
|---|---|---|---|---|
| relaxed | 45.5 / 40.0 | 61.3 / 56.4 | 94.1 / 90.8 | 132.3 / 119.1 |
| student | 37.7 / 29.3 | 51.3 / 46.5 | 74.0 / 70.1 | 101.6 / 87.4 |
| mixture | 41.4 / 34.3 | 57.9 / 52.2 | 82.2 / 78.7 | 117.7 / 99.6 |
| student and joint_limits | 37.5 / 29.3 | 50.9 / 46.5 | 74.0 / 70.1 | 101.6 / 87.4 |

With 13 starts per person (the mean and the middles of 12 components, best energy kept; an earlier recipe, 160
people) PA-MPJPE was "relaxed" 49.3, "student" 42.2, mixture 40.7. These people stand in the held-out clips, by
which the choice was also made.

Held-out negative log-likelihood, nats per pose ({subset} training frames; lower is better):

{selection}

As trained on {used} frames ("relaxed" as a density, without its walls):

{scores}

Energy (sum of squared residuals) of held-out poses, missing joints drawn:

{energies}

## Joint limits

Per axis of each joint's rotation vector: the 0.2 and 99.8 percentiles of all frames and their mirror images, by
their weights, widened by 0.05 rad (the 0.5 percentile would keep people from squatting). {inside:.1f} % of the
angles of the poses above lie within.

## Hands

The hands' prior is no file here: a body model's own principal components and their deviations, for the embedded body
learned in `tools/bake/hands.py` from hand poses (half of the weight 7,319 fingerspelling fits, half 114 exact grips,
pinches and signs) and invented ones. With all 45 components it is a normal density with full covariance, the left hand
the mirror image of the right. Refitted without a fifth of the clips, it gives those -58.8 nats a pose (fingerspelling)
and -75.2 (exact ones), against -60.0 and -72.9 of the clips that it saw: it is not overfitted. Densities of the data
alone, with 0.05 radians added in squares, gain by several components: t mixtures of 1, 4 and 8 components give -45.2,
-50.1, -52.3 (fingerspelling) and -60.0, -66.0, -68.1 (exact). None was tried in fits.

## Weak spots

Mostly dance, sport, martial arts and everyday motion of a few dozen people, some actors many times. Few frames
sit, lie or stand on their hands; no yoga, no gymnastics, little contact with furniture. Feet and collars come
from a seventh of the frames or from few sources; wrists are coarse. Rotation vectors wrap: an arm raised past
the vertical behind the head may be far from any component.
"""


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table in Markdown; floats to one decimal."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in rows:
        cells = [f"{cell:.1f}" if isinstance(cell, float) and cell == cell else str(cell) for cell in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_card(path, facts: Mapping[str, object]) -> None:
    """Write the card."""
    path.write_text(TEXT.format(**facts), encoding="utf-8")
