"""Recorded files and watched folders, as domain types: a `ScanPlan` and tiles. No sockets, no wire."""

from __future__ import annotations

from livestem.sources.folder import Watched
from livestem.sources.opening import open_recording
from livestem.sources.recording import Recording

__all__ = ["Recording", "Watched", "open_recording"]
