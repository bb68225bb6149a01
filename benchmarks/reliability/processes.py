"""Real services for the proof, started in the way of the system tests, and a proxy at each of their four places."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.reliability.proxy import Proxy

_TESTS = Path(__file__).parents[2] / "tests"
sys.path += [str(_TESTS), str(_TESTS / "system")]  # the tests' own tools are no package

from processes import Service, end, run, start, wait_for  # noqa: E402

from ports import free_pairs  # noqa: E402

__all__ = ["PLACES", "Digests", "Proxied", "Service", "digests", "end", "proxied", "run", "start", "wait_for"]

PLACES = ("adapter's PUB", "adapter's ROUTER", "service's XPUB", "service's ROUTER")
Digests = tuple[str, str]


def digests(result: dict[str, Any]) -> Digests:
    """Return what runs of one scan share if nothing was lost or spoilt: of the data counted in, of the label maps."""
    return result["input_digest"], result["digest"]


@dataclass(frozen=True)
class Proxied:
    """A service whose every connection goes through a proxy.

    Attributes
    ----------
    service : the running service
    bind : where an adapter binds, so that the service finds it through the proxies
    results : where a subscriber finds the service through the proxies
    proxies : by place
    """

    service: Service
    bind: str
    results: str
    proxies: dict[str, Proxy]

    def calm(self) -> None:
        """End whatever the proxies do."""
        for proxy in self.proxies.values():
            proxy.calm()


@contextmanager
def proxied(folder: Path, *flags: object) -> Iterator[Proxied]:
    """Start a service between proxies; end all at the end."""
    bind, results = free_pairs(2)
    with ExitStack() as stack:
        service = stack.enter_context(Service(folder, *flags))
        seen, published = (int(e.rsplit(":", 1)[1]) for e in (service.acquisition, service.results))
        ports = ((seen, bind), (seen + 1, bind + 1), (results, published), (results + 1, published + 1))
        proxies = {
            place: stack.enter_context(Proxy(listen, target))
            for place, (listen, target) in zip(PLACES, ports, strict=True)
        }
        yield Proxied(service, f"tcp://127.0.0.1:{bind}", f"tcp://127.0.0.1:{results}", proxies)
