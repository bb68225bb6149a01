"""One stream that is followed: its gaps, their repair, and what waits for one to be filled.

Every reliable message of the stream leaves here exactly once, as `Deliver` or inside a `Lost`.

What waits behind a gap is bounded: when it is full, a further message is let go as if it had not come, and asked for
again when those before it are here. The sender has it, so nothing is lost by that.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from livestem.domain.errors import WireError
from livestem.domain.limits import Limits
from livestem.protocol.effects import Deliver, Effect, Lost
from livestem.protocol.gaps import GapTracker, Range
from livestem.wire import messages as m
from livestem.wire.codec import Message, decode, unnest

TRIES = 3  # a message that cannot be read even when resent three times was made wrong
SPOILT = 1000  # of which tries are counted: a burst and as much again
HELD = 1000  # messages behind a gap: two bursts; beside `held_bytes`, because each costs a kilobyte whatever it carries


@dataclass
class Track:
    """One (session, epoch).

    Attributes
    ----------
    gaps : what is here, what is missing
    ordered : hold messages back until all before them are here or known to be lost
    asked : the last request for a gap; only its answer says that the publisher is done with it
    """

    session: str
    epoch: int
    gaps: GapTracker
    ordered: bool
    limits: Limits
    asked: m.Resend | None = None
    _held: dict[int, Deliver] = field(default_factory=dict)
    _held_bytes: int = 0
    _released: int = 0  # everything up to here has left
    _spoilt: dict[int, int] = field(default_factory=dict)  # seq -> times it came back and could not be read

    def ask(self, request_id: str, wanted: Range) -> m.Resend:
        """Return the request for a gap."""
        first, last = wanted
        self.asked = m.Resend(request_id=request_id, session=self.session, epoch=self.epoch, first=first, last=last)
        return self.asked

    def arrived(self, deliver: Deliver, seq: int, now: float) -> list[Effect]:
        """Take a reliable message, however it came."""
        if self.ordered and seq > self.gaps.contiguous + 1 and self._full(deliver):
            self.gaps.announced(seq, now)
            return []
        if not self.gaps.received(seq, now):
            return []
        self._spoilt.pop(seq, None)
        if not self.ordered:
            return [deliver]
        self._held[seq] = deliver
        self._held_bytes += deliver.message.nbytes
        return self._release()

    def resent(self, header: m.Resent, message: Message, now: float) -> list[Effect]:
        """Take a message that was asked for.

        Raises
        ------
        WireError
            If it cannot be read; it will be asked for again, and given up at the third time.
        """
        self._answered(header, now, more=header.more)
        try:
            nested = open_nested(message, header.seq, self.limits)
        except WireError:
            times = self._spoilt.pop(header.seq, 0) + 1
            self._spoilt[header.seq] = times
            if len(self._spoilt) > SPOILT:
                del self._spoilt[next(iter(self._spoilt))]
            if times < TRIES:
                raise
            return self.give_up(header.seq, header.seq)
        return self.arrived(Deliver(nested, repaired=True), header.seq, now)

    def paged(self, seq: int, message: Message, now: float) -> list[Effect]:
        """Take a page of a snapshot; one that cannot be read must not end it: that message is lost, the rest is not."""
        try:
            nested = open_nested(message, seq, self.limits)
        except WireError:
            return self.give_up(seq, seq)
        return self.arrived(Deliver(nested, repaired=True), seq, now)

    def gone(self, header: m.Gone, now: float) -> list[Effect]:
        """Take the word that the publisher has let a range go."""
        self._answered(header, now, more=header.more)
        return self.give_up(header.first, header.last)

    def give_up(self, first: int, last: int) -> list[Effect]:
        """Settle a range; only what had not come is lost."""
        lost = self.gaps.gone(first, last)
        return [*(Lost(self.session, *r) for r in lost), *self._release()]

    def end(self) -> list[Effect]:
        """Settle everything: no answer can come any more, because the publisher has started again."""
        return self.give_up(self.gaps.first, self.gaps.last_known)

    def _answered(self, answer: m.Talk, now: float, *, more: bool) -> None:
        if self.asked is not None and answer.request_id == self.asked.request_id:
            self.gaps.answered(now, more=more)

    def _full(self, deliver: Deliver) -> bool:
        """Whether there is no room for a message behind a gap."""
        return len(self._held) >= HELD or self._held_bytes + deliver.message.nbytes > self.limits.held_bytes

    def _release(self) -> list[Effect]:
        """Return, in order, what no gap holds back any more."""
        if self.gaps.contiguous == self._released:
            return []
        self._released = self.gaps.contiguous
        free = [self._held.pop(seq) for seq in sorted(s for s in self._held if s <= self._released)]
        self._held_bytes -= sum(deliver.message.nbytes for deliver in free)
        return list(free)


def open_nested(message: Message, seq: int, limits: Limits) -> Message:
    """Return the reliable message inside a `resent` or `snapshot_page`, or raise `WireError` if it is not `seq`."""
    if not message.arrays:
        raise WireError("payload", "a message is said to be within another, and is not")
    nested = decode(unnest(message.arrays[0]), limits)
    if not isinstance(nested.header, m.Reliable) or nested.header.seq != seq:
        raise WireError("payload", "a message within another is not the one it is said to be")
    return nested
