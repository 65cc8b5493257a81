"""Published VPoser weights: files of their layout, made here, decode as their networks would, and code stays unrun."""

from __future__ import annotations

import pickle
from collections import OrderedDict

import pytest
import roma
import torch
from torch import nn
from torch.nn import functional

from fitkit.errors import InputError
from fitkit.prior_files import load_prior
from fitkit.priors.base import PosePrior
from fitkit.priors.vae import VariationalPosePrior

NEURONS, LATENTS = 24, 32


def linear(name: str, outputs: int, inputs: int) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": torch.randn(outputs, inputs) / inputs**0.5, f"{name}.bias": 0.3 * torch.randn(outputs)}


def normalisation(name: str, size: int) -> dict[str, torch.Tensor]:
    values = {"weight": 1 + 0.2 * torch.randn(size), "bias": 0.2 * torch.randn(size)}
    values |= {"running_mean": 0.3 * torch.randn(size), "running_var": 0.5 + torch.rand(size)}
    named = {f"{name}.{key}": value for key, value in values.items()}
    return named | {f"{name}.num_batches_tracked": torch.tensor(7)}


def first_version() -> OrderedDict[str, torch.Tensor]:
    """The layers of version 1, in the order in which its class declares them."""
    parts = normalisation("bodyprior_enc_bn1", 63) | linear("bodyprior_enc_fc1", NEURONS, 63)
    parts |= normalisation("bodyprior_enc_bn2", NEURONS) | linear("bodyprior_enc_fc2", NEURONS, NEURONS)
    parts |= linear("bodyprior_enc_mu", LATENTS, NEURONS) | linear("bodyprior_enc_logvar", LATENTS, NEURONS)
    parts |= linear("bodyprior_dec_fc1", NEURONS, LATENTS) | linear("bodyprior_dec_fc2", NEURONS, NEURONS)
    return OrderedDict(parts | linear("bodyprior_dec_out", 126, NEURONS))


def second_version() -> OrderedDict[str, torch.Tensor]:
    """The layers of version 2, by their places in its two sequences."""
    parts = normalisation("encoder_net.1", 63) | linear("encoder_net.2", NEURONS, 63)
    parts |= normalisation("encoder_net.4", NEURONS) | linear("encoder_net.6", NEURONS, NEURONS)
    parts |= linear("encoder_net.7", NEURONS, NEURONS)
    parts |= linear("encoder_net.8.mu", LATENTS, NEURONS) | linear("encoder_net.8.logvar", LATENTS, NEURONS)
    parts |= linear("decoder_net.0", NEURONS, LATENTS) | linear("decoder_net.3", NEURONS, NEURONS)
    return OrderedDict(parts | linear("decoder_net.5", 126, NEURONS))


