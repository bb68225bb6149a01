"""From files to one `Recording`: read them, choose HAADF and EDS, check them, state the facts.

What is refused is refused here, before anything is published: a missing or damaged file, no scan in it, no
pixel size, no energy calibration, values that are not finite, counts that are not counts, two different
fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from livestem.domain.errors import SourceError, UsageError
from livestem.sources.generic import read_generic
from livestem.sources.groups import PATTERNS, Group, groups_of, image_of_map, map_of_image
from livestem.sources.jeol import read_jeol
from livestem.sources.planning import Wishes, choose, plan_scan, scan_id_of
from livestem.sources.recording import Recording
from livestem.sources.signals import Signals
from livestem.sources.velox import is_velox, read_velox


def open_recording(
    paths: Sequence[Path],
    *,
    haadf: Path | None = None,
    eds: Path | None = None,
    image: str | None = None,
    dwell_us: float | None = None,
    pixel_nm: float | None = None,
    energy_axis: tuple[float, float] | None = None,
) -> Recording:
    """Open a recorded scan.

    Parameters
    ----------
    paths : sequence of Path
        One file, an HAADF + EDS pair, or a folder with one scan in it. The .img beside a JEOL .pts, and the
        .pts beside an .img, are found. May be empty if `haadf` or `eds` is given.
    haadf, eds : Path, optional
        File to take that modality from, whatever else the files hold.
    image : str, optional
        Which image is the HAADF: its title, a part of it, or its number in the file.
    dwell_us : float, optional
        Dwell time per pixel and frame, µs; wins over the file's.
    pixel_nm : float, optional
        Pixel of the finer modality, nm; wins over the file's.
    energy_axis : (offset, scale), optional
        Energy of channel 0 and width of a channel, keV; wins over the file's.

    Returns
    -------
    Recording

    Raises
    ------
    SourceError
        If the files cannot be used as a scan; the message says what to do.
    UsageError
        If an argument has no meaning, or a library is missing.
    """
    wishes = Wishes(image=image, dwell_us=dwell_us, pixel_nm=pixel_nm, energy_axis=energy_axis)
    files = list(dict.fromkeys([*_files(paths), *(_existing(p) for p in (haadf, eds) if p is not None)]))
    if not files:
        raise UsageError("name a recorded file, or --haadf FILE and --eds FILE")
    signals: dict[Path, Signals] = {}
    try:
        for file in files:
            if not _superseded(file, signals, haadf):
                signals[file] = _read(file)
        chosen = choose(signals, _resolved(haadf), _resolved(eds), image)
        plan, warnings = plan_scan(signals, chosen, wishes)
        name = scan_id_of(chosen, wishes)
    except BaseException:
        _close_all(signals)
        raise
    notes = (*chosen.warnings, *warnings)
    return Recording(plan, name, chosen.haadf, chosen.eds, notes, lambda: _close_all(signals))


def _files(paths: Sequence[Path]) -> list[Path]:
    """Resolve folders and JEOL companions."""
    found: list[Path] = []
    for path in map(_existing, paths):
        if path.is_dir() and path.suffix.lower() != ".zspy":
            found.extend(_only_group(path))
            continue
        suffix = path.suffix.lower()
        if suffix not in (".pts", ".img"):
            found.append(path)
            continue
        siblings = sorted(path.parent.iterdir())
        maps = [p for p in siblings if p.suffix.lower() == ".pts"]
        images = [p for p in siblings if p.suffix.lower() == ".img"]
        other = image_of_map(path, images) if suffix == ".pts" else map_of_image(path, maps, images)
        pair = [path] if other is None else [path, other]
        found.extend(sorted(pair, key=lambda p: p.suffix.lower() != ".pts"))
    unique = list(dict.fromkeys(found))
    scans = [p for p in unique if p.suffix.lower() != ".map"]  # elemental maps, named by a wildcard
    return scans or unique


def _only_group(folder: Path) -> Group:
    groups = groups_of(p for pattern in PATTERNS for p in folder.rglob(pattern))
    if len(groups) == 1:
        return groups[0]
    if not groups:
        raise SourceError(f"{folder.name} holds no recording ({', '.join(PATTERNS)}); name the file")
    names = ", ".join(group[0].name for group in groups[:4]) + (", ..." if len(groups) > 4 else "")
    raise SourceError(f"{folder.name} holds {len(groups)} recordings ({names}); name one of them")


def _existing(path: Path) -> Path:
    resolved = Path(path).resolve()
    if not resolved.exists():
        raise SourceError(f"{path} does not exist; check the name")
    return resolved


def _resolved(path: Path | None) -> Path | None:
    return None if path is None else path.resolve()


def _superseded(file: Path, read: dict[Path, Signals], haadf: Path | None) -> bool:
    """Whether a JEOL .img is not needed because its .pts, read before it, holds a picture per frame."""
    if file.suffix.lower() != ".img" or file == _resolved(haadf):
        return False
    return any(p.suffix.lower() == ".pts" and s.pictures for p, s in read.items())


def _read(path: Path) -> Signals:
    suffix = path.suffix.lower()
    if suffix in (".pts", ".img", ".map"):
        return read_jeol(path)
    if suffix == ".emd" and is_velox(path):
        return read_velox(path)
    return read_generic(path)


def _close_all(signals: dict[Path, Signals]) -> None:
    for one in signals.values():
        one.close()
