"""The one publisher of acquisition data: microscope scripts, recorded files, `watch` and the simulator all use it.

An :class:`Acquisition` is one session at one instrument; :meth:`Acquisition.start_scan` gives a
:class:`ScanWriter`, which takes HAADF rows or frames and EDS as events, dense tiles or cumulative snapshots.

Two kinds of source: an *instrument* never waits (its beam does not), and relies on the resend buffer; a *recorded*
source waits for a service, for its verdict on the scan, and for acknowledgements when too much is under way. While
it waits, it makes again what is asked for and no longer kept, if it was told how (`Acquisition.offer`).
"""

from __future__ import annotations

import datetime
import logging
import secrets
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import zmq
from numpy.typing import NDArray

from livestem.client.answers import Answers
from livestem.client.endpoints import ACQUISITION, Endpoint
from livestem.client.hub import Hub
from livestem.client.keys import ALLOWED, Keys, given_keys
from livestem.client.remake import Remaker, TilesOf
from livestem.client.scan_writer import ScanWriter, why_aborted
from livestem.client.tilecheck import check_plan
from livestem.client.waiting import Waiting
from livestem.domain.errors import LivestemError, RefusedError, SourceError, TransportError, UsageError, WireError
from livestem.domain.limits import DEFAULT_LIMITS, Limits
from livestem.domain.names import check_name
from livestem.domain.request import ScanGrant, ScanRequest
from livestem.domain.scan import ScanPlan
from livestem.protocol.publisher import Publisher
from livestem.wire import messages as m
from livestem.wire.codec import decode

log = logging.getLogger(__name__)

STALL_S = 30.0  # no acknowledgement for so long while data are under way: the service hangs or is gone
PARTING_S = 5.0  # a lost last word is noticed within a second and repaired within another; then there are the finals


def new_session(now: datetime.datetime | None = None) -> str:
    """Return a fresh session name: local date and time, and four random digits against two at once."""
    now = now or datetime.datetime.now()
    return f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


