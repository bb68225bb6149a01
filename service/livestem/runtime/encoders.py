"""The encoder that a preset asks for, made once per process: loading weights takes a second."""

from __future__ import annotations

import threading
from pathlib import Path

from livestem.domain.errors import LivestemError
from livestem.domain.parameters import Preset
from livestem.runtime import weights
from livestem.runtime.features import Encoder
from livestem.runtime.settings import Precision, Settings

NO_WEIGHTS = (
    "no VGG16 weights are here; run `livestem weights fetch`, or `livestem weights import FILE` without a network"
)


class Encoders:
    """Gives out encoders; safe from any thread.

    Parameters
    ----------
    weights_file : Path, optional
        That of the configuration.
    device, precision : str
        Where a network runs and how, see `livestem.stages.vgg16`; the lattice descriptor is float64 on the processor.
    """

    def __init__(self, weights_file: Path | None = None, device: str = "cpu", precision: Precision = "fp32") -> None:
        self._weights_file, self._device, self._precision = weights_file, device, precision
        self._lock = threading.Lock()
        self._vgg16: Encoder | None = None

    @classmethod
    def configured(cls, settings: Settings) -> Encoders:
        """Return what a configuration asks for."""
        path = None if settings.weights is None else Path(settings.weights)
        return cls(path, *settings.encoder_runs_on())

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

                path = weights.find(self._weights_file)
                if path is None:
                    raise LivestemError(NO_WEIGHTS)
                self._vgg16 = Vgg16(weights.load(path), self._device, self._precision)
            return self._vgg16

    def name(self, recipe: Preset) -> str:
        """Return what embeds: ``lattice``, or the digest of the weights; LivestemError as `of`."""
        encoder = self.of(recipe)
        return encoder.digest if encoder else "lattice"
