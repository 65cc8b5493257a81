"""One evaluation of bodies and camera, shared by all terms of an energy."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.body import Body, BodyModel
from fitkit.camera import Camera
from fitkit.parameters import Parameters
from fitkit.priors.base import LatentPosePrior

DECODED = 63
"""Values of "body_pose" that a latent vector stands for, its first ones (SMPL's has two joints more)."""


def decoded(parameters: Parameters, decoder: LatentPosePrior) -> Parameters:
    """Return parameters whose body pose is the decoded latent vector, where they hold one."""
    if "pose_latent" not in parameters:
        return parameters
    latent = parameters["pose_latent"]
    pose = decoder.decode(latent.flatten(0, 1)).unflatten(0, latent.shape[:2])
    rest = parameters["body_pose"][..., DECODED:]
    return parameters.replace({"body_pose": torch.cat([pose, rest.expand(*pose.shape[:2], -1)], dim=-1)})


class Scene:
    """The bodies of B problems before their cameras; whatever several terms need is computed once."""

    def __init__(
        self, model: BodyModel, parameters: Parameters, camera: Camera, decoder: LatentPosePrior | None = None
    ) -> None:
        """Hold a model, its parameters, and the camera (its focal length overridden by a leaf of that name).

        Where there is a decoder and a leaf "pose_latent", the body's pose is what that is decoded to.
        """
        self.model = model
        self.decoder = decoder
        self.parameters = parameters if decoder is None else decoded(parameters, decoder)
        self._base_camera = camera
        self._shared: dict[Hashable, Any] = {}

    def with_parameters(self, parameters: Parameters) -> Scene:
        """Return the scene of other parameters, taken as they are; nothing is shared with this one."""
        return Scene(self.model, parameters, self._base_camera)

    @cached_property
    def body(self) -> Body:
        """The bodies in world axes."""
        return self.model(self.parameters)

    @cached_property
    def camera(self) -> Camera:
        """The cameras, with the focal length of the parameters where they carry one."""
        if "focal_length" in self.parameters:
            return self._base_camera.with_focal_length(self.parameters["focal_length"])
        return self._base_camera

    def landmarks(self, names: tuple[str, ...]) -> Float[Tensor, "B N K 3"]:
        """Return named landmarks in world axes, metres."""
        return self.shared(("landmarks", names), lambda: self.body.landmarks(names))

    def projected(self, names: tuple[str, ...]) -> Float[Tensor, "B N K 2"]:
        """Return the pixels of named landmarks."""
        return self.shared(("projected", names), lambda: self.camera.project(self.landmarks(names)))

    def shared(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return what `make` gives, made once per scene for a key."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]
