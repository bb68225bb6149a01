"""Long answers that are under way: one for each peer, made and sent as fast as that peer takes it.

Rules
-----
1. A peer has one answer under way. Further requests wait, one of a kind for each session (and scan): the newest takes
   the place of the one before, because it is what the peer still wants. At most `WAITING`; beyond, a request is
   dropped, and will be asked again.
2. An answer is made message by message, and the next one only when the peer's queue has taken the last. So what a peer
   that asks and never reads costs is its queue and one message more.
3. Peers take turns, `SLICE` messages each: a long answer to one does not keep the others waiting.
4. A peer that has taken nothing for `STALLED_S` loses what was under way for it; when it wakes, it asks again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from livestem.protocol.publisher import Out

WAITING = 16  # a follower asks once for each session that it follows; the others' turn comes when it asks again
SLICE = 16  # some ten milliseconds of the largest messages, and little enough to be fair
STALLED_S = 5.0  # as long as ten repetitions of a request

Delivery = Literal["sent", "full", "away"]
Key = tuple[type, str, str]  # kind of the request, session, and the scan where it asks by place


@dataclass
class _Peer:
    answers: dict[Key, Iterator[Out]] = field(default_factory=dict)  # the first is under way
    unsent: Out | None = None
    moved_at: float = 0.0


class Replies:
    """What is being answered.

    Parameters
    ----------
    deliver : callable
        Hands a message to its peer's queue: ``sent``, ``full`` (it was not taken), or ``away`` (there is no such peer).
    """

    def __init__(self, deliver: Callable[[Out], Delivery]) -> None:
        self._deliver = deliver
        self._peers: dict[bytes, _Peer] = {}

    @property
    def busy(self) -> bool:
        """Whether anything is under way."""
        return bool(self._peers)

    def begin(self, peer: bytes, key: Key, answer: Iterator[Out], now: float) -> None:
        """Answer a request when its turn comes."""
        known = self._peers.setdefault(peer, _Peer(moved_at=now))
        if key in known.answers or len(known.answers) < WAITING:
            known.answers[key] = answer

    def turn(self, now: float) -> bool:
        """Send to every peer what it takes; return whether any took something."""
        moved = False
        for peer, known in list(self._peers.items()):
            if self._advance(known):
                known.moved_at, moved = now, True
            if not known.answers or now - known.moved_at > STALLED_S:
                del self._peers[peer]
        return moved

    def _advance(self, peer: _Peer) -> bool:
        """Send at most a slice; return whether the peer took anything, or is no longer to be served."""
        for sent in range(SLICE):
            out = peer.unsent or self._next(peer)
            if out is None:
                return True
            delivery = self._deliver(out)
            if delivery == "away":
                peer.answers.clear()
                return True
            peer.unsent = out if delivery == "full" else None
            if peer.unsent is not None:
                return sent > 0
        return True

    def _next(self, peer: _Peer) -> Out | None:
        """Return the next message for a peer; what is answered makes room for what waits."""
        while peer.answers:
            key = next(iter(peer.answers))
            out = next(peer.answers[key], None)
            if out is not None:
                return out
            del peer.answers[key]
        return None
