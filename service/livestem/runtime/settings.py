"""The service's configuration: a TOML file, strict about its keys; every one has a default, so no file is needed."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from livestem.client.endpoints import ACQUISITION, RESULTS, Endpoint
from livestem.client.keys import KEYS_ENVIRONMENT, Keys, load_keys
from livestem.domain.errors import UsageError
from livestem.domain.limits import Limits
from livestem.domain.parameters import Processing
from livestem.domain.support import SupportSet

T = TypeVar("T")
Precision = Literal["fp32", "bf16"]

STORE_ENVIRONMENT = "LIVESTEM_STORE"
DEFAULT_STORE = "livestem-store"
_DEVICE = re.compile(r"cpu|cuda(:\d{1,2})?")  # what the encoder was written and checked for
HTTP_PORT = 9570


class Http(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where ``/health`` and ``/metrics`` answer; port 0 takes a free one. Leaving loopback takes `exposed`."""

    host: str = "127.0.0.1"
    port: int = HTTP_PORT
    exposed: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"http port {self.port} is not between 0 and 65535")
        if not (self.host.startswith("127.") or self.host in ("localhost", "::1") or self.exposed):
            raise ValueError(f"http host {self.host} leaves this machine; say exposed = true if that is meant")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a service runs.

    Attributes
    ----------
    acquisition : adapters to attach to, each with its public key if it has one
    results : where to bind
    keys : folder of keys, or the secret key in it: the results are then guarded; "" for none, whatever the environment
    store : folder of results
    publish_interval_s : live messages go out at most so often
    vanish_s : a source silent for so long in mid-scan is taken for gone
    drain_s : finals under way are given so long when the service is stopped
    allow_processing : whether a sender may choose parameters in `scan_start`
    processing : what the service asks for where the sender does not
    weights : VGG16 weights, where they are not in the cache
    device : where VGG16 runs, as torch names it; see `encoder_runs_on`
    precision : of VGG16's arithmetic
    """

    acquisition: tuple[Endpoint, ...] = (ACQUISITION,)
    results: Endpoint = RESULTS
    http: Http = Http()
    keys: str | None = None
    store: str | None = None
    publish_interval_s: float = 0.03
    vanish_s: float = 60.0
    drain_s: float = 60.0
    allow_processing: bool = True
    processing: Processing = Processing()
    limits: Limits = Limits()
    weights: str | None = None
    device: str | None = None
    precision: Precision | None = None

    def __post_init__(self) -> None:
        if not self.acquisition:
            raise ValueError("acquisition needs at least one endpoint")
        if self.results.server_key is not None:
            raise ValueError("results is bound here, with our own key (keys = ...); server_key is for who connects")
        if self.device is not None and _DEVICE.fullmatch(self.device) is None:
            raise ValueError(f"device is cpu, cuda or cuda:N, got {self.device!r}")
        if not 0.01 <= self.publish_interval_s <= 60 or not self.vanish_s > 0:
            raise ValueError("publish_interval_s must be 0.01 to 60, vanish_s positive")
        if not 0 <= self.drain_s <= 3600:
            raise ValueError("drain_s must be 0 to 3600")

    def encoder_runs_on(self) -> tuple[str, Precision]:
        """Return device and precision of VGG16: configured, else measured quickest (``doctor --tune``), else cpu, fp32.

        Who configures one of the two chooses: the other is then its default.
        """
        if self.device is None and self.precision is None:
            from livestem.runtime import tuning
            from livestem.runtime.weights import cache_dir

            if (choice := tuning.stored(cache_dir())) is not None:
                return choice.device, choice.precision
        return self.device or "cpu", self.precision or "fp32"

    @property
    def store_path(self) -> Path:
        """Folder of the store: configured, else $LIVESTEM_STORE, else ./livestem-store."""
        return Path(self.store or os.environ.get(STORE_ENVIRONMENT) or DEFAULT_STORE)

    def own_keys(self) -> Keys | None:
        """Return our keys: configured, else of $LIVESTEM_KEYS, else None. Configured as "", there are none.

        Raises
        ------
        UsageError
            If they cannot be read.
        """
        path = os.environ.get(KEYS_ENVIRONMENT) if self.keys is None else self.keys
        return load_keys(path) if path else None


def load_settings(path: Path | None) -> Settings:
    """Read a configuration file; None gives the defaults.

    Raises
    ------
    UsageError
        If it cannot be read, or holds an unknown key or an illegal value; the message names it.
    """
    return Settings() if path is None else _load(path, Settings, "configuration")


class _SupportFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A support file: ``[[class]]`` tables."""

    classes: tuple[Any, ...] = msgspec.field(name="class")


def load_support(path: Path) -> SupportSet:
    """Read a support file: ``[[class]] name = "STO"``, ``chips = [[row, col], ...]``.

    Raises
    ------
    UsageError
        If it cannot be read or is no support set; the message names what is wrong.
    """
    table = _load(path, _SupportFile, "support file")
    try:
        return msgspec.convert({"classes": table.classes}, SupportSet)
    except msgspec.ValidationError as e:
        raise UsageError(f"support file {path}: {e}") from e


def _load(path: Path, kind: type[T], what: str) -> T:
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), kind)
    except (OSError, UnicodeDecodeError) as e:
        raise UsageError(f"{what} {path} cannot be read: {e}") from e
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as e:
        raise UsageError(f"{what} {path}: {e}") from e
