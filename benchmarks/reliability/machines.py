"""An adapter, a service and an observer without sockets: the state machines of the product, and what survives a kill.

=========  ==========================================================  ===============================================
machine    of the product                                              survives its kill
=========  ==========================================================  ===============================================
adapter    `Publisher`, `Remaker`, `Desk`                              the scan, if it is recorded: it is sent again
service    `Follower` (attach), `ScanLife`, `Beam`, `Repair`,          what is committed: tiles and ends of scans, and
           `Publisher`, `Desk`                                         the finals, stored before they are sent
observer   `Follower` (snapshot, ordered)                              nothing: it comes as a new one
=========  ==========================================================  ===============================================

A scan is a column of one-pixel tiles whose value tells which one it is, so that a tile that was taken for another, or
whose content was spoilt on the way, is found out at the end.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from benchmarks.reliability.link import Link
from numpy.typing import NDArray

from livestem.client.remake import Remaker
from livestem.domain import life
from livestem.domain.errors import WireError
from livestem.domain.limits import DEFAULT_LIMITS, Limits
from livestem.domain.tiles import HaadfTile
from livestem.protocol.desk import Desk
from livestem.protocol.follower import Answered, Ask, Deliver, Effect, Follower, Lost
from livestem.protocol.publisher import Numbered, Publisher
from livestem.protocol.repair import Repair
from livestem.protocol.resend import Frames
from livestem.wire import messages as m
from livestem.wire.codec import Message, decode, encode

SESSION = "s1"
BEAT_S = 0.2  # a real hub beats every second; the faster one only shortens the cases
COMMIT_S = 0.05  # between commits of the journal; a kill takes what came since
VANISH_S = 5.0  # of virtual time: well beyond the longest silence that a case makes
WINDOW = 6  # messages that a recorded source keeps unacknowledged
PRESENT_S = 0.6  # without a heartbeat: nobody is there to be asked


@dataclass(frozen=True)
class Scan:
    """A scan of so many tiles."""

    name: str
    tiles: int

    def value(self, tile: int) -> int:
        """Return what a tile's one pixel holds."""
        return hash((int(self.name[4:]), tile)) % 60_000 + 1

    def tiles_of(self, frame: int) -> Iterator[HaadfTile]:
        """Yield the tiles once more."""
        for tile in range(self.tiles):
            yield HaadfTile(frame=frame, y=tile, x=0, values=np.array([[self.value(tile)]], dtype="<u2"))

    def messages(self) -> Iterator[tuple[m.OfScan, tuple[NDArray[Any], ...]]]:
        """Yield what is sent, end and all."""
        for tile in range(self.tiles):
            header = m.HaadfRows(scan_id=self.name, frame=0, y=tile, x=0)
            yield header, (np.array([[self.value(tile)]], dtype="<u2"),)
        totals = {"frames": 1, "haadf_tiles": self.tiles, "eds_tiles": 0, "eds_counts": 0}
        yield m.ScanEnd(scan_id=self.name, status="complete", **totals), ()  # type: ignore[arg-type]


class Served:
    """A hub without sockets: a desk that answers through a link, and beats."""

    def __init__(self, link: Link, epoch: int, desk: Desk, family: str) -> None:
        self.link, self.epoch, self.desk, self._family = link, epoch, desk, family
        self._beat_at = 0.0

    def tick(self, now: float) -> None:
        """Beat if it is time."""
        if now >= self._beat_at:
            self._beat_at = now + BEAT_S
            for publisher in self.desk.published.values():
                self.link.send("pub", publisher.heartbeat())

    def request(self, request: m.Talk) -> None:
        """Answer as a hub does."""
        if isinstance(request, m.Hello):
            self.link.send("reply", encode(msgspec.structs.replace(self.desk.welcome(request), epoch=self.epoch)))
        elif isinstance(request, m.Probe):
            self.link.send("pub", encode(m.Echo(nonce=request.nonce, epoch=self.epoch), stream=self._family))
        elif (publisher := self.desk.find(request.session)) is not None:
            for out in publisher.on_request(b"f", request):
                self.link.send("pub" if out.peer is None else "reply", out.frames)
        elif not isinstance(request, m.Ack):
            self.link.send("reply", encode(m.Refusal(request_id=request.request_id, reason="no such session")))


