"""A controller without sockets: the product's follower, and what it was told, in order."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.reliability.link import Link

from livestem.protocol.follower import Ask, Deliver, Effect, Follower, Lost
from livestem.wire import messages as m
from livestem.wire.codec import Message, encode


class Observer:
    """A controller: what it was told, in order."""

    def __init__(self, link: Link, ids: Iterator[str]) -> None:
        self._link = link
        self._follower = Follower(role="observer", take="snapshot", ids=ids, ordered=True)
        self.got: list[tuple[int, int]] = []  # (epoch, seq)
        self.done: dict[str, list[int]] = {}  # scan -> tiles that were told missing
        self.lost: list[Lost] = []
        self.stalled_until = 0.0  # until then it does nothing

    def step(self, now: float) -> None:
        """Ask for what is due."""
        self._take(self._follower.tick(now))

    def published(self, message: Message, now: float) -> None:
        """Take a message from the service's PUB."""
        self._take(self._follower.published(message, now))

    def replied(self, message: Message, now: float) -> None:
        """Take a reply from the service's ROUTER."""
        self._take(self._follower.replied(message, now))

    def _take(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Ask):
                self._link.send("request", encode(effect.header))
            elif isinstance(effect, Lost):
                self.lost.append(effect)
            elif isinstance(effect, Deliver) and isinstance(effect.message.header, m.Reliable):
                header = effect.message.header
                self.got.append((header.epoch, header.seq))
                if isinstance(header, m.ScanDone):
                    self.done[header.scan_id] = [t.y for t in header.missing_tiles]
