"""One session as it is followed: its epochs, one after the other.

A session is a sequence of epochs, one for each start of its publisher. One of them is tracked; those before it have
ended, those after it wait until it is filled. So nothing is delivered twice or out of its order, also where a kill came
between storing and sending.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from livestem.domain.limits import DEFAULT_LIMITS, Limits
from livestem.protocol.effects import Effect, Tracking
from livestem.protocol.gaps import GapTracker
from livestem.protocol.track import Track
from livestem.wire import messages as m

ENDED = 64  # epochs that are remembered as over; a word that comes later than so many starts is none


@dataclass
class Epochs:
    """The epochs of one session.

    Attributes
    ----------
    session : its name
    ordered, limits : as of `Track`
    track : the epoch that is followed, once one is
    later : epochs that wait for their turn, oldest first
    ended : epochs that the session has left behind
    before : how far it was followed before it had to make room for others, if it had to
    """

    session: str
    ordered: bool = False
    limits: Limits = DEFAULT_LIMITS
    track: Track | None = None
    later: list[m.Stream] = field(default_factory=list)
    ended: set[int] = field(default_factory=set)
    before: m.Stream | None = None

    def tracks(self, epoch: int) -> Track | None:
        """Return the track of this epoch, if it is the one that is followed."""
        return self.track if self.track is not None and self.track.epoch == epoch else None

    def is_over(self, epoch: int) -> bool:
        """Whether the session has left this epoch behind."""
        return epoch in self.ended or (self.before is not None and epoch < self.before.epoch)

    def waits(self, epoch: int) -> bool:
        """Whether this epoch will be begun when those before it are filled."""
        return any(stream.epoch == epoch for stream in self.later)

    def line_up(self, streams: Sequence[m.Stream], now: float) -> list[Effect]:
        """Take the publisher's word for which epochs there are, oldest first, the last being the present one.

        An epoch that it does not list it cannot serve: what is still missing of it is lost.
        """
        effects: list[Effect] = []
        epochs = [stream.epoch for stream in streams]
        if self.track is not None and self.track.epoch in epochs:
            at = epochs.index(self.track.epoch)
            self.track.gaps.announced(streams[at].last_seq, now)
            streams = streams[at + 1 :]
        elif self.track is not None:
            effects = self._end(self.track)
        self.later = [stream for stream in streams if stream.epoch not in self.ended and self.has_news(stream)]
        return effects

    def has_news(self, stream: m.Stream) -> bool:
        """Whether a stream has anything that came after `before`."""
        then = self.before
        return then is None or (stream.epoch, stream.last_seq) > (then.epoch, then.last_seq)  # epochs are clocks

    def first_of(self, epoch: int) -> int:
        """Return the first seq of an epoch that was not followed `before`."""
        return self.before.last_seq + 1 if self.before is not None and self.before.epoch == epoch else 1

    def next_epoch(self) -> m.Stream | None:
        """Return the epoch whose turn it is, if one waits and the one before it is filled."""
        filled = self.track is None or self.track.gaps.complete
        return self.later.pop(0) if filled and self.later else None

    def begin(self, stream: m.Stream, first: int, now: float) -> list[Effect]:
        """Follow a stream from `first` on; one that is followed already is not begun anew."""
        effects: list[Effect] = []
        if self.track is not None and self.track.epoch != stream.epoch:
            effects, self.track = self._end(self.track), None
        if self.track is None:
            self.track = Track(self.session, stream.epoch, GapTracker(first), self.ordered, self.limits)
            effects.append(Tracking(stream))
        self.track.gaps.announced(stream.last_seq, now)
        return effects

    def _end(self, track: Track) -> list[Effect]:
        self.ended.add(track.epoch)
        if len(self.ended) > ENDED:
            self.ended.remove(min(self.ended))  # epochs are clocks: the smallest is the one of longest ago
        return track.end()