def apply(state: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    """Apply a linear or a normalising layer of a state dictionary, in double precision."""
    own = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
    if "running_mean" in own:
        layer = nn.BatchNorm1d(len(own["bias"])).double().eval()
        layer.load_state_dict(own)
        return layer(x)
    return functional.linear(x, own["weight"].double(), own["bias"].double())


def rotations(numbers: torch.Tensor) -> torch.Tensor:
    columns = numbers.reshape(-1, 3, 2)
    first = functional.normalize(columns[:, :, 0], dim=1)
    along = (first * columns[:, :, 1]).sum(1, keepdim=True)
    second = functional.normalize(columns[:, :, 1] - along * first, dim=1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1).unflatten(0, (-1, 21))


def run(state: dict[str, torch.Tensor], names: list[str], slope: float, x: torch.Tensor) -> torch.Tensor:
    for name in names:
        x = functional.leaky_relu(x, slope) if name == "bend" else apply(state, name, x)
    return x


VERSIONS = {
    "first": (
        first_version,
        0.2,
        ["bodyprior_enc_bn1", "bodyprior_enc_fc1", "bend", "bodyprior_enc_bn2", "bodyprior_enc_fc2", "bend"]
        + ["bodyprior_enc_mu"],
        ["bodyprior_dec_fc1", "bend", "bodyprior_dec_fc2", "bend", "bodyprior_dec_out"],
    ),
    "second": (
        second_version,
        0.01,
        ["encoder_net.1", "encoder_net.2", "bend", "encoder_net.4", "encoder_net.6", "encoder_net.7"]
        + ["encoder_net.8.mu"],
        ["decoder_net.0", "bend", "decoder_net.3", "bend", "decoder_net.5"],
    ),
}


def saved(tmp_path, version: str):
    """Write a snapshot as it is published, and return it with its state."""
    state = VERSIONS[version][0]()
    if version == "first":
        path = tmp_path / "TR00_E096.pt"
        torch.save(state, path)
    else:
        path = tmp_path / "V02_05_epoch=13_val_loss=0.03.ckpt"
        whole = {f"vp_model.{key}": value for key, value in state.items()}
        whole |= {"bm_train.v_template": torch.zeros(1, 9, 3)}
        torch.save({"epoch": 13, "global_step": 5, "state_dict": OrderedDict(whole)}, path)
    return path, state


@pytest.mark.parametrize("version", VERSIONS)
def test_snapshots_encode_and_decode_as_their_own_networks(tmp_path, version):
    path, state = saved(tmp_path, version)
    _, slope, encoder, decoder = VERSIONS[version]
    prior = load_prior(str(path))
    assert isinstance(prior, VariationalPosePrior) and isinstance(prior, PosePrior)
    pose, latent = 0.4 * torch.randn(6, 63, dtype=torch.float64), torch.randn(6, LATENTS, dtype=torch.float64)
    torch.testing.assert_close(prior.encode(pose), run(state, encoder, slope, pose), rtol=0, atol=2e-6)
    expected = rotations(run(state, decoder, slope, latent))
    found = roma.rotvec_to_rotmat(prior.decode(latent).unflatten(1, (21, 3)))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("version", VERSIONS)
def test_their_derivatives_are_exact(tmp_path, version):
    prior = load_prior(str(saved(tmp_path, version)[0]))
    assert isinstance(prior, VariationalPosePrior)
    latent = torch.randn(3, LATENTS, dtype=torch.float64)
    whole = torch.autograd.functional.jacobian(prior.decode, latent, vectorize=True)
    jacobian = torch.stack([whole[row, :, row] for row in range(3)])
    # Random layers make columns that are nearly parallel, of which either derivative is worth fewer digits.
    torch.testing.assert_close(prior.decode_linearised(latent)[1], jacobian, rtol=1e-6, atol=1e-8)
    pose = 0.4 * torch.randn(3, 63, dtype=torch.float64)
    residual, slopes = prior.linearise(pose)
    whole = torch.autograd.functional.jacobian(prior.residual, pose, vectorize=True)
    torch.testing.assert_close(residual, prior.residual(pose))
    torch.testing.assert_close(slopes, torch.stack([whole[row, :, row] for row in range(3)]), rtol=1e-5, atol=1e-7)


def test_the_folder_in_which_it_is_published_will_do(tmp_path):
    folder = tmp_path / "V02_05" / "snapshots"
    folder.mkdir(parents=True)
    saved(folder, "second")
    assert isinstance(load_prior(tmp_path / "V02_05"), VariationalPosePrior)


def test_a_checkpoint_that_names_lightning_is_read_without_it(tmp_path, monkeypatch):
    """Lightning's older checkpoints are keyed by its own classes."""
    import sys
    import types

    module = types.ModuleType("pytorch_lightning.callbacks")
    checkpoint = type("ModelCheckpoint", (), {"__module__": module.__name__})
    module.ModelCheckpoint = checkpoint  # type: ignore[attr-defined]
    package = types.ModuleType("pytorch_lightning")
    package.callbacks = module  # type: ignore[attr-defined]
    state = {f"vp_model.{key}": value for key, value in second_version().items()}
    path = tmp_path / "epoch=13.ckpt"
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "pytorch_lightning", package)
        patched.setitem(sys.modules, module.__name__, module)
        torch.save({"callbacks": {checkpoint: {"best": 0.03}}, "state_dict": state}, path)
    assert isinstance(load_prior(path), VariationalPosePrior)
    assert "pytorch_lightning" not in sys.modules


class Trap:
    """Unpickling this runs code."""

    def __reduce__(self):
        return (print, ("sprung",))


def test_a_file_that_would_run_code_is_refused_in_a_sentence(tmp_path, capsys):
    path = tmp_path / "trap.pt"
    torch.save({"state": first_version(), "trap": Trap()}, path)
    with pytest.raises(InputError, match="code that it names would have to run"):
        load_prior(path)
    assert "sprung" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not much of a file", "no file of weights|was not loaded"),
        (pickle.dumps({"a": 1}), "no file of weights|was not loaded|no snapshot"),
    ],
)
def test_other_files_are_no_snapshots(tmp_path, content, message):
    path = tmp_path / "some.pt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_prior(path)


def test_other_weights_and_other_sizes_are_told_apart(tmp_path):
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pt")
    with pytest.raises(InputError, match="no snapshot of VPoser"):
        load_prior(tmp_path / "other.pt")
    state = first_version() | linear("bodyprior_dec_out", 6 * 23, NEURONS)
    torch.save(state, tmp_path / "wider.pt")
    with pytest.raises(InputError, match="21 joints"):
        load_prior(tmp_path / "wider.pt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no snapshot"):
        load_prior(tmp_path / "empty")
    with pytest.raises(InputError, match="cannot be read"):
        load_prior(tmp_path / "missing.safetensors")