class Adapter:
    """A source of scans, one after the other.

    A recorded one waits for acknowledgements, ends when its last scan is acknowledged, and after a kill sends the scan
    at hand again. An instrument never waits; a scan that a kill broke off stays broken off.
    """

    def __init__(self, link: Link, scans: Sequence[Scan], *, recorded: bool, limits: Limits = DEFAULT_LIMITS) -> None:
        self.scans, self.recorded = list(scans), recorded
        self._link, self._limits = link, limits
        self._at = 0  # the scan at hand
        self._hub: Served | None = None
        self.sent: dict[tuple[str, int], tuple[int, int]] = {}  # tile -> (epoch, seq) of its newest sending
        self.excused: set[tuple[str, int]] = set()  # tiles that nobody can have: let go, or died with the program
        self.finished = False

    def start(self, epoch: int) -> None:
        """Start the program."""
        self._remaker = Remaker(self._send, self._tell)
        for scan in self.scans if self.recorded else ():
            self._remaker.offer(scan.name, scan.tiles_of)
        self._publisher = Publisher(
            SESSION, "acq", epoch, lambda: 0, limits=self._limits, remake=self._remaker.take if self.recorded else None
        )
        desk = Desk("acquisition")
        desk.published[SESSION] = self._publisher
        self._hub = Served(self._link, epoch, desk, "acq")
        self._left = list(self.scans[self._at].messages()) if self._at < len(self.scans) else []
        self._end_seq: int | None = None

    def kill(self) -> None:
        """Kill it: what was never acknowledged is gone with it, unless it is a recording."""
        if self._hub is None:
            return
        self._excuse_forgotten()
        if not self.recorded and self._at < len(self.scans):
            scan, acked = self.scans[self._at], self._publisher.buffer.acknowledged
            for tile in range(scan.tiles):
                epoch, seq = self.sent.get((scan.name, tile), (0, 0))
                if epoch != self._publisher.epoch or seq > acked:
                    self.excused.add((scan.name, tile))
            self._at += 1
        if not self.recorded:  # and of scans before it
            acked, epoch = self._publisher.buffer.acknowledged, self._publisher.epoch
            self.excused |= {key for key, (e, seq) in self.sent.items() if e == epoch and seq > acked}
        self._hub = None

    def step(self, now: float) -> None:
        """Do what the program does in one moment."""
        if self._hub is None:
            return
        self._hub.tick(now)
        self._remaker.serve()
        buffer = self._publisher.buffer
        if self._left and (not self.recorded or buffer.last_seq - buffer.acknowledged < WINDOW):
            self._send_next()
        elif not self._left and self._at < len(self.scans) and (not self.recorded or self._acknowledged):
            self._at += 1
            self._left = list(self.scans[self._at].messages()) if self._at < len(self.scans) else []
        if self.recorded and self._at == len(self.scans):
            self.finished, self._hub = True, None  # what `replay` does once everything is acknowledged
        elif self._at == len(self.scans):
            self.finished = True

    @property
    def running(self) -> bool:
        """Whether the program runs."""
        return self._hub is not None

    def hear(self, request: m.Talk) -> None:
        """Take a request from the ROUTER."""
        if self._hub is not None:
            self._hub.request(request)

    @property
    def sent_all(self) -> tuple[int, int] | None:
        """Return the epoch and the last seq of a program that has sent all and still runs; None otherwise."""
        return None if self._hub is None else (self._publisher.epoch, self._publisher.buffer.last_seq)

    def close_books(self) -> None:
        """Note what the buffer has let go of by the end."""
        if self._hub is not None:
            self._excuse_forgotten()

    @property
    def _acknowledged(self) -> bool:
        return self._publisher.buffer.acknowledged >= self._publisher.buffer.last_seq

    def _send_next(self) -> None:
        self._send(*self._left.pop(0))

    def _tell(self, peer: bytes, word: m.Talk) -> None:
        origin = {"session": SESSION, "epoch": self._publisher.epoch}
        self._link.send("reply", encode(msgspec.structs.replace(word, **origin)))

    def _send(self, header: m.OfScan, arrays: tuple[NDArray[Any], ...], codec: str = "raw") -> None:
        self._link.send("pub", self._publisher.publish(header, arrays, codec=codec))
        if isinstance(header, m.HaadfRows):
            self.sent[header.scan_id, header.y] = self._publisher.epoch, self._publisher.buffer.last_seq
        self._excuse_forgotten()

    def _excuse_forgotten(self) -> None:
        """A tile that the full buffer let go of before it was acknowledged cannot be had again."""
        buffer, epoch = self._publisher.buffer, self._publisher.epoch
        for key, (e, seq) in self.sent.items():
            if e == epoch and buffer.acknowledged < seq < buffer.first_seq and not self.recorded:
                self.excused.add(key)


