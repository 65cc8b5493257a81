"""Named leaves: packing, unpacking, choosing rows, and refusing what does not fit together."""

from __future__ import annotations

import pytest
import torch

from fitkit.errors import UsageError
from fitkit.parameters import Leaf, Parameters, zeros


def _parameters(problems: int = 3, bodies: int = 2, seed: int = 0) -> Parameters:
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    return Parameters(
        {"body_pose": draw(problems, bodies, 6), "betas": draw(problems, 1, 4), "transl": draw(problems, bodies, 3)}
    )


def test_it_is_a_mapping_of_its_leaves():
    parameters = _parameters()
    assert list(parameters) == ["body_pose", "betas", "transl"] and len(parameters) == 3
    assert "betas" in parameters and "expression" not in parameters and parameters.get("expression") is None
    assert (parameters.problems, parameters.bodies) == (3, 2)
    assert "body_pose (3, 2, 6)" in repr(parameters)


def test_no_leaf_can_be_assigned():
    parameters = _parameters()
    with pytest.raises(TypeError):
        parameters["betas"] = torch.zeros(3, 1, 4)
    leaves = dict(parameters)
    copy = Parameters(leaves)
    leaves["betas"] = torch.zeros(3, 1, 4)
    assert torch.equal(copy["betas"], parameters["betas"]), "the caller's dictionary is still the caller's"


@pytest.mark.parametrize("names", [["transl"], ["betas", "transl"], ["transl", "body_pose", "betas"]])
def test_packing_and_unpacking_is_a_round_trip(names):
    parameters = _parameters()
    packed = parameters.pack(names)
    assert packed.shape == (3, sum(parameters[name][0].numel() for name in names))
    back = parameters.unpack(names, packed)
    for name in parameters:
        assert torch.equal(back[name], parameters[name])
    moved = parameters.unpack(names, packed + 1)
    for name in parameters:
        assert torch.equal(moved[name], parameters[name] + (name in names))


def test_rows_are_packed_in_the_order_of_the_names():
    parameters = _parameters()
    packed = parameters.pack(["transl", "betas"])
    assert torch.equal(packed[:, :6], parameters["transl"].flatten(1))
    assert torch.equal(packed[:, 6:], parameters["betas"].flatten(1))


def test_unpacking_keeps_gradients():
    parameters = _parameters()
    values = parameters.pack(["betas"]).requires_grad_(True)
    parameters.unpack(["betas"], values)["betas"].square().sum().backward()
    torch.testing.assert_close(values.grad, 2 * values.detach())


def test_select_takes_rows_in_order_and_again():
    parameters = _parameters()
    rows = parameters.select(torch.tensor([2, 0, 2]))
    for name in parameters:
        assert torch.equal(rows[name], parameters[name][[2, 0, 2]])
    assert parameters.select(torch.tensor([], dtype=torch.long)).problems == 0


def test_where_takes_each_row_from_one_or_the_other():
    mine, theirs = _parameters(seed=1), _parameters(seed=2)
    mixed = mine.where(torch.tensor([True, False, True]), theirs)
    for name in mine:
        assert torch.equal(mixed[name], torch.stack([mine[name][0], theirs[name][1], mine[name][2]]))


def test_replace_adds_and_overrides_and_leaves_the_original_alone():
    parameters = _parameters()
    changed = parameters.replace({"betas": torch.zeros(3, 1, 4), "focal_length": torch.ones(3, 1, 1)})
    assert not changed["betas"].any() and "focal_length" in changed
    assert parameters["betas"].any() and "focal_length" not in parameters


def test_map_changes_every_leaf():
    doubled = _parameters().map(lambda leaf: leaf.double())
    assert {leaf.dtype for leaf in doubled.values()} == {torch.float64}


def test_zeros_follow_the_layout():
    layout = (Leaf("transl", 3), Leaf("betas", 5, shared=True))
    empty = zeros(layout, 4, 2, torch.zeros(1, dtype=torch.float64))
    assert {name: tuple(leaf.shape) for name, leaf in empty.items()} == {"transl": (4, 2, 3), "betas": (4, 2, 5)}
    assert empty["betas"].dtype == torch.float64 and not empty["transl"].any()


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"a": (3,)}, r"\(B, N, size\)"),
        ({"a": (3, 1, 2), "b": (4, 1, 2)}, "one B"),
        ({"a": (3, 2, 2), "b": (3, 4, 2)}, "one N"),
    ],
)
def test_leaves_that_do_not_fit_together_are_refused(shapes, message):
    with pytest.raises(UsageError, match=message):
        Parameters({name: torch.zeros(shape) for name, shape in shapes.items()})
