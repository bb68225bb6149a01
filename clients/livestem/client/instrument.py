"""A hand on an instrument: ask it for a scan.

One request at a time, each from the beginning: `hello` until a `welcome` tells which start of the instrument is there,
then `request_scan` to that one, again every half second until it is answered. The instrument answers a repetition as
it did before, so a lost reply costs half a second and no second scan; another start of the instrument refuses what was
meant for the one before. Nothing is left lying for an instrument that is not there.
"""

from __future__ import annotations

import contextlib
import math
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal

import msgspec
import zmq

from livestem.client.endpoints import ACQUISITION, Endpoint
from livestem.client.keys import Keys, given_keys
from livestem.client.line import Line, advice, server_key
from livestem.client.tally import Tally
from livestem.domain.errors import RefusedError, TransportError, UsageError, WireError
from livestem.domain.limits import DEFAULT_LIMITS, Limits
from livestem.domain.request import ScanGrant, ScanRequest
from livestem.wire import messages as m
from livestem.wire.codec import decode, encode

_RETRY_S = 0.5  # the wire's: an answer on one machine takes a millisecond, a busy one some hundred


class Instrument:
    """Ask an instrument for scans: a controller's or an operator's hand. For one thread.

    Parameters
    ----------
    endpoint : Endpoint or str
        Where the instrument publishes.
    name : str
        Who we are, for the instrument's log.
    keys : Keys, Path or str, optional
        Our own, or their folder: for an endpoint with a server key.

    Raises
    ------
    UsageError, TransportError
        If the endpoint is none, or has a server key and there are no keys. That nobody is there yet is no error.

    Examples
    --------
    >>> from livestem.client import Acquisition, Instrument, ScanGrant, ScanRequest
    >>> wanted = []
    >>> def on_request(request):
    ...     wanted.append(request)
    ...     return ScanGrant(scan_id=f"asked-{len(wanted)}", duration_s=request.frames * 0.5)
    >>> where = "ipc:///tmp/livestem-doc-instrument"
    >>> with Acquisition(endpoint=where, on_request=on_request), Instrument(where) as instrument:
    ...     grant = instrument.request_scan(ScanRequest(region_nm=(0, 0, 20, 20), frames=4, reason="a boundary"))
    >>> grant.scan_id, grant.duration_s
    ('asked-1', 2.0)
    """

    def __init__(
        self,
        endpoint: Endpoint | str = ACQUISITION,
        *,
        name: str = "",
        limits: Limits = DEFAULT_LIMITS,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        keys: Keys | Path | str | None = None,
    ) -> None:
        try:
            self.endpoint = Endpoint(endpoint) if isinstance(endpoint, str) else endpoint
        except ValueError as e:
            raise UsageError(str(e)) from e
        own = given_keys(keys)
        server_key(self.endpoint, own)  # refused now, before anything is opened
        self._name, self._limits = name, limits
        self._dropped = Tally("reply")
        self._own_context = zmq.Context() if context is None else None
        self._line = Line(
            context or self._own_context,  # type: ignore[arg-type]
            zmq.DEALER,
            self.endpoint,
            own,
            limits,
        )
        self._dealer = self._line.socket
        self._dealer.setsockopt(zmq.IMMEDIATE, 1)  # queue for no one who is not there
        try:
            self._line.dial(self.endpoint.talk)
        except TransportError:
            self.close()
            raise

    def request_scan(
        self, request: ScanRequest, timeout_s: float = 10.0, *, request_id: str | None = None
    ) -> ScanGrant:
        """Ask for a scan and return what is granted.

        Parameters
        ----------
        request : ScanRequest
        timeout_s : float
            How long to ask, s.
        request_id : str, optional
            1 to 64 characters; by default one that nobody else uses. After a time-out, ask again under the same name:
            if it was granted after all, the answer is that grant and no second scan.

        Raises
        ------
        RefusedError
            If the instrument refuses; the message is its reason.
        TransportError
            If nothing answers within `timeout_s`.
        UsageError
            If the request or its name could not be sent.
        """
        if self._dealer.closed:
            raise TransportError("this Instrument is closed; open another to ask for a scan")
        deadline = time.monotonic() + timeout_s
        within = f"within {timeout_s:g} s"
        hello = m.Hello(request_id=_fresh(), versions=(m.VERSION,), role="operator", name=self._name)
        welcome = self._ask(_checked(hello), deadline)
        if not isinstance(welcome, m.Welcome):
            where = self.endpoint.endpoint
            todo = "start `livestem simulate --requests` or give --acquisition"
            raise TransportError(f"no instrument at {where} {within}; {todo}{self._advice()}")
        stream = welcome.streams[0] if welcome.streams else m.Stream(session="", epoch=0, first_seq=0, last_seq=0)
        asked = m.RequestScan(
            request_id=request_id or _fresh(), session=stream.session, epoch=stream.epoch, request=request
        )
        granted = self._ask(_checked(asked), deadline)
        if not isinstance(granted, m.ScanGranted):
            raise TransportError(
                f"the instrument did not answer request {asked.request_id} {within} (its log says why); "
                "it may scan all the same: ask again under the same request_id"
            )
        return granted.grant

    def close(self) -> None:
        """Leave; what was granted is scanned all the same."""
        self._line.close()
        if self._own_context is not None:
            self._own_context.term()

    def __enter__(self) -> Instrument:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        self.close()
        return False

    def _advice(self) -> str:
        return advice(self.endpoint, self._line.mismatched)

    def _ask(self, header: m.Talk, deadline: float) -> m.Talk | None:
        """Say something until it is answered; return the answer, or None if there is none by the deadline."""
        while (left := deadline - time.monotonic()) > 0:
            self._line.tend()
            again = time.monotonic() + min(left, _RETRY_S)
            if self._dealer.poll(_ms(again), zmq.POLLOUT):  # somebody is connected
                with contextlib.suppress(zmq.Again):  # and has just left
                    self._dealer.send_multipart(encode(header), zmq.NOBLOCK)
            while self._dealer.poll(_ms(again)):
                for answer in self._arrived():
                    if isinstance(answer, m.Refusal) and answer.request_id == header.request_id:
                        raise RefusedError(answer.reason)
                    if isinstance(answer, m.Welcome | m.ScanGranted) and answer.request_id == header.request_id:
                        return answer
        return None

    def _arrived(self) -> Iterator[m.Header]:
        with contextlib.suppress(zmq.Again):
            while True:
                frames = self._dealer.recv_multipart(zmq.NOBLOCK)
                try:
                    yield decode(frames, self._limits).header
                except WireError as e:
                    self._dropped.add(e)


def _ms(until: float) -> int:
    """Return the milliseconds left, rounded up so that no last one is spent spinning."""
    return max(0, math.ceil((until - time.monotonic()) * 1000))


def _fresh() -> str:
    return uuid.uuid4().hex


def _checked(header: m.Talk) -> m.Talk:
    """Return a header as a receiver would read it: better refused here than dropped over there."""
    try:
        return msgspec.convert(msgspec.to_builtins(header), type(header))
    except (msgspec.ValidationError, TypeError) as e:
        raise UsageError(f"the request cannot be sent: {e}") from e