@dataclass
class _Open:
    """A scan in the service's memory."""

    tiles: dict[int, int] = field(default_factory=dict)  # tile -> value
    life: life.ScanLife = life.ScanLife()
    end: m.ScanEnd | None = None
    epoch: int = 0
    heard: float = 0.0
    scan_id: str = ""
    repair: Repair | None = None

    @property
    def ended_by(self) -> int | None:
        return None if self.end is None else self.end.epoch


@dataclass
class Disk:
    """What survives a kill of the service."""

    scans: dict[str, _Open] = field(default_factory=dict)  # of scans that are not finished
    finished: dict[str, dict[int, int]] = field(default_factory=dict)  # tiles that the finals were made of
    missing: dict[str, tuple[int, ...]] = field(default_factory=dict)  # as the finals told it
    finished_by: dict[str, int] = field(default_factory=dict)  # epoch of the source whose data came last
    results: dict[int, dict[int, Frames]] = field(default_factory=dict)  # epoch -> seq -> frames


class Service:
    """The segmenter: follows the adapter, keeps what it gets, finishes scans, publishes their finals."""

    def __init__(self, acquisition: Link, results: Link, scans: Sequence[Scan]) -> None:
        self._acquisition, self._results = acquisition, results
        self._tiles = {scan.name: scan.tiles for scan in scans}
        self.disk, self.running = Disk(), False
        self.kill_before_sending = False
        self._ids = (f"s{i}" for i in itertools.count())

    def start(self, epoch: int, now: float) -> None:
        """Start, with what the disk holds."""
        self.running, self._committed_at = True, now
        self._follower = Follower(role="service", take="attach", ids=self._ids)
        self._beam = life.Beam()
        self._scans = {name: copy_of(scan, now) for name, scan in self.disk.scans.items()}
        self._hub = Served(self._results, epoch, Desk("segmenter"), "res")
        self._hub.desk.published[SESSION] = self._publisher(epoch)
        for name in list(self._scans):
            self._go_on(name, self._scans[name])

    def kill(self) -> None:
        """Kill it."""
        self.running = False

    def has(self, epoch: int, seq: int) -> bool:
        """Return whether everything of the adapter up to there is here, or known to be lost."""
        gaps = self._follower.gaps(SESSION)
        return gaps is not None and self._follower.epoch(SESSION) == epoch and gaps.contiguous >= seq

    def step(self, now: float) -> None:
        """Do what its threads do in one moment."""
        if not self.running:
            return
        self._hub.tick(now)
        self._take(self._follower.tick(now), now)
        if now - self._committed_at >= COMMIT_S:
            self._committed_at = now
            self._commit(now)
        for name, scan in list(self._scans.items()):
            if now - scan.heard > VANISH_S:
                self._event(name, scan, life.NothingMoreComes())

    def published(self, message: Message, now: float) -> None:
        """Take a message from the adapter's PUB."""
        if self.running:
            self._take(self._follower.published(message, now), now)

    def replied(self, message: Message, now: float) -> None:
        """Take a reply from the adapter's ROUTER."""
        if self.running:
            self._take(self._follower.replied(message, now), now)

    def hear(self, request: m.Talk) -> None:
        """Take a request from an observer."""
        if self.running:
            self._hub.request(request)

    def _publisher(self, epoch: int) -> Publisher:
        kept = self.disk.results

        def older(epoch: int, first: int, last: int) -> list[tuple[int, Frames]]:
            return [(s, f) for s in range(first, last + 1) if (f := kept.get(epoch, {}).get(s)) is not None]

        def keep(messages: Sequence[Numbered]) -> None:
            kept.setdefault(epoch, {}).update((n.header.seq, n.frames) for n in messages)  # type: ignore[attr-defined]

        earlier = [
            m.Stream(session=SESSION, epoch=e, first_seq=min(found), last_seq=max(found))
            for e, found in kept.items()
            if found
        ]
        return Publisher(SESSION, "res", epoch, lambda: 0, older=older, keep=keep, earlier=earlier)

    def _take(self, effects: list[Effect], now: float) -> None:
        for effect in effects:
            if isinstance(effect, Ask):
                self._acquisition.send("request", encode(effect.header))
            elif isinstance(effect, Deliver):
                header = effect.message.header
                for scan in self._scans.values():
                    if self._beam.counts_for(header.epoch, scan):
                        scan.heard = now
                if isinstance(header, m.HaadfRows | m.ScanEnd):
                    self._apply(header, effect.message, now)
            elif isinstance(effect, Answered):
                scan = self._scans.get(effect.asked.scan_id or "")
                if scan is not None and scan.repair is not None:
                    scan.repair.answered(effect.answer, effect.asked, now)

    def _apply(self, header: m.HaadfRows | m.ScanEnd, message: Message, now: float) -> None:
        name = header.scan_id
        self._beam.moved(header.epoch, header.seq, name)
        if name in self.disk.finished and not self._reopened(name, header.epoch):
            return
        scan = self._scans.setdefault(name, _Open(scan_id=name))
        scan.epoch, scan.heard = header.epoch, now
        if isinstance(header, m.ScanEnd):
            if scan.end is None or scan.end.epoch != header.epoch:  # a source that began again mends what it ends
                scan.end, scan.repair = header, None
                self._event(name, scan, life.EndArrived(header.haadf_tiles))
        elif header.y not in scan.tiles:
            scan.tiles[header.y] = int(message.arrays[0][0, 0])
            if scan.repair is not None:
                scan.repair.tile_came(0, now)
            self._event(name, scan, life.TileApplied())

    def _reopened(self, name: str, epoch: int) -> bool:
        """Take up a finished scan that lacks something, if its source has started again and sends it once more."""
        if name in self._scans:
            return True
        if not self.disk.missing[name] or epoch == self.disk.finished_by[name]:
            return False
        scan = self._scans[name] = _Open(dict(self.disk.finished[name]), scan_id=name)
        scan.life = life.ScanLife(tiles=len(scan.tiles))
        return True

    def _event(self, name: str, scan: _Open, event: life.Event) -> None:
        scan.life, effects = scan.life.on(event)
        if effects and self.running:
            self._commit_data()
            self._finish(name, scan)

    def _go_on(self, name: str, scan: _Open) -> None:
        """After a start: a scan whose data were all here has its finals made now."""
        scan.life = life.ScanLife()
        for _ in scan.tiles:
            self._event(name, scan, life.TileApplied())
        if scan.end is not None:
            self._event(name, scan, life.EndArrived(scan.end.haadf_tiles))

    def _finish(self, name: str, scan: _Open) -> None:
        """Store the finals, all at once with the word that the scan is done; then send them."""
        missing = tuple(y for y in range(self._tiles[name]) if y not in scan.tiles)
        done = m.ScanDone(
            scan_id=name,
            status="incomplete" if missing else "complete",
            coverage=m.Coverage(haadf=len(scan.tiles) / self._tiles[name]),
            missing_tiles=tuple(m.MissingTile(modality="haadf", frame=0, y=y, h=1) for y in missing),
            input_digest="0" * 64,
            digest="0" * 64,
            timings_s={},
        )
        publisher = self._hub.desk.published[SESSION]
        frames = publisher.publish_all([(m.Agreement(scan_id=name, agreement={}), ()), (done, ())])
        self.disk.finished[name], self.disk.missing[name] = dict(scan.tiles), missing
        self.disk.finished_by[name] = scan.epoch
        self.disk.scans.pop(name, None)
        del self._scans[name]
        if self.kill_before_sending:
            self.kill_before_sending = False
            self.kill()
            return
        for sent in frames:
            self._results.send("pub", sent)

    def _commit(self, now: float) -> None:
        """Commit and acknowledge: the end of a scan once everything that can be had of it is here."""
        ack = self._follower.acknowledged(SESSION)
        if ack is None:
            return
        self._commit_data()
        ended = [s for s in self._scans.values() if s.end is not None and s.end.epoch == ack.epoch]
        safe = min([ack.seq, *(scan.end.seq - 1 for scan in ended if scan.end is not None)])
        self._acquisition.send("request", encode(msgspec.structs.replace(ack, seq=safe)))
        for scan in ended:
            if scan.end is not None and ack.seq >= scan.end.seq:
                self._mend(scan, now)

    def _mend(self, scan: _Open, now: float) -> None:
        """Ask by place for what an ended scan lacks; end it once there is nothing left to be asked."""
        scan.repair = scan.repair or Repair([0])
        wanted = scan.repair.wanted(lambda frame: self._holes(scan), now) if now - scan.heard < PRESENT_S else None
        if wanted is not None:
            asked = self._follower.ask_places(SESSION, scan.scan_id, *wanted)
            self._acquisition.send("request", encode(asked))
        elif scan.repair.over:
            self._event(scan.scan_id, scan, life.NothingMoreComes())

    def _holes(self, scan: _Open) -> list[m.Rectangle]:
        absent = (y for y in range(self._tiles[scan.scan_id]) if y not in scan.tiles)
        return [m.Rectangle(modality="haadf", y=y, x=0, h=1, w=1) for y in absent]

    def _commit_data(self) -> None:
        for name, scan in self._scans.items():
            self.disk.scans[name] = copy_of(scan, scan.heard)


