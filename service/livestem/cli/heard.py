"""What a subscriber has heard of one scan, for the demo's report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from livestem.wire import messages as m

if TYPE_CHECKING:
    from livestem.wire.codec import Message


class Heard:
    """What the subscriber has heard."""

    def __init__(self) -> None:
        self.session = ""
        self.live = 0
        self.last_live: Message | None = None
        self.maps: dict[tuple[str, str], Message] = {}
        self.agreement: dict[str, dict[str, float | None]] = {}
        self.regions: dict[tuple[str, str], Any] = {}
        self.registration: m.Registration | None = None
        self.coverage: Message | None = None
        self.done: m.ScanDone | None = None
        self.finals_s = 0.0

    def take(self, message: Message | None) -> None:
        """Note a message, if there is one."""
        if message is None:
            return
        header = message.header
        if isinstance(header, m.Live):
            self.live += 1
            if header.method is not None:
                self.last_live = message
        elif isinstance(header, m.CoverageMap):
            self.coverage = message
        elif isinstance(header, m.Registration):
            self.registration = header
        elif isinstance(header, m.Segmentation):
            self.maps[header.method, header.modality] = message
        elif isinstance(header, m.Agreement):
            self.agreement = header.agreement
        elif isinstance(header, m.Descriptors):
            self.regions[header.method, header.modality] = header.regions
        elif isinstance(header, m.ScanDone):
            self.done = header
