"""A segmenter without sockets: the product's follower, life of a scan, repair by place and publisher; and its disk.

What is committed survives a kill: tiles and ends of scans, and finals, which are stored before they are sent. The
rest is what the service would have in memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from benchmarks.reliability.adapters import Scan
from benchmarks.reliability.link import Link
from benchmarks.reliability.served import SESSION, Served

from livestem.domain import life
from livestem.protocol.desk import Desk
from livestem.protocol.follower import Answered, Ask, Deliver, Effect, Follower
from livestem.protocol.publisher import Numbered, Publisher
from livestem.protocol.repair import Repair
from livestem.protocol.resend import Frames
from livestem.wire import messages as m
from livestem.wire.codec import Message, encode

COMMIT_S = 0.05  # between commits of the journal; a kill takes what came since
VANISH_S = 5.0  # of virtual time: well beyond the longest silence that a case makes
PRESENT_S = 0.6  # without a heartbeat: nobody is there to be asked


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
        self._scans: dict[str, _Open] = {}

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

    @property
    def open(self) -> bool:
        """Whether a scan is open, in memory or on the disk."""
        return bool(self._scans or self.disk.scans)

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


def copy_of(scan: _Open, now: float) -> _Open:
    """Return a copy that shares nothing that changes."""
    return _Open(dict(scan.tiles), scan.life, scan.end, scan.epoch, now, scan.scan_id)
