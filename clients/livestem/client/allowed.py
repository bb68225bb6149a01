"""The allow-lists of a publisher, read again when their files have changed."""

from __future__ import annotations

import logging
import threading

from livestem.client.keys import ALLOWED, Holder, Keys, allowed_files, read_allowed
from livestem.domain.notices import notice
from livestem.protocol.permission import ADMITTED, Role, Stream, forbidden
from livestem.wire import messages as m

log = logging.getLogger(__name__)


class Allowed:
    """Whose keys are let in, and as what. Thread-safe.

    Parameters
    ----------
    keys : Keys
        Our own pair, and the folder with the allow-lists.
    stream : {"acq", "res"}
        Whose sockets they guard.
    """

    def __init__(self, keys: Keys, stream: Stream) -> None:
        self.keys, self._stream = keys, stream
        self._lock = threading.Lock()  # over reading the lists, which the guard's thread and the hub both do
        self._seen: object = None
        self._left = False
        self._holders: dict[str, Holder] = {}
        self._look()

    def admits(self, key: str) -> bool:
        """Return whether the holder of a public key (Z85) is let in."""
        if key not in self._admitted():
            self._look()  # it may have been added a moment ago
        return key in self._admitted()

    def forbids(self, key: str, request: m.Talk) -> str | None:
        """Return why the holder of a key is not to be answered this request, or None."""
        holder = self._holders.get(key)
        return forbidden(self._stream, request, frozenset() if holder is None else holder.roles)

    def somebody_left(self) -> bool:
        """Read the lists again if they have changed; return whether a key was removed since this was asked."""
        self._look()
        with self._lock:
            left, self._left = self._left, False
        return left

    def _look(self) -> None:
        with self._lock:
            now = self._files()
            if now == self._seen:
                return
            self._seen, before = now, self._admitted()
            self._holders, wrong = read_allowed(self.keys.folder)
            self._left |= not before <= self._admitted()
        for words in wrong:
            log.warning("key not let in: %s", words, extra=notice("key_ignored", reason=words))
        if not self._admitted():
            wanted, folder = " or ".join(sorted(ADMITTED[self._stream])), str(self.keys.folder / ALLOWED)
            told = notice("nobody_let_in", folder=folder)
            log.warning("nobody is let in yet: no %s key in %s", wanted, folder, extra=told)

    def _files(self) -> list[tuple[Role, str, int, int]]:
        found = []
        for role, path in allowed_files(self.keys.folder):
            try:
                about = path.stat()
            except OSError:  # it has just gone, or cannot be read: then it is not let in
                continue
            found.append((role, path.name, about.st_mtime_ns, about.st_size))
        return found

    def _admitted(self) -> frozenset[str]:
        wanted = ADMITTED[self._stream]
        return frozenset(key for key, holder in self._holders.items() if holder.roles & wanted)
