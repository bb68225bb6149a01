"""When a service that has started does nothing more: what it loads then would be measured, too."""

from __future__ import annotations

import time

from benchmarks.reliability.processes import Service

_TURNS, _TURN_S = 120, 0.5
_REST = 0.1  # of a core, for as long as a turn


def at_rest(service: Service) -> float:
    """Wait until a service that has started does nothing more; return its processor time, s."""
    last = service.metric("process_cpu_seconds_total")
    for _ in range(_TURNS):
        time.sleep(_TURN_S)
        now = service.metric("process_cpu_seconds_total")
        if now - last < _REST * _TURN_S:
            return now
        last = now
    raise RuntimeError("the service does not come to rest")
