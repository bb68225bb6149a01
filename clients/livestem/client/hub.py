"""The two sockets of a publisher: XPUB for everybody, ROUTER for each.

Anybody may publish from any thread: one lock guards the XPUB and the publishers, so that `seq` on the wire rises
in the order of publishing. The ROUTER (`Reception`) belongs to the hub's own thread, which also sends heartbeats.
Replies to `resend` and `snapshot` are sent there too, message by message, so that they never hold up publishing.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Literal

import zmq
from numpy.typing import NDArray

from livestem.client.door import Door
from livestem.client.endpoints import Endpoint
from livestem.client.keys import Keys
from livestem.client.reception import SILENT_S, Reception
from livestem.client.sockets import Socket
from livestem.domain.errors import LivestemError, TransportError, WireError
from livestem.domain.limits import DEFAULT_LIMITS, Limits
from livestem.domain.notices import notice
from livestem.protocol.desk import Desk
from livestem.protocol.publisher import Out, Publisher
from livestem.wire import messages as m
from livestem.wire.codec import encode

log = logging.getLogger(__name__)

HEARTBEAT_S = 1.0  # the design's
EAGER_HEARTBEAT_S = 0.1  # while nobody is attached, so that a waiting service notices us at once
_REQUESTS = 256  # in one turn; then heartbeats get theirs
_NOTES = 2000  # of subscriptions, read in one turn: a hundred thousand a second, in a millisecond or two each time
_BACK_S = 3.0  # a service is back after a tenth of a second, under another address, and acknowledges every second


class Hub:
    """Binds the sockets, answers requests, sends heartbeats.

    Parameters
    ----------
    context : zmq.Context
    endpoint : Endpoint
        Where to bind; loopback or ``ipc://``, with `keys` anywhere.
    epoch : int
        New at each start.
    stream : {"acq", "res"}
        Family of topics.
    server : str
        Who we are, for people.
    on_talk : callable, optional
        Called with every request, on the hub's thread, once it is answered.
    on_repaired : callable, optional
        Called for every message that somebody missed and is sent again.
    on_rejected : callable, optional
        Called with the error of every request that was dropped, for a metric; the hub logs them thinly itself.
    eager : callable, optional
        While it returns True, heartbeats are sent ten times a second.
    on_scan : callable, optional
        Returns the answer to a `request_scan` of a session that is served here; called on the hub's thread. Without
        it every one is refused.
    stored : callable, optional
        Returns a publisher of a session that is not served since this start, if a store knows it.
    link : callable, optional
        Stands between the publishers and the XPUB, whose every message it is given: it returns those to send now.
        Called under the lock, so one message at a time; what it waits, all publishing waits.
    keys : Keys, optional
        The sockets then admit only the keys of the allow-lists beside them, and answer each what its role may ask.
        They live in a context of their own.

    Raises
    ------
    TransportError
        If the endpoint is in use; the message says what to do.
    UsageError
        If the endpoint is open to the network and there are no keys.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: Endpoint,
        epoch: int,
        *,
        stream: Literal["acq", "res"],
        server: str,
        limits: Limits = DEFAULT_LIMITS,
        on_talk: Callable[[m.Talk], None] | None = None,
        on_repaired: Callable[[], None] | None = None,
        on_rejected: Callable[[WireError], None] | None = None,
        eager: Callable[[], bool] = lambda: False,
        on_scan: Callable[[m.RequestScan], m.Talk] | None = None,
        stored: Callable[[str], Publisher | None] | None = None,
        link: Callable[[list[bytes]], Iterable[list[bytes]]] | None = None,
        keys: Keys | None = None,
    ) -> None:
        self.epoch, self.server, self._stream = epoch, server, stream
        self._on_talk, self._eager, self._on_scan, self._link = on_talk, eager, on_scan, link
        self._desk = Desk(server, stored)
        self._publishers = self._desk.published
        self.lock = threading.RLock()
        self.subscribers = 0
        self._on_repaired = on_repaired
        self._words: queue.SimpleQueue[tuple[bytes, m.Talk]] = queue.SimpleQueue()  # of other threads, to peers
        self._stop = threading.Event()
        self.turned = time.monotonic()
        self._door = Door(context, endpoint, stream, limits, keys, on_rejected)
        self._reception = Reception(self._door, server, epoch, limits, self._publish, on_rejected)
        self._thread = threading.Thread(target=self._run, name=f"hub-{server}", daemon=True)
        self._thread.start()

    def add(self, publisher: Publisher) -> Publisher:
        """Serve one more session."""
        with self.lock:
            self._publishers[publisher.session] = publisher
            self._send(publisher.heartbeat())
        return publisher

    def publish(
        self, session: str, header: m.Header, arrays: Sequence[NDArray[Any]] = (), *, codec: str = "raw"
    ) -> list[bytes]:
        """Number, keep and send a message of a session; return its frames."""
        with self.lock:
            frames = self._publishers[session].publish(header, arrays, codec=codec)
            self._send(frames)
        return list(frames)

    def publish_all(self, session: str, messages: Sequence[tuple[m.Header, Sequence[NDArray[Any]]]]) -> None:
        """Number and keep messages that belong together, all or none, and send them."""
        with self.lock:
            for frames in self._publishers[session].publish_all(messages):
                self._send(frames)

    def tell(self, peer: bytes, header: m.Talk) -> None:
        """Send a word to one peer through the ROUTER, from any thread."""
        self._words.put((peer, header))

    @property
    def _xpub(self) -> Socket:
        return self._door.xpub

    @property
    def sessions(self) -> tuple[str, ...]:
        """The sessions that are served, in the order in which they were added."""
        with self.lock:
            return tuple(self._publishers)

    def let_go(self, session: str) -> None:
        """Serve a session no more; a store still answers for it."""
        with self.lock:
            self._publishers.pop(session, None)

    @property
    def alive(self) -> bool:
        """Whether the hub's threads go on."""
        return self._thread.is_alive() and self._door.alive

    @property
    def resend_bytes(self) -> int:
        """Bytes of messages kept to be sent again, of all sessions."""
        with self.lock:
            return sum(publisher.buffer.kept_bytes for publisher in self._publishers.values())

    @property
    def rejected(self) -> dict[str, int]:
        """Requests dropped and connections not let in so far, by reason."""
        return dict(self._reception.dropped.by_reason + self._door.refused)

    def publisher(self, session: str) -> Publisher | None:
        """Return the publisher of a session, if it is served here."""
        return self._publishers.get(session)

    def close(self) -> None:
        """Stop the thread and close the sockets; what is queued is given a second to leave."""
        self._stop.set()
        self._thread.join()
        with self.lock:  # whoever still publishes gets a clear word, and no closed socket under the hand
            if self._xpub.closed:
                return
            self._door.close_sockets()
        self._door.close()

    def __enter__(self) -> Hub:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, frames: Sequence[bytes]) -> None:
        if self._xpub.closed:
            raise TransportError("this publisher is closed; open another to send further data")
        if not self.alive and not self._stop.is_set():
            raise TransportError("this publisher's thread has ended with an error, told on stderr; start it again")
        for sent in [frames] if self._link is None else self._link(list(frames)):
            self._xpub.send_multipart(sent, copy=False)

    def _run(self) -> None:
        next_beat = time.monotonic()
        while not self._stop.is_set():
            self.turned = time.monotonic()
            with self.lock:
                self._count_subscribers()
            if self._reception.wait():
                for peer, request in self._reception.requests(_REQUESTS):
                    self._answer(peer, request)
                    if self._on_talk is not None:
                        self._on_talk(request)
            while not self._words.empty():
                self._reception.reply(*self._words.get())
            if time.monotonic() >= next_beat:
                if self._door.somebody_left():
                    self._end_connections()
                self._beat()
                next_beat = time.monotonic() + (EAGER_HEARTBEAT_S if self._eager() else HEARTBEAT_S)

    def _end_connections(self) -> None:
        """A key was removed, and ZeroMQ cannot end one connection alone; gap repair makes up for what others miss."""
        at = self._door.endpoint.endpoint
        log.warning("key removed at %s: every connection begins anew", at, extra=notice("key_removed", endpoint=at))
        with self.lock:
            self._door.renew()
            self.subscribers = 0
            attached = {peer for publisher in self._publishers.values() for peer in publisher.services}
        self._reception.heard = dict.fromkeys(attached, time.monotonic() - SILENT_S + _BACK_S)

    def _beat(self) -> None:
        with self.lock:
            self._forget_silent()
            for publisher in self._publishers.values():
                self._send(publisher.heartbeat())

    def _forget_silent(self) -> None:
        """A service that has vanished must not hold back what the others have acknowledged."""
        for peer in self._reception.forget_silent():
            for publisher in self._publishers.values():
                publisher.forget(peer)

    def _count_subscribers(self) -> None:
        """XPUB tells who comes and who goes; reading it also keeps its queue empty."""
        with contextlib.suppress(zmq.Again):
            for _ in range(_NOTES):  # then publishing gets its turn
                note = self._xpub.recv(zmq.NOBLOCK)
                if note[1:] != f"{self._stream}..echo".encode():  # who follows one session subscribes to this too
                    self.subscribers = max(0, self.subscribers + {b"\x01": 1, b"\x00": -1}.get(note[:1], 0))

    def _answer(self, peer: bytes, request: m.Talk) -> None:
        if isinstance(request, m.Hello):
            self._reception.reply(peer, self._welcome(request))
        elif isinstance(request, m.Probe):
            echo = m.Echo(nonce=request.nonce, epoch=self.epoch, sent_ns=time.time_ns())
            self._publish(encode(echo, stream=self._stream))
            if self._door.crowded:  # it may wait outside in vain: whose SUB knocks ZeroMQ does not say
                self._reception.refuse_full(peer, request)
        elif isinstance(request, m.RequestScan):
            self._reception.reply(peer, self._answer_scan(request))
        elif isinstance(request, m.Verdict):
            pass  # told to on_talk; not answered
        elif isinstance(request, m.Ack) and request.session not in self._publishers:
            pass  # a late word to a publisher that was here before us
        else:
            self._forward(peer, request)

    def _answer_scan(self, request: m.RequestScan) -> m.Talk:
        """A request meant for another start is refused: what that one granted is not known here."""
        publisher = self._publishers.get(request.session)
        if self._on_scan is None:
            reason = "this source takes no scan requests; `livestem simulate --requests` does, or your on_request"
        elif publisher is None or publisher.epoch != request.epoch:
            reason = f"session {request.session!r} is not served here since this start; say hello, then ask again"
        else:
            return self._on_scan(request)
        return m.Refusal(request_id=request.request_id, session=request.session, reason=reason)

    def _forward(self, peer: bytes, request: m.Talk) -> None:
        with self.lock:
            publisher = self._desk.find(request.session)
        if publisher is None:
            asked, reason = request.session, f"no session {request.session!r} here"
            self._reception.reply(peer, m.Refusal(request_id=request.request_id, session=asked, reason=reason))
            return
        self._reception.answer(peer, request, self._steps(publisher.on_request(peer, request), request))

    def _steps(self, answer: Iterator[Out], request: m.Talk) -> Iterator[Out]:
        """Yield an answer; each step reads the buffer, so it is locked, and sending happens outside."""
        while True:
            try:
                with self.lock:
                    out = next(answer, None)
            except LivestemError as e:  # the store of old messages, say; the publisher itself must live on
                log.error("request of %s not answered: %s", m.tag_of(request), e)
                return
            if out is None:
                return
            yield out
            if out.repairs and self._on_repaired is not None:
                self._on_repaired()

    def _publish(self, frames: Sequence[bytes]) -> None:
        with self.lock:
            self._send(frames)

    def _welcome(self, hello: m.Hello) -> m.Talk:
        with self.lock:
            return self._desk.welcome(hello)
