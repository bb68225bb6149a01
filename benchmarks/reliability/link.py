"""A network of messages without sockets: it loses, doubles, delays, reorders, spoils and cuts, on a virtual clock.

Everything is decided by one seeded generator, so that a case can be run again. Between two machines there are one-way
channels (`pub`, `request`, `reply`); each can be cut for a while by itself, which is a half-open connection, or all
together, which is a cable pulled.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass

from livestem.protocol.resend import Frames

CHANNELS = ("pub", "request", "reply")


@dataclass(frozen=True)
class Weather:
    """Probability of each fault for each message, and how long one may be on its way, s."""

    loss: float = 0.0
    double: float = 0.0
    spoil: float = 0.0
    delay_s: float = 0.0


CALM = Weather()
Arrive = Callable[[str, Frames], None]


class Link:
    """What lies between a publisher's two sockets and one follower's.

    Parameters
    ----------
    rng : random.Random
    weather : Weather
    arrive : callable
        ``arrive(channel, frames)`` hands a message over at its end of the channel.
    """

    def __init__(self, rng: random.Random, weather: Weather, arrive: Arrive) -> None:
        self._rng, self.weather, self._arrive = rng, weather, arrive
        self._way: list[tuple[float, int, str, Frames]] = []
        self._order = itertools.count()
        self._cut_until = dict.fromkeys(CHANNELS, 0.0)
        self.now = 0.0

    def cut(self, channels: tuple[str, ...], seconds: float) -> None:
        """Let nothing through for so long; what is on its way is lost too, as a broken connection loses it."""
        for channel in channels:
            self._cut_until[channel] = max(self._cut_until[channel], self.now + seconds)
        self._way = [entry for entry in self._way if entry[2] not in channels]
        heapq.heapify(self._way)

    def send(self, channel: str, frames: Frames) -> None:
        """Put a message on its way."""
        weather, rng = self.weather, self._rng
        if self.now < self._cut_until[channel] or rng.random() < weather.loss:
            return
        for _ in range(2 if rng.random() < weather.double else 1):
            due = self.now + rng.random() * weather.delay_s
            sent = spoilt(frames, rng) if rng.random() < weather.spoil else frames
            heapq.heappush(self._way, (due, next(self._order), channel, sent))

    def advance(self, now: float) -> None:
        """Let time pass: hand over what is due."""
        self.now = now
        while self._way and self._way[0][0] <= now:
            _, _, channel, frames = heapq.heappop(self._way)
            self._arrive(channel, frames)


def spoilt(frames: Frames, rng: random.Random) -> Frames:
    """Return frames with one bit flipped."""
    copy = [bytearray(f) for f in frames]
    frame = rng.choice([f for f in copy if f])
    frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
    return [bytes(f) for f in copy]
