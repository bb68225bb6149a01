"""How the service is: what a look at it found, and what follows from that.

Three questions, as supervisors and people ask them:

=========  ==========================  ==================================================  ======================
question   asked by                    yes while                                           a no asks for
=========  ==========================  ==================================================  ======================
live       `/health/live`, systemd     every thread lives, and those that must turn, turn  a restart
ready      `/health/ready`, scripts    live, its libraries loaded, open scans resumed,     patience
                                       nothing blocks it, and it is not stopping
ok         `/health`, the container    none of the reasons below holds                     a person
=========  ==========================  ==================================================  ======================

Waiting for an instrument is no reason: that is what a service does most of the day.

==========  ==================================================================================================
reason      holds while
==========  ==================================================================================================
`thread`    a thread has died of a fault of ours; `serve` then ends by itself, with exit code 1
`stuck`     ingest or the result sockets have not turned for `STUCK_S`: a disk or a processor that hangs
`store`     the store cannot be written: data wait with the adapters, finals wait with us, nothing is dropped
`disk`      less than `limits.free_disk_bytes` is free; new scans are refused
`finals`    more scans wait for their finals than may be open: computing does not keep up with scanning
`adapter`   nothing has been heard for `SILENT_S` from the adapter of a scan that is open
`compute`   live maps are more than a frame behind what has come (`livestem.runtime.lag`); finals are right even so
==========  ==================================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from livestem.domain.limits import Limits
from livestem.runtime.lag import Lag

STUCK_S = 30.0  # both threads turn every 20 ms; even a commit to a tired network disk is over by then
SILENT_S = 10.0  # adapters send a heartbeat every second; ten of them missed is no hiccup

ReasonName = Literal["thread", "stuck", "store", "disk", "finals", "adapter", "compute"]
REASON_NAMES: tuple[ReasonName, ...] = get_args(ReasonName)


@dataclass(frozen=True, kw_only=True)
class Vitals:
    """What one look at the service found; every gauge is made of it.

    Attributes
    ----------
    dead : what was said of each thread that has died
    quiet_s : since ingest or the result sockets last turned, whichever is longer ago
    warm : whether what an earlier start left open is resumed, and the libraries that a scan needs are loaded
    stopping : whether it has been asked to stop
    blocked : why the store cannot be written just now
    disk_free_bytes, store_bytes : of the store's disk, and of the store
    resend_bytes : kept of results, to be sent again
    open_scans : scans that data may still come for
    finals_waiting : scans whose finals wait or are under way
    adapters, attached : adapters of the configuration, and those that are followed now
    subscriptions : to results
    silent_s : since anything was heard of the open scan that has been silent longest; 0 with none open
    lag : of the open scan whose live maps are furthest behind
    result_age_s : since the newest live message of the open scan that has waited longest; 0 with none open
    missing_open : rectangles missing from open scans, of frames before the newest
    """

    dead: tuple[str, ...] = ()
    quiet_s: float = 0.0
    warm: bool = True
    stopping: bool = False
    blocked: str | None = None
    disk_free_bytes: int
    store_bytes: int = 0
    resend_bytes: int = 0
    open_scans: int = 0
    finals_waiting: int = 0
    adapters: int = 1
    attached: int = 0
    subscriptions: int = 0
    silent_s: float = 0.0
    lag: Lag = Lag()
    result_age_s: float = 0.0
    missing_open: int = 0


@dataclass(frozen=True)
class Health:
    """The answers; `reasons` says in words why it is degraded, by the reason's name."""

    live: bool
    ready: bool
    reasons: dict[ReasonName, str]
    vitals: Vitals = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.reasons

    def as_json(self) -> dict[str, Any]:
        """Return what `/health` answers."""
        vitals = self.vitals
        return {
            "status": "ok" if self.ok else "degraded",
            "live": self.live,
            "ready": self.ready,
            "reasons": self.reasons,
            "open_scans": vitals.open_scans,
            "finals_waiting": vitals.finals_waiting,
            "adapters": {"configured": vitals.adapters, "attached": vitals.attached},
        }


def judge(vitals: Vitals, limits: Limits) -> Health:
    """Return what follows from a look at the service."""
    live = not vitals.dead and vitals.quiet_s < STUCK_S
    reasons = _reasons(vitals, limits)
    return Health(
        live=live,
        ready=live and vitals.warm and not vitals.stopping and not reasons.keys() & {"store", "disk"},
        reasons=reasons,
        vitals=vitals,
    )


def _reasons(vitals: Vitals, limits: Limits) -> dict[ReasonName, str]:
    found: dict[ReasonName, str] = {}
    if vitals.dead:
        found["thread"] = "; ".join(vitals.dead)
    if vitals.quiet_s >= STUCK_S:
        found["stuck"] = (
            f"no thread may rest so long: {vitals.quiet_s:.0f} s without a turn; is the store's disk there?"
        )
    if vitals.blocked is not None:
        found["store"] = vitals.blocked
    if vitals.disk_free_bytes < limits.free_disk_bytes:
        free, wanted = vitals.disk_free_bytes // 2**20, limits.free_disk_bytes // 2**20
        found["disk"] = f"{free} MiB free on the store's disk, {wanted} wanted: new scans are refused; make room"
    if vitals.finals_waiting > limits.open_scans:
        found["finals"] = (
            f"{vitals.finals_waiting} scans wait for their finals: scans come faster than they are computed"
        )
    if vitals.silent_s >= SILENT_S:
        found["adapter"] = f"nothing heard for {vitals.silent_s:.0f} s from the adapter of a scan that is open"
    if vitals.lag.too_much:
        found["compute"] = f"{vitals.lag.words}: live maps are late or left out; no data are, and finals are right"
    return found