class Acquisition:
    """Publish one session's scans.

    Parameters
    ----------
    session : str, optional
        Its name; by default a fresh one.
    endpoint : Endpoint or str
        Where to bind.
    recorded : bool
        True for sources that can wait (files, simulator at any speed).
    on_request : callable, optional
        Makes an instrument of a source: called with a `ScanRequest` it returns the `ScanGrant`, and the script scans
        when it comes to it. A `LivestemError` or a `ValueError` is a refusal, its message the reason. It runs on the
        thread that answers everybody, so it checks, queues and returns at once; a request that is repeated is
        answered without it. Without a handler every request is refused.
    link : callable, optional
        Stands between this publisher and its socket, to try what a network can do: it is given the frames of every
        published message, heartbeats and echoes too, and returns the messages to send now: none, it or others, in any
        order. ``frames[0]`` is the topic, such as ``b"acq.s1.haadf_tile"``. What is asked for again goes past it.
    keys : Keys, Path or str, optional
        Our own, or their folder: who connects must then have a key of the allow-lists in it.
    tell : callable, optional
        Takes a line for a person: that the service cannot store just now, that it goes on. By default it is logged.

    Raises
    ------
    UsageError
        If the session's name or the endpoint is not legal, or open to the network without keys.
    TransportError
        If the endpoint is in use.

    Examples
    --------
    >>> import numpy as np
    >>> from livestem.client import Acquisition, Haadf, Sampling, ScanPlan
    >>> plan = ScanPlan(haadf=Haadf(sampling=Sampling(shape=(64, 64), pixel_nm=(0.05, 0.05)), dtype="<u2"))
    >>> with Acquisition(endpoint="ipc:///tmp/livestem-doc") as acquisition:
    ...     with acquisition.start_scan(plan) as scan:
    ...         scan.haadf(np.zeros((64, 64), "u2"), frame=0)
    """

    def __init__(
        self,
        session: str | None = None,
        endpoint: Endpoint | str = ACQUISITION,
        *,
        recorded: bool = False,
        limits: Limits = DEFAULT_LIMITS,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        on_request: Callable[[ScanRequest], ScanGrant] | None = None,
        link: Callable[[list[bytes]], Iterable[list[bytes]]] | None = None,
        keys: Keys | Path | str | None = None,
        tell: Callable[[str], None] = log.warning,
    ) -> None:
        try:
            self.session = check_name(session or new_session(), "session")
            self._endpoint = Endpoint(endpoint) if isinstance(endpoint, str) else endpoint
        except ValueError as e:
            raise UsageError(str(e)) from e
        self._keys = own = given_keys(keys)
        self.recorded = recorded
        self._limits = limits
        self._own_context = zmq.Context() if context is None else None
        self._verdicts: dict[str, m.Verdict] = {}
        self._started: dict[str, int] = {}  # seq of each scan's latest scan_start
        self._closed = False
        epoch = time.time_ns()
        self._remaker = Remaker(self._send, self._tell)
        self._publisher = Publisher(self.session, "acq", epoch, time.time_ns, limits=limits, remake=self._remaker.take)
        self._waiting = Waiting(self._publisher, self._remaker, tell)
        try:
            self._hub = Hub(
                context or self._own_context,  # type: ignore[arg-type]
                self._endpoint,
                epoch,
                stream="acq",
                server="acquisition",
                limits=limits,
                on_talk=self._on_talk,
                eager=lambda: not self._publisher.services,
                on_scan=None if on_request is None else Answers(on_request),
                link=link,
                keys=own,
            )
        except LivestemError:
            if self._own_context is not None:
                self._own_context.term()
            raise
        self._hub.add(self._publisher)

    def wait_for_service(self, timeout_s: float = 30.0) -> None:
        """Return once a segmenter is attached.

        Raises
        ------
        TransportError
            If none comes within `timeout_s`.
        """
        at, guarded = self._endpoint.endpoint, ""
        if self._keys is not None:
            guarded = f"; is its key in {self._keys.folder / ALLOWED / 'service'}?"
        self._waiting.until(
            lambda: bool(self._publisher.services),
            timeout_s,
            f"no segmenter attached to {at} within {timeout_s:g} s; start `livestem serve`{guarded}",
        )

    def start_scan(self, plan: ScanPlan, scan_id: str | None = None, *, timeout_s: float = STALL_S) -> ScanWriter:
        """Announce a scan.

        Parameters
        ----------
        plan : ScanPlan
            Everything known about it.
        scan_id : str, optional
            By default a fresh name.
        timeout_s : float
            How long a recorded source waits for the service's verdict, s.

        Raises
        ------
        UsageError
            If the scan's name is not legal.
        SourceError
            If the plan breaks the wire's rules.
        RefusedError
            If the service refuses the scan (recorded sources only; an instrument reads `ScanWriter.verdict`).
        TransportError
            If no service answers (recorded sources only).
        """
        try:
            scan_id = check_name(scan_id or f"scan-{new_session()}", "scan")
        except ValueError as e:
            raise UsageError(str(e)) from e
        check_plan(plan)
        writer = ScanWriter(self, plan, scan_id)
        self._announce(m.ScanStart(scan_id=scan_id, plan=plan))
        if self.recorded:
            silent = f"the service did not answer for scan {scan_id} within {timeout_s:g} s; look at its log"
            try:
                self._waiting.until(lambda: scan_id in self._verdicts, timeout_s, silent)
            except (KeyboardInterrupt, TransportError) as e:
                writer.end("aborted", why_aborted(e))
                raise
            self.raise_if_refused(scan_id)
        return writer

    def offer(self, scan_id: str, tiles_of: TilesOf) -> None:
        """Make tiles of a scan again when they are asked for and no longer kept, until it is aborted or withdrawn.

        Parameters
        ----------
        scan_id : str
        tiles_of : callable
            ``tiles_of(frame)`` yields the tiles of a frame, the same ones each time. It runs on the thread that sends,
            between tiles and while that waits.
        """
        self._remaker.offer(scan_id, tiles_of)

    def withdraw(self, scan_id: str) -> None:
        """Make nothing of a scan again; what is asked for and not kept is gone."""
        self._remaker.withdraw(scan_id)

    def verdict(self, scan_id: str) -> m.Verdict | None:
        """Return what the service decided about a scan, or None if it has not spoken."""
        return self._verdicts.get(scan_id)

    def raise_if_refused(self, scan_id: str) -> None:
        """Raise `RefusedError` with the service's reason if it refused the scan."""
        verdict = self._verdicts.get(scan_id)
        if verdict is not None and not verdict.accepted:
            raise RefusedError(f"the service refused scan {scan_id}: {verdict.reason}")

    def publish(self, header: m.OfScan, arrays: tuple[NDArray[Any], ...] = (), *, codec: str = "raw") -> None:
        """Send a reliable message; a recorded source first waits until enough has been acknowledged.

        An abortion never waits: that nobody acknowledges may be the very reason for it.
        """
        self._waiting.tell_blocked()
        if isinstance(header, m.ScanEnd) and header.status == "aborted":
            self.withdraw(header.scan_id)  # it would make what was never swept
        elif self.recorded:
            self._remaker.serve()
            self._wait_for_room()
        self._send(header, arrays, codec)

    def wait_acknowledged(self, timeout_s: float = STALL_S) -> None:
        """Return once a service has stored everything published so far.

        Raises
        ------
        TransportError
            If no acknowledgement at all comes for `timeout_s`.
        """
        self._waiting.progress(lambda: self._waiting.all_acknowledged, timeout_s)

    @property
    def acknowledged(self) -> int:
        """How many of the messages published so far, from the first one on, every attached service has stored."""
        return self._publisher.buffer.acknowledged

    @property
    def all_acknowledged(self) -> bool:
        """Whether every attached service has stored everything published so far; also told after `close`."""
        return self._waiting.all_acknowledged

    def close(self) -> None:
        """Stop publishing and free the endpoint; at once, whoever has not got everything."""
        self._closed = True
        self._hub.close()
        if self._own_context is not None:
            self._own_context.term()

    def __enter__(self) -> Acquisition:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        try:
            if not self._closed and not isinstance(value, TransportError):
                self._waiting.part(PARTING_S)
        finally:
            self.close()
        return False

    def _announce(self, start: m.ScanStart) -> None:
        """Publish a scan's start; from now on only the verdict on this very one counts."""
        if self.recorded:
            self._wait_for_room()
        try:
            with self._waiting.changed:  # no verdict is looked at meanwhile
                self._verdicts.pop(start.scan_id, None)
                header = decode(self._hub.publish(self.session, start), self._limits).header
                assert isinstance(header, m.ScanStart)
                self._started[start.scan_id] = header.seq
        except WireError as e:
            raise SourceError(f"the scan's plan cannot be sent: {e.detail}") from e

    def _send(self, header: m.OfScan, arrays: tuple[NDArray[Any], ...], codec: str) -> None:
        self._hub.publish(self.session, header, arrays, codec=codec)

    def _tell(self, peer: bytes, word: m.Talk) -> None:
        self._hub.tell(peer, word)

    def _on_talk(self, talk: m.Talk) -> None:
        """Take a verdict, if it is on the latest start of its scan; it may come any number of times."""
        with self._waiting.changed:
            if isinstance(talk, m.Verdict):
                start = self._publisher.epoch, self._started.get(talk.scan_id)
                if (talk.epoch, talk.seq) == start:
                    self._verdicts[talk.scan_id] = talk
            self._waiting.heard(talk)

    def _wait_for_room(self) -> None:
        buffer, most = self._publisher.buffer, self._limits.unacknowledged_bytes
        self._waiting.progress(lambda: buffer.unacknowledged_bytes < most, STALL_S)
