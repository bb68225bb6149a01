"""Whom a hub serves: the sessions that it publishes, and those that only its store knows.

Without a name `hello` is told of the sessions of this start; with one, of that session alone. A session of an earlier
start is answered for by a publisher that has not published anything: it lists the epochs that the store holds, and
serves them. Nothing of it stays, so that asking for many sessions costs nothing but the asking.
"""

from __future__ import annotations

from collections.abc import Callable

from livestem.protocol.publisher import Publisher
from livestem.wire import messages as m


class Desk:
    """The publishers of one process.

    Parameters
    ----------
    server : str
        Who we are, for people.
    stored : callable, optional
        ``stored(session)`` returns a publisher of a session that only the store knows, or None.
    """

    def __init__(self, server: str, stored: Callable[[str], Publisher | None] | None = None) -> None:
        self.server, self._stored = server, stored
        self.published: dict[str, Publisher] = {}

    def find(self, session: str) -> Publisher | None:
        """Return who answers for a session, or None if nobody knows it."""
        found = self.published.get(session)
        return self._stored(session) if found is None and self._stored is not None and session else found

    def welcome(self, hello: m.Hello) -> m.Talk:
        """Return the answer to `hello`."""
        if m.VERSION not in hello.versions:
            spoken = ", ".join(map(str, hello.versions)) or "none"
            reason = f"{self.server} speaks wire version {m.VERSION}, you speak {spoken}; update the older side"
            return m.Refusal(request_id=hello.request_id, reason=reason)
        asked = [self.find(hello.session)] if hello.session else list(self.published.values())
        streams = tuple(stream for publisher in asked if publisher is not None for stream in publisher.streams)
        return m.Welcome(request_id=hello.request_id, version=m.VERSION, streams=streams, server=self.server)
