"""Requests that are under way: each is repeated until it is answered, one of a kind for each session."""

from __future__ import annotations

from dataclasses import dataclass

from livestem.protocol.effects import Ask, Effect
from livestem.wire import messages as m


@dataclass
class _Pending:
    header: m.Talk
    patience_s: float
    asked_at: float | None = None


class Requests:
    """What was asked and not answered yet."""

    def __init__(self) -> None:
        self._pending: dict[tuple[type[m.Talk], str], _Pending] = {}

    def want(self, header: m.Talk, patience_s: float) -> None:
        """Ask this from the next `due` on, again every `patience_s`; it takes the place of one of its kind."""
        self._pending[type(header), header.session] = _Pending(header, patience_s)

    def be_patient(self, asked: m.Talk, patience_s: float) -> None:
        """Ask again, but only after so long."""
        self._pending[type(asked), asked.session].patience_s = patience_s

    def due(self, now: float) -> list[Effect]:
        """Return what is to be asked now, or again."""
        effects: list[Effect] = []
        for pending in self._pending.values():
            if pending.asked_at is None or now - pending.asked_at >= pending.patience_s:
                pending.asked_at = now
                effects.append(Ask(pending.header))
        return effects

    def waiting(self, request_id: str) -> m.Talk | None:
        """Return the request of this id, if it still waits for its answer."""
        return next((p.header for p in self._pending.values() if p.header.request_id == request_id), None)

    def settle(self, asked: m.Talk) -> None:
        """Note that a request needs no answer any more."""
        del self._pending[type(asked), asked.session]

    def forget_all_but(self, kind: type[m.Talk]) -> None:
        """Let go of everything else."""
        self._pending = {key: pending for key, pending in self._pending.items() if key[0] is kind}

    def under_way(self, kind: type[m.Talk], session: str | None = None) -> bool:
        """Whether a request of this kind waits, of one session or of any."""
        return any(k is kind and session in (None, s) for k, s in self._pending)
