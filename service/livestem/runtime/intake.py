"""Intake: the sockets of every adapter, emptied into ingest; commits and acknowledgements at the right time.

Data are acknowledged only after the journal has them: every 20 ms or 4 MiB, and at least every second even when
nothing has come, so that the adapter knows we are alive. A scan's end is acknowledged once all that can be had of the
scan is here (`livestem.runtime.mending`). Decisions about scans are said more than once (`livestem.protocol.verdicts`).

While the store cannot be written (its disk is full) nothing is taken from any adapter, and each is told so: what waits
here is bounded, what is not acknowledged stays where it is, and every second it is tried again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import zmq

from livestem.client.connection import Connection
from livestem.domain.errors import StoreError
from livestem.domain.notices import notice
from livestem.protocol.follower import Answered, Deliver, Effect, Lost, Refused, Tracking
from livestem.protocol.verdicts import Verdicts
from livestem.runtime.disk import RETRY_S
from livestem.runtime.ingest import Ingest
from livestem.runtime.journal import COMMIT_BYTES
from livestem.runtime.notices import Notices
from livestem.runtime.settings import Settings
from livestem.wire import messages as m

log = logging.getLogger(__name__)

COMMIT_S = 0.02  # the design's
ACK_S = 1.0


@dataclass
class _Adapter:
    """One adapter: its connection, whose data it brings, and when and how far they were last committed."""

    connection: Connection
    session: str | None = None
    committed_at: float = 0.0
    fresh: bool = False
    safe: tuple[int, int] = (0, 0)  # epoch and seq that were committed last
    verdicts: Verdicts = field(default_factory=Verdicts)


class Intake:
    """Follows the adapters of the configuration; one thread owns it and takes turns.

    Parameters
    ----------
    context : zmq.Context
    settings : Settings
    ingest : Ingest
    on_verdict : callable
        Told of every decision about a scan, after the adapter.
    on_session : callable
        Called with a session's name before anything of it is applied.
    tell : Notices
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        settings: Settings,
        ingest: Ingest,
        on_verdict: Callable[[m.Verdict], None],
        on_session: Callable[[str], None],
        tell: Notices,
    ) -> None:
        self._ingest, self._vanish_s = ingest, settings.vanish_s
        self._on_verdict, self._on_session, self._tell = on_verdict, on_session, tell
        self.blocked: str | None = None  # why the store cannot be written just now
        self._tried_at = 0.0
        self._poller = zmq.Poller()
        self._adapters = []
        for endpoint in settings.acquisition:
            connection = Connection(
                context,
                endpoint,
                stream="acq",
                role="service",
                take="attach",
                name="segmenter",
                limits=settings.limits,
                on_rejected=ingest.reject,
                keys=settings.own_keys(),
                stored=ingest.stored,
            )
            connection.register(self._poller)
            self._adapters.append(_Adapter(connection))

    @property
    def configured(self) -> int:
        """Number of adapters of the configuration."""
        return len(self._adapters)

    @property
    def attached(self) -> int:
        """Number of adapters that we follow."""
        return sum(adapter.session is not None for adapter in self._adapters)

    def turn(self) -> None:
        """Wait at most a commit's time for something, and deal with it."""
        if self.blocked is not None:
            self._stand_still()
            return
        self._poller.poll(round(COMMIT_S * 1000))
        for adapter in self._adapters:
            for effect in adapter.connection.pump():
                self._take(adapter, effect)
            if not self._commit_if_due(adapter):
                return
        self._ingest.register()
        self._ingest.expire(time.monotonic(), self._vanish_s)
        self._write(self._ingest.hand_over)

    def close(self) -> None:
        """Commit what is here and close the sockets."""
        for adapter in self._adapters:
            self._commit(adapter)
            adapter.connection.close()

    def _stand_still(self) -> None:
        """Try once a second to write what waits; then go on as if no time had passed."""
        time.sleep(COMMIT_S)
        if time.monotonic() - self._tried_at < RETRY_S:
            return
        committed = [self._commit(adapter) for adapter in self._adapters]
        if all(committed) and self._write(self._ingest.hand_over):
            self.blocked = None
            self._ingest.listen_again()

    def _write(self, write: Callable[[], None]) -> bool:
        """Do a write; False, and nothing more is taken for now, if the store cannot take it."""
        try:
            write()
        except StoreError as e:
            self.block(e)
            return False
        return True

    def block(self, error: StoreError) -> None:
        """Take nothing more until what waits can be written."""
        self.blocked = f"{error}; until then nothing is taken from the adapters, and nothing is lost"
        self._tried_at = time.monotonic()

    def _take(self, adapter: _Adapter, effect: Effect) -> None:
        if isinstance(effect, Deliver):
            self._ingest.heard(effect.message.header.session, effect.message.header.epoch)
        if isinstance(effect, Deliver) and isinstance(effect.message.header, m.OfScan):
            adapter.fresh = True
            self._on_session(effect.message.header.session)
            adapter.verdicts.came(effect.message.header)
            for verdict in self._ingest.apply(effect.message, repaired=effect.repaired):
                adapter.connection.send(verdict)
                adapter.verdicts.said(verdict, time.monotonic())
                self._on_verdict(verdict)
        elif isinstance(effect, Tracking):
            adapter.session = effect.stream.session
            at = adapter.connection.endpoint.endpoint
            self._tell(
                "attached", f"attached to session {adapter.session} at {at}", session=adapter.session, endpoint=at
            )
        elif isinstance(effect, Lost):
            lost = effect.session, effect.first, effect.last
            told = notice("messages_lost", session=effect.session, first=effect.first, last=effect.last)
            log.warning("session %s: the sender has let messages %d to %d go", *lost, extra=told)
        elif isinstance(effect, Answered):
            adapter.fresh = True
            self._ingest.mending.answered(effect, time.monotonic())
        elif isinstance(effect, Refused):
            at = adapter.connection.endpoint.endpoint
            told = notice("adapter_refuses", endpoint=at, reason=effect.reason)
            log.error("the adapter at %s refuses: %s", at, effect.reason, extra=told)

    def _commit_if_due(self, adapter: _Adapter) -> bool:
        waited = time.monotonic() - adapter.committed_at
        due = waited >= (COMMIT_S if adapter.fresh else ACK_S) or self._ingest.uncommitted_bytes >= COMMIT_BYTES
        due |= adapter.fresh and self._ingest.due  # else the end of a frame would wait for its registration, too
        return self._commit(adapter) if due else True

    def _commit(self, adapter: _Adapter) -> bool:
        """Commit and acknowledge; False, with what is safe acknowledged once more, if the store cannot take it."""
        adapter.committed_at, adapter.fresh = time.monotonic(), False
        for verdict in adapter.verdicts.due(adapter.committed_at):
            adapter.connection.send(verdict)
        ack = None if adapter.session is None else adapter.connection.follower.acknowledged(adapter.session)
        if ack is None:
            return True
        session, epoch, seq = ack.session, ack.epoch, ack.seq
        safe = self._ingest.mending.acknowledgeable(session, epoch, seq)
        if self._write(lambda: self._ingest.commit(session, epoch, safe)):
            adapter.safe = epoch, safe
            adapter.connection.send(msgspec.structs.replace(ack, seq=safe, blocked=self.blocked or msgspec.UNSET))
            adapter.fresh = safe < seq  # the rest of the acknowledgement follows as soon as it may
            self._mend(adapter, ack)
            return True
        stored = adapter.safe[1] if adapter.safe[0] == epoch else 0
        adapter.connection.send(msgspec.structs.replace(ack, seq=stored, blocked=self.blocked or msgspec.UNSET))
        return False

    def _mend(self, adapter: _Adapter, ack: m.Ack) -> None:
        """Ask an adapter once more for what its ended scans lack."""
        for wanted in self._ingest.mend(ack.session, ack.epoch, ack.seq):
            place = wanted.scan_id, wanted.frame, wanted.rectangles
            adapter.connection.send(adapter.connection.follower.ask_places(ack.session, *place))
