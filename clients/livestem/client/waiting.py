"""How a source waits for its service: for as long as there is a reason to.

Time counts from the last sign of progress. A service that says it is *blocked* (its disk is full), or that asks for
something again, is there and is waited for; one that says nothing at all is not. Meanwhile what is asked for again is
made, on the thread that waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from livestem.client.remake import Remaker
from livestem.domain.errors import TransportError
from livestem.protocol.publisher import Publisher
from livestem.wire import messages as m

_STEP_S = 0.2  # of waiting: a Ctrl-C is felt between two steps, on any system
_ACKS_S = 2.0  # a service acknowledges every second; one that has not for so long is not waited for at the end


class Waiting:
    """What one source knows of its services' progress.

    Parameters
    ----------
    publisher : Publisher
    remaker : Remaker
        Is served while one waits.
    tell : callable
        Takes a line for a person: that the service cannot store just now, that it can again; each once.

    Attributes
    ----------
    changed : condition
        Notified with every word of a service; guards what is made of these words.
    """

    def __init__(self, publisher: Publisher, remaker: Remaker, tell: Callable[[str], None]) -> None:
        self.changed = threading.Condition()
        self._publisher, self._remaker, self._tell = publisher, remaker, tell
        self._told = False
        self._word_at = self._ack_at = float("-inf")  # of a service that cannot go on just now; of one that does

    def heard(self, talk: m.Talk) -> None:
        """Note a word of a service; called on the hub's thread, holding `changed`."""
        now = time.monotonic()
        if isinstance(talk, m.Ack | m.Attach):
            self._ack_at = now
        if isinstance(talk, m.Resend) or (isinstance(talk, m.Ack) and talk.blocked):
            self._word_at = now
        self.changed.notify_all()

    @property
    def all_acknowledged(self) -> bool:
        """Whether everything published so far is stored."""
        return self._publisher.buffer.acknowledged >= self._publisher.buffer.last_seq

    def tell_blocked(self) -> None:
        """Tell a person if the service cannot store just now, or can again."""
        blocked = self._publisher.blocked
        if blocked is not None and not self._told:
            self._tell(f"the segmenter cannot store just now: {blocked}; waiting, nothing is lost")
        elif blocked is None and self._told:
            self._tell("the segmenter can store again; going on")
        self._told = blocked is not None

    def until(self, done: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
        """Return once `done`; raise `TransportError` with the words `otherwise` after `timeout_s` without a reason."""
        began = time.monotonic()
        while not done():
            self._remaker.serve()
            self.tell_blocked()
            left = max(began, self._word_at) + timeout_s - time.monotonic()
            if left <= 0:
                raise TransportError(otherwise)
            with self.changed:
                if not (done() or self._remaker.waiting):
                    self.changed.wait(min(left, _STEP_S))
        self.tell_blocked()

    def progress(self, done: Callable[[], bool], timeout_s: float) -> None:
        """Return once `done`, for as long as acknowledgements keep coming."""
        while not done():
            before = self._publisher.buffer.acknowledged
            self.until(
                lambda before=before: done() or self._publisher.buffer.acknowledged > before,  # type: ignore[misc]
                timeout_s,
                f"the segmenter has acknowledged nothing for {timeout_s:g} s; is it still running?",
            )

    def part(self, timeout_s: float) -> None:
        """Let an attached service have the last word too, which may have been lost on the way; not for long."""
        deadline = time.monotonic() + timeout_s

        def done() -> bool:
            now = time.monotonic()
            return self.all_acknowledged or now >= deadline or now - self._ack_at > _ACKS_S

        self.until(done, 2 * timeout_s, "")