class Observer:
    """A controller: what it was told, in order."""

    def __init__(self, link: Link, ids: Iterator[str]) -> None:
        self._link = link
        self._follower = Follower(role="observer", take="snapshot", ids=ids, ordered=True)
        self.got: list[tuple[int, int]] = []  # (epoch, seq)
        self.done: dict[str, list[int]] = {}  # scan -> tiles that were told missing
        self.lost: list[Lost] = []

    def step(self, now: float) -> None:
        """Ask for what is due."""
        self._take(self._follower.tick(now))

    def published(self, message: Message, now: float) -> None:
        """Take a message from the service's PUB."""
        self._take(self._follower.published(message, now))

    def replied(self, message: Message, now: float) -> None:
        """Take a reply from the service's ROUTER."""
        self._take(self._follower.replied(message, now))

    def _take(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Ask):
                self._link.send("request", encode(effect.header))
            elif isinstance(effect, Lost):
                self.lost.append(effect)
            elif isinstance(effect, Deliver) and isinstance(effect.message.header, m.Reliable):
                header = effect.message.header
                self.got.append((header.epoch, header.seq))
                if isinstance(header, m.ScanDone):
                    self.done[header.scan_id] = [t.y for t in header.missing_tiles]


def copy_of(scan: _Open, now: float) -> _Open:
    """Return a copy that shares nothing that changes."""
    return _Open(dict(scan.tiles), scan.life, scan.end, scan.epoch, now, scan.scan_id)


def opened(frames: Frames) -> Message | None:
    """Return a message that arrived; None if it cannot be read, as every owner of sockets drops it."""
    try:
        return decode(list(frames))
    except WireError:
        return None
