"""The encoder that a preset asks for, made once per process: loading weights takes a second."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec

from livestem.domain.errors import LivestemError, UnavailableError
from livestem.domain.parameters import Preset
from livestem.runtime import weights
from livestem.runtime.features import Encoder
from livestem.runtime.settings import Precision, Settings

NO_WEIGHTS = (
    "no VGG16 weights are here; run `livestem weights fetch`, or `livestem weights import FILE` without a network"
)


class Arithmetic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What embeds a scan's HAADF: chosen when it begins, and kept when it is resumed.

    Attributes
    ----------
    encoder : ``lattice``, or the digest of the network's weights
    device, precision : as in `livestem.runtime.settings.Settings`
    """

    encoder: str
    device: str = "cpu"
    precision: str = "fp64"


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
        self._vgg16: dict[tuple[str, str], Encoder] = {}  # by device and precision

    @classmethod
    def configured(cls, settings: Settings) -> Encoders:
        """Return what a configuration asks for."""
        path = None if settings.weights is None else Path(settings.weights)
        return cls(path, *settings.encoder_runs_on())

    def of(self, recipe: Preset, begun_with: Arithmetic | None = None) -> Encoder | None:
        """Return the encoder, or None for the lattice descriptor, which needs no weights.

        Parameters
        ----------
        recipe : Preset
        begun_with : Arithmetic, optional
            Of a scan that has begun; by default what is configured.

        Raises
        ------
        LivestemError
            If the weights are not here or torch is missing; the message says what to do.
        UnavailableError
            If the scan was begun with others.
        """
        if recipe.encoder == "lattice":
            return None
        if begun_with is None:
            return self._on(self._device, self._precision)
        told = f"its chips are embedded on {begun_with.device} in {begun_with.precision} by {begun_with.encoder[:16]}"
        try:
            encoder = self._on(begun_with.device, begun_with.precision)
        except LivestemError as e:
            raise UnavailableError(f"{told}, which cannot be had now: {e}") from e
        if encoder.digest != begun_with.encoder:
            raise UnavailableError(f"{told}, and the weights here are {encoder.digest[:16]}; bring those back")
        return encoder

    def arithmetic(self, recipe: Preset) -> Arithmetic:
        """Return what a scan that begins now is embedded with; LivestemError as `of`."""
        encoder = self.of(recipe)
        if encoder is None:
            return Arithmetic(encoder="lattice")
        return Arithmetic(encoder=encoder.digest, device=encoder.device, precision=encoder.precision)

    def _on(self, device: str, precision: str) -> Encoder:
        with self._lock:
            if (device, precision) not in self._vgg16:
                from livestem.stages.vgg16 import Vgg16

                path = weights.find(self._weights_file)
                if path is None:
                    raise LivestemError(NO_WEIGHTS)
                found = Vgg16(weights.load(path), device, precision)  # type: ignore[arg-type]  # refused if it is none
                self._vgg16[device, precision] = found
            return self._vgg16[device, precision]
