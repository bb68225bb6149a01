"""What a follower asks of its owner, and what it tells the application."""

from __future__ import annotations

from dataclasses import dataclass

from livestem.wire import messages as m
from livestem.wire.codec import Message


@dataclass(frozen=True)
class Ask:
    """Send this through the DEALER."""

    header: m.Talk


@dataclass(frozen=True)
class Deliver:
    """A message for the application; `repaired` if it came by resend or snapshot."""

    message: Message
    repaired: bool = False


@dataclass(frozen=True)
class Tracking:
    """A stream is followed from here on; whatever is published next will be delivered or reported lost."""

    stream: m.Stream


@dataclass(frozen=True)
class Lost:
    """The publisher no longer has these; nothing will bring them back."""

    session: str
    first: int
    last: int


@dataclass(frozen=True)
class Answered:
    """A request by place has been answered: `resent` (delivered beside this), `gone`, `coming` or `refusal`."""

    answer: m.Talk
    asked: m.Resend


@dataclass(frozen=True)
class Refused:
    """The publisher will not serve us; a person must act."""

    reason: str


Effect = Ask | Deliver | Tracking | Lost | Answered | Refused
