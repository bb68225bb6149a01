"""From paths on a command line to scans that can be sent: recordings, pairs, journals, result folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol

import msgspec

from livestem.client.replay import TileSource
from livestem.domain.errors import SourceError, UsageError
from livestem.domain.parameters import Processing
from livestem.domain.scan import ScanPlan
from livestem.runtime.journal import JOURNAL


class OpenSource(TileSource, Protocol):
    """A scan that can be sent, and closed."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know about it."""

    def close(self) -> None:
        """Free its files."""


class FileOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How files are to be understood."""

    haadf: Path | None = None
    eds: Path | None = None
    image: str | None = None
    dwell_us: float | None = None
    pixel_nm: float | None = None
    energy_axis: str | None = None


def scans(paths: Sequence[Path], options: FileOptions) -> list[tuple[Path, ...]]:
    """Sort paths into scans: an HAADF and an EDS file of one name are a pair, everything else stands alone."""
    if options.haadf is not None or options.eds is not None:
        if paths:
            raise UsageError("give PATH..., or --haadf and --eds, not both")
        return [()]
    if not paths:
        raise UsageError("name a recording: PATH, or --haadf FILE --eds FILE")
    journals = [p for p in paths if _journal(p) is not None]
    others = [p for p in paths if p not in journals]
    if len(others) == 2 and not journals and _one_field(others):
        return [tuple(others)]
    return [(p,) for p in paths]


@contextmanager
def opened(paths: tuple[Path, ...], options: FileOptions) -> Iterator[OpenSource]:
    """Open one scan.

    Raises
    ------
    SourceError, UsageError
        If it cannot be used; one clear line.
    """
    journal = _journal(paths[0]) if len(paths) == 1 else None
    if journal is not None:
        from livestem.runtime.journal import JournalRecording

        with JournalRecording(journal) as stored:
            yield stored
        return
    from livestem.sources import open_recording

    recording = open_recording(
        list(paths),
        haadf=options.haadf,
        eds=options.eds,
        image=options.image,
        dwell_us=options.dwell_us,
        pixel_nm=options.pixel_nm,
        energy_axis=_axis(options.energy_axis),
    )
    with closing(recording):
        yield recording


def with_processing(plan: ScanPlan, asked: Processing) -> ScanPlan:
    """Return a plan that asks for what the user asks for, over what it already asked."""
    merged = asked if plan.processing is None else asked.over(plan.processing)
    return msgspec.structs.replace(plan, processing=None if merged == Processing() else merged)


def _journal(path: Path) -> Path | None:
    """Return the journal that a path names: the file itself, or the one in a result folder."""
    if path.is_dir() and (path / JOURNAL).is_file():
        return path / JOURNAL
    return path if path.suffix == ".sqlite" and path.is_file() else None


def _one_field(paths: Sequence[Path]) -> bool:
    """Tell whether two files are the two halves of one scan: by their names, or because one lacks HAADF."""
    from livestem.sources import open_recording

    kinds = []
    for path in paths:
        try:
            with closing(open_recording([path])) as recording:
                kinds.append(recording.plan.modalities)
        except SourceError:
            return True  # let opening them together say what is wrong
    return sorted(kinds) == [("eds",), ("haadf",)]


def _axis(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        offset, scale = (float(part) for part in text.split(":"))
    except ValueError as e:
        raise UsageError(f"--energy-axis takes OFFSET:SCALE in keV, such as -0.25:0.01, got {text!r}") from e
    return offset, scale
