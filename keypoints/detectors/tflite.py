"""One TensorFlow Lite network under LiteRT."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


class Network:
    """A network with one input picture, built once and run many times (not by two threads at once)."""

    def __init__(self, content: bytes, num_threads: int = 1, low: float = 0.0) -> None:
        """Build a network.

        Args:
            content: the `.tflite` file.
            num_threads: threads of its CPU kernels.
            low: what black is mapped to; white is 1.
        """
        with _silent_stderr():
            from ai_edge_litert.interpreter import Interpreter

            self._interpreter = Interpreter(model_content=content, num_threads=num_threads)
            self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [detail["index"] for detail in self._interpreter.get_output_details()]
        self.side = int(self._interpreter.get_input_details()[0]["shape"][1])
        """Width and height of the input in pixels."""
        self._low = low

    def __call__(self, crop: np.ndarray) -> list[np.ndarray]:
        """Return the network's outputs, in the file's order, without the batch axis.

        Args:
            crop: (side, side, 3) uint8 RGB.
        """
        scale = (1.0 - self._low) / 255.0
        self._interpreter.set_tensor(self._input, (crop * np.float32(scale) + np.float32(self._low))[None])
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index)[0] for index in self._outputs]


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keep LiteRT's start-up notices, which its C++ code writes, off the terminal."""
    try:
        sys.stderr.flush()
        kept = os.dup(2)
    except (OSError, AttributeError, ValueError):
        yield
        return
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)
