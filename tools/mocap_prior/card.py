"""The model card of the learned pose priors."""

from collections.abc import Mapping, Sequence

TEXT = """# Learned pose priors

`gaussian_mixture.npz` ("mixture" in a recipe) and `joint_limits.npz` ("joint_limits"): plain arrays, no
pickles. This page is written by the training script: {command}.

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

## Mixture

{components} components (half of them mirror images), multivariate t densities with {degrees:g} degrees of
freedom (heavy tails: a pose twice as far from the data is not pulled twice as hard), full scale matrices,
{floor:g} rad added in squares to every direction's deviation so that evidence can still move what the data
holds still (twists of knees, toes, axes of the spine that sources tie together). Expectation maximisation,
{iterations} iterations, {used} frames, seed {seed}. Floor and degrees of freedom were not chosen by likelihood
alone, which asks for a smaller floor and still heavier tails: both would make the prior stiff about the poses
it knows best.

Held-out negative log-likelihood, nats per pose ({subset} training frames; lower is better):

{selection}

As trained on {used} frames: {final:.1f} held out, {train:.1f} in training; single Gaussian {single:.1f};
"relaxed" as a density {relaxed:.1f}.

Energy (sum of squared residuals) of held-out poses, missing joints drawn:

{energies}

## Joint limits

Per axis of each joint's rotation vector: the 0.5 and 99.5 percentiles of all frames and their mirror images,
widened by a tenth of the range and 0.05 rad. {inside:.1f} % of the held-out poses' angles lie within.

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
