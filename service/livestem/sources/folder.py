"""A folder that the vendor's software saves into: which scans in it are complete, each once.

Pure polling, because file events do not cross network shares: at every `poll` names, sizes and times are
compared with those of the poll before. A file is complete when nothing of it has changed for `settle_s` by
the injected clock and no other program holds it locked; a scan (see `groups`) is when all its files are. One
half of a pair waits `PAIR_WAIT_S` for the other and then goes alone; a JEOL .img never goes without its .pts.

A scan is handed over once. If it could not be opened after all, say so with `failed`: it comes again as soon
as one of its files has changed. Files that were there at the start are not new and are left alone unless
`existing`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from livestem.domain.errors import SourceError
from livestem.sources.groups import PATTERNS, Group, groups_of, half_of_pair

PAIR_WAIT_S = 30.0  # exporting the second file of a pair by hand takes some seconds, rarely half a minute

Stamp = tuple[int, int]  # bytes, modification time in ns


@dataclass
class _Seen:
    stamp: Stamp
    since: float  # clock at which this stamp was first seen
    complete_since: float | None = None


_OURS = frozenset(["catalog.sqlite", "journal.sqlite", "result.json"])


class Watched:
    """The scans that appear in a folder.

    Parameters
    ----------
    folder : Path
        Looked at with everything below it.
    patterns : sequence of str
        File names of recordings; compared without regard to case.
    clock : callable
        Seconds, monotonic.
    settle_s : float
        How long a file must not have changed.
    existing : bool
        Whether files that are there already count as new.
    locked : callable
        Tells whether another program has a file open for writing.

    Raises
    ------
    SourceError
        If the folder cannot be read at the start; later it may vanish and come back, as network shares do.
    """

    def __init__(
        self,
        folder: Path,
        patterns: Sequence[str] = PATTERNS,
        *,
        clock: Callable[[], float],
        settle_s: float = 2.0,
        existing: bool = False,
        locked: Callable[[Path], bool] | None = None,
    ) -> None:
        self._folder = folder
        self._patterns = tuple(p.lower() for p in patterns)
        self._clock = clock
        self._settle_s = settle_s
        self._locked = locked or is_locked
        self._seen: dict[Path, _Seen] = {}
        stamps = self._stamps()
        if stamps is None:
            raise SourceError(f"{folder} is no folder that can be read; check its name")
        self._done: set[Path] = set() if existing else set(stamps)
        self._failed: dict[Path, Stamp | None] = {}

    def poll(self) -> list[Group]:
        """Return the scans that have become complete since the last poll, by name.

        Returns
        -------
        list of tuple of Path
            For `open_recording`: (.pts, .img), (HAADF, EDS) or (file,). Empty while the folder cannot be
            read.
        """
        now = self._clock()
        stamps = self._stamps()
        if stamps is None:  # a share that is away for a moment: what it holds is neither gone nor new
            return []
        self._done &= stamps.keys()  # a name that vanished and comes back is a new file
        self._failed = {p: s for p, s in self._failed.items() if p in stamps}
        self._forget_changed_failures(stamps)
        self._seen = {p: self._updated(p, stamp, now) for p, stamp in stamps.items()}
        ready = [group for group in groups_of(self._waiting()) if self._is_ready(group, now)]
        self._done.update(path for group in ready for path in group)
        return ready

    def failed(self, group: Group) -> None:
        """Take back a scan that could not be opened: it comes again when one of its files changes."""
        for path in group:
            seen = self._seen.get(path)
            self._failed[path] = None if seen is None else seen.stamp

    def _forget_changed_failures(self, stamps: dict[Path, Stamp]) -> None:
        changed = [p for p, stamp in self._failed.items() if stamps[p] != stamp]
        if changed:
            again = {p for p in self._failed if any(_together(p, c) for c in changed)}
            self._done -= again
            self._failed = {p: s for p, s in self._failed.items() if p not in again}

    def _waiting(self) -> list[Path]:
        return [p for p in self._seen if p not in self._done]

    def _updated(self, path: Path, stamp: Stamp, now: float) -> _Seen:
        seen = self._seen.get(path)
        if seen is None or seen.stamp != stamp:
            return _Seen(stamp, now)
        if seen.complete_since is None and path not in self._done and now - seen.since >= self._settle_s:
            if stamp[0] > 0 and not self._locked(path):
                seen.complete_since = now
        return seen

    def _is_ready(self, group: Group, now: float) -> bool:
        since = [self._seen[p].complete_since for p in group]
        if any(s is None for s in since):
            return False
        if len(group) == 1 and half_of_pair(group[0]):
            return now - max(s for s in since if s is not None) >= PAIR_WAIT_S
        return True

    def _stamps(self) -> dict[Path, Stamp] | None:
        """Sizes and times of what matches; None if a folder cannot be listed. What vanishes meanwhile is not there."""
        found: dict[Path, Stamp] = {}
        errors: list[OSError] = []
        for root, folders, files in os.walk(self._folder, onerror=errors.append):
            here = Path(root)
            if _OURS.intersection(files):  # a store or a result of ours, which is no recording
                folders.clear()
                continue
            stores = [name for name in folders if self._matches(name)]
            folders[:] = [name for name in folders if name not in stores]
            for name in [*stores, *(n for n in files if self._matches(n))]:
                try:
                    found[here / name] = _stamp(here / name)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    errors.append(error)
        return None if errors else found

    def _matches(self, name: str) -> bool:
        return any(Path(name.lower()).match(pattern) for pattern in self._patterns)


def is_locked(path: Path) -> bool:
    """Tell whether another program holds a file for writing.

    On Windows a file that is being written refuses to be opened for writing, or its first byte to be locked;
    elsewhere HDF5 and others hold an advisory lock, which a shared one would clash with. File systems without
    locks (some network shares) never report any: there only `settle_s` protects.
    """
    if path.is_dir():
        return False
    try:
        mode = "r+b" if os.name == "nt" and os.access(path, os.W_OK) else "rb"
        with path.open(mode) as file:
            return _lock_refused(file.fileno())
    except PermissionError:
        return True
    except OSError:
        return False


def _lock_refused(descriptor: int) -> bool:
    if os.name == "nt":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError:
            return True
        return False
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    except BlockingIOError:
        return True
    return False


def _stamp(path: Path) -> Stamp:
    if not path.is_dir():
        status = path.stat()
        return status.st_size, status.st_mtime_ns
    inner = [p.stat() for p in path.rglob("*") if p.is_file()]
    return sum(s.st_size for s in inner), max((s.st_mtime_ns for s in inner), default=0)


def _together(a: Path, b: Path) -> bool:
    """Whether two files may belong to one scan: grouping both gives one group."""
    return a == b or len(groups_of([a, b])) == 1
