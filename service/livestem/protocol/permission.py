"""What each role may ask a publisher for: who is let in, and what each is answered.

============  ====================  ===================
request       at an adapter (acq)   at a service (res)
============  ====================  ===================
hello         as a role that it has, both
probe         whoever is let in, both
attach        service               nobody
ack           service               nobody
verdict       service               nobody
resend        service               observer, operator
snapshot      service               observer, operator
request_scan  operator              operator
============  ====================  ===================

Let in are, by their keys, ``service`` and ``operator`` at an adapter, ``observer`` and ``operator`` at a service. An
operator may observe. Where no keys guard a publisher it can only be reached from its own machine, and everybody there
has every role.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Literal

from livestem.wire import messages as m

Role = Literal["service", "operator", "observer"]
Stream = Literal["acq", "res"]

ROLES: tuple[Role, ...] = ("service", "operator", "observer")
ADMITTED: dict[Stream, frozenset[Role]] = {
    "acq": frozenset(["service", "operator"]),
    "res": frozenset(["observer", "operator"]),
}
_SERVICES: frozenset[Role] = frozenset(["service"])
_OPERATORS: frozenset[Role] = frozenset(["operator"])
_FOLLOWERS: dict[Stream, frozenset[Role]] = {"acq": _SERVICES, "res": ADMITTED["res"]}
_CLAIMED: dict[Role, frozenset[Role]] = {
    "service": _SERVICES,
    "operator": _OPERATORS,
    "observer": frozenset(["observer", "operator"]),
}


def forbidden(stream: Stream, request: m.Talk, roles: Set[Role]) -> str | None:
    """Return why somebody of these roles is not answered, or None if they are.

    Parameters
    ----------
    stream : {"acq", "res"}
        Whose ROUTER it is: an adapter's or a service's.
    request : Talk
    roles : set of {"service", "operator", "observer"}
        That the asker's key has; those that are not let in here count for nothing.
    """
    has = roles & ADMITTED[stream]
    needed = _needed(stream, request)
    if needed is None or has & needed:
        return None
    asked = f"hello as {request.role}" if isinstance(request, m.Hello) else m.tag_of(request)
    wanted = " or ".join(role for role in ROLES if role in needed) or "nobody"
    return f"{asked} is for {wanted} here; your key is let in as {' and '.join(sorted(has)) or 'nothing'}"


def _needed(stream: Stream, request: m.Talk) -> frozenset[Role] | None:
    """Return the roles of which one is needed; None if being let in is enough."""
    if isinstance(request, m.Hello):
        return _CLAIMED[request.role] & ADMITTED[stream]
    if isinstance(request, m.Attach | m.Ack | m.Verdict):
        return _SERVICES & ADMITTED[stream]
    if isinstance(request, m.Resend | m.Snapshot):
        return _FOLLOWERS[stream]
    if isinstance(request, m.RequestScan):
        return _OPERATORS
    return None
