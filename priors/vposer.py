"""The published VPoser's networks, of its first and its second version, from their own weights.

Pavlakos et al. 2019, "Expressive body capture". Both read rotation vectors, normalise them by statistics of training
(batch normalisation, here part of the layer that follows), and decode 32 latent values to six numbers for each joint.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fitkit.priors.network import Activation, Layer, Network, leaky
from fitkit.priors.vae import Autoencoder, VariationalPosePrior

LEFT_OVER = 0.1
"""Radians per axis that their decoders are taken to leave over of a pose; the files do not say."""
_EPSILON = 1e-5
"""Added to variances in batch normalisation."""


def is_vposer(state: Mapping[str, Tensor]) -> bool:
    """Return whether weights have the names of either version."""
    return "bodyprior_dec_fc1.weight" in state or "decoder_net.0.weight" in state


def vposer(state: Mapping[str, Tensor]) -> VariationalPosePrior:
    """Return the prior of a state dictionary whose names begin as in the version's own class.

    Raises:
        KeyError: a layer is missing. ValueError: the layers are not those of a prior over 21 joints.
    """
    first = "bodyprior_dec_fc1.weight" in state
    networks = _first_version(state) if first else _second_version(state)
    return VariationalPosePrior(networks, torch.full((21,), LEFT_OVER))


def _first_version(state: Mapping[str, Tensor]) -> Autoencoder:
    bent = leaky(0.2)
    encoder = (
        _dense(state, "bodyprior_enc_fc1", bent, "bodyprior_enc_bn1"),
        _dense(state, "bodyprior_enc_fc2", bent, "bodyprior_enc_bn2"),
        _dense(state, "bodyprior_enc_mu"),
    )
    decoder = (
        _dense(state, "bodyprior_dec_fc1", bent),
        _dense(state, "bodyprior_dec_fc2", bent),
        _dense(state, "bodyprior_dec_out"),
    )
    return _autoencoder(encoder, decoder)


def _second_version(state: Mapping[str, Tensor]) -> Autoencoder:
    bent = leaky(0.01)
    encoder = (
        _dense(state, "encoder_net.2", bent, "encoder_net.1"),
        _dense(state, "encoder_net.6", None, "encoder_net.4"),
        _dense(state, "encoder_net.7"),
        _dense(state, "encoder_net.8.mu"),
    )
    decoder = (
        _dense(state, "decoder_net.0", bent),
        _dense(state, "decoder_net.3", bent),
        _dense(state, "decoder_net.5"),
    )
    return _autoencoder(encoder, decoder)


def _autoencoder(encoder: tuple[Layer, ...], decoder: tuple[Layer, ...]) -> Autoencoder:
    for layers in (encoder, decoder):
        for before, after in zip(layers[:-1], layers[1:], strict=True):
            if before.weight.shape[0] != after.weight.shape[1]:
                raise ValueError("layers do not follow each other")
    latents = decoder[0].weight.shape[1]
    found = encoder[0].weight.shape[1], encoder[-1].weight.shape[0], decoder[-1].weight.shape[0]
    if found != (63, latents, 126):
        raise ValueError(f"expected 63 values in, {latents} latents and 126 values out; got {found}")
    return Autoencoder(Network(encoder), Network(decoder), False, latents)


def _dense(
    state: Mapping[str, Tensor], name: str, activation: Activation | None = None, normalised_by: str | None = None
) -> Layer:
    """Return a layer, its inputs normalised first where that is asked for."""
    weight, bias = state[f"{name}.weight"].float(), state[f"{name}.bias"].float()
    if normalised_by is not None:
        known = {
            key: state[f"{normalised_by}.{key}"].float() for key in ("weight", "bias", "running_mean", "running_var")
        }
        scale = known["weight"] * (known["running_var"] + _EPSILON).rsqrt()
        bias = bias + weight @ (known["bias"] - known["running_mean"] * scale)
        weight = weight * scale
    return Layer(weight, bias, activation)
