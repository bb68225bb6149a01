"""Which files belong to one scan, by their names.

1. JEOL: a .pts and the .img of the same view (the name up to its last underscore, ``View000``). Of several,
   the .img with the highest number below that of the .pts. An .img without its .pts is no scan yet; .map
   files are elemental maps and never part of one.
2. A pair: two names in one folder that differ only in a word for their modality, set off by ``_``, ``-``,
   ``.`` or a space: ``haadf`` or ``adf`` in the one, ``eds``, ``edx``, ``edxs`` or ``si`` in the other
   (``sio2_haadf.hspy``, ``sio2_eds.hspy``). Their extensions may differ.
3. Every other file is a scan of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

# What microscopes and HyperSpy save with HAADF or EDS in it; more can be asked for by name.
PATTERNS = ("*.emd", "*.bcf", "*.pts", "*.img", "*.hspy", "*.zspy", "*.dm3", "*.dm4", "*.spd")

Group = tuple[Path, ...]

_WORD = re.compile(r"(?:^|(?<=[ _.-]))(haadf|adf|eds|edx|edxs|si)(?=$|[ _.-])", re.IGNORECASE)
_HAADF = frozenset(["haadf", "adf"])


def groups_of(files: Iterable[Path]) -> list[Group]:
    """Sort files into scans.

    Parameters
    ----------
    files : paths that exist

    Returns
    -------
    list of tuple of Path
        Sorted by the first path: (.pts, .img) or (.pts,); (HAADF, EDS); (file,).
    """
    left = sorted(set(files))
    maps = [p for p in left if p.suffix.lower() == ".pts"]
    images = [p for p in left if p.suffix.lower() == ".img"]
    found: list[Group] = []
    for path in maps:
        image = image_of_map(path, images)
        found.append((path,) if image is None else (path, image))
    singles = [p for p in left if p.suffix.lower() not in (".pts", ".img", ".map")]
    return sorted([*found, *_pairs(singles)])


def image_of_map(path: Path, images: Sequence[Path]) -> Path | None:
    """Return the .img that belongs to a JEOL .pts, or None."""
    same = [p for p in images if p.parent == path.parent and _view(p) == _view(path)]
    before = [p for p in same if _number(p) < _number(path)]
    if before:
        return max(before, key=_number)
    return same[0] if len(same) == 1 else None


def map_of_image(path: Path, maps: Sequence[Path], images: Sequence[Path]) -> Path | None:
    """Return the first JEOL .pts that an .img belongs to, or None."""
    return next((p for p in sorted(maps) if image_of_map(p, images) == path), None)


def half_of_pair(path: Path) -> str | None:
    """Return ``haadf`` or ``eds`` if a file's name says that it is one half of a pair, else None."""
    words = _WORD.findall(path.stem)
    if len(words) != 1:
        return None
    return "haadf" if words[0].lower() in _HAADF else "eds"


def _pairs(files: Sequence[Path]) -> list[Group]:
    halves: dict[tuple[Path, str], list[Path]] = {}
    for path in files:
        if half_of_pair(path):
            halves.setdefault((path.parent, _WORD.sub("*", path.stem).lower()), []).append(path)
    found: list[Group] = []
    for members in halves.values():
        members.sort(key=lambda p: half_of_pair(p) != "haadf")
        if len(members) == 2 and [half_of_pair(p) for p in members] == ["haadf", "eds"]:
            found.append(tuple(members))
    paired = {p for group in found for p in group}
    return [*found, *((p,) for p in files if p not in paired)]


def _view(path: Path) -> str:
    return path.stem.rpartition("_")[0] or path.stem


def _number(path: Path) -> int:
    tail = path.stem.rpartition("_")[2]
    return int(tail) if tail.isdigit() else -1
