"""The encoder that a preset asks for, made once per process: loading weights takes a second."""

from __future__ import annotations

import threading
from pathlib import Path

from livestem.domain.errors import LivestemError
from livestem.domain.parameters import Preset
from livestem.runtime import weights
from livestem.runtime.features import Encoder

NO_WEIGHTS = (
    "no VGG16 weights are here; run `livestem weights fetch`, or `livestem weights import FILE` without a network"
)


class Encoders:
    """Gives out encoders; safe from any thread.

    Parameters
    ----------
    configured : Path, optional
        Weights file of the configuration.
    """

    def __init__(self, configured: Path | None = None) -> None:
        self._configured = configured
        self._lock = threading.Lock()
        self._vgg16: Encoder | None = None

    def of(self, recipe: Preset) -> Encoder | None:
        """Return the encoder, or None for the lattice descriptor, which needs no weights.

        Raises
        ------
        LivestemError
            If the weights are not here or torch is missing; the message says what to do.
        """
        if recipe.encoder == "lattice":
            return None
        with self._lock:
            if self._vgg16 is None:
                from livestem.stages.vgg16 import Vgg16

                path = weights.find(self._configured)
                if path is None:
                    raise LivestemError(NO_WEIGHTS)
                self._vgg16 = Vgg16(weights.load(path))
            return self._vgg16
