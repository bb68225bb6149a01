"""What scan requests were answered, so that asking twice is harmless: one `request_id`, one scan.

A reply can be lost, and then the request comes again; it is given the answer it was given before. Refusals are kept
too: what was refused because a queue was full is asked for again under a new name.
"""

from __future__ import annotations

from collections.abc import Callable

from livestem.domain.errors import LivestemError
from livestem.domain.request import ScanGrant, ScanRequest
from livestem.wire import messages as m

# A request is repeated for as long as its asker is patient, some ten seconds. At ten requests a second, more than any
# instrument scans, so many answers go back ten times as far; in memory they are 5 MB at the very most.
KEPT = 1024
_REASON = 4096  # characters: what a refusal can carry


class Answers:
    """Ask a handler once for each request, and remember what it said.

    Parameters
    ----------
    grant : callable
        Returns the grant of a request; a `LivestemError`, or the `ValueError` of a domain's value, is a refusal and
        its message the reason. Anything else is a mistake in the handler, and not caught.
    """

    def __init__(self, grant: Callable[[ScanRequest], ScanGrant]) -> None:
        self._grant = grant
        self._given: dict[str, tuple[ScanRequest, m.Talk]] = {}  # oldest first

    def __call__(self, asked: m.RequestScan) -> m.Talk:
        """Return the answer to a request, whoever asks."""
        if asked.request_id not in self._given:
            self._given[asked.request_id] = asked.request, self._decide(asked)
            if len(self._given) > KEPT:
                del self._given[next(iter(self._given))]
        request, answer = self._given[asked.request_id]
        if request != asked.request:
            reason = f"request_id {asked.request_id!r} was another request's; ask under a new one"
            return m.Refusal(request_id=asked.request_id, reason=reason)
        return answer

    def _decide(self, asked: m.RequestScan) -> m.Talk:
        try:
            return m.ScanGranted(request_id=asked.request_id, grant=self._grant(asked.request))
        except (LivestemError, ValueError) as e:
            reason = " ".join(str(e).split())[:_REASON]
            return m.Refusal(request_id=asked.request_id, reason=reason or type(e).__name__)
