"""One table of limits: what each bounds, and what happens when it is reached."""

from __future__ import annotations

import msgspec

MIB = 2**20


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on what a peer can make us hold or do; every one can be set in the configuration.

    ============================  ==============================================================
    limit                         when it is reached
    ============================  ==============================================================
    header_bytes                  the message is dropped and counted (``limit``)
    talk_bytes                    likewise: the header of what is not a result
    message_bytes                 likewise; checked again on the *decompressed* size, before it
    message_frames                likewise: topic, header, payloads and check together
    pixels                        the scan is refused: rows x columns of one modality
    channels                      the scan is refused: channels of an energy axis
    chips                         the scan is refused, with the chip size that would fit
    classes                       the scan is refused: classes of a support set
    planned_frames                the scan is refused; of an open-ended one, tiles beyond are dropped (``limit``)
    tiles                         further tiles of the scan are dropped (``limit``)
    accumulator_bytes             the scan is refused; estimated from the plan at `scan_start`
    finals_bytes                  the scan is refused, with the chip size that would fit; estimated likewise
    free_disk_bytes               the scan is refused while less than this would be left
    subscribers                   a further client's `hello` is refused until one has been silent for ten seconds; a
                                  further connection to results until one is closed (``limit``)
    subscriber_queue              what is newer is dropped for who does not read: live maps for good, finals come again
    open_scans                    an open scan that is silent for 10 s is finished; else a further one is refused
    waiting_tiles                 the oldest early tile (before its `scan_start`) is dropped and counted (``limit``)
    waiting_bytes                 likewise; what is dropped is asked for again at the scan's end
    sessions                      the one that was begun longest ago, of those without an open scan, is let go
    services                      a further one is refused
    unacknowledged_bytes          a recorded source waits; an instrument's oldest acknowledged data go first
    resend_bytes                  the oldest acknowledged message is forgotten and answered ``gone``
    snapshot_page_bytes           an answer to ``resend`` stops there; the rest when asked again
    held_bytes                    what a subscriber holds back behind a gap: newer ones are let go and asked for again
    ============================  ==============================================================
    """

    header_bytes: int = 8 * MIB  # descriptors of a thousand regions, as the mode threshold makes, take 2 MB
    talk_bytes: int = MIB  # a support set with every chip of a full grid takes 150 kB, 4096 rectangles 180 kB
    message_bytes: int = 64 * MIB  # a 4k x 4k float32 frame in one piece
    message_frames: int = 8
    pixels: int = 4096 * 4096
    channels: int = 16384
    chips: int = 65536
    classes: int = 64
    planned_frames: int = 100_000
    tiles: int = 2_000_000  # of a scan; each is remembered with 250 bytes; 10 000 frames of 1024 rows, 8 at a time
    # Memory of one scan, so that no legal one ends a service on a machine of 24 GiB: its sums, a copy of them while
    # finals are made, the finals, and 1 GiB of everything else: 4 + 4 + 12 + 1. Nothing that the limits above allow
    # has sums of more than 3 GiB.
    accumulator_bytes: int = 4 * 1024 * MIB
    finals_bytes: int = 12 * 1024 * MIB  # 16 000 chips by default, 9 700 as published (`livestem.runtime.appetite`)
    free_disk_bytes: int = 512 * MIB
    subscribers: int = 128
    subscriber_queue: int = 100  # messages: four seconds of live maps at the usual interval
    open_scans: int = 4
    waiting_tiles: int = 1024
    waiting_bytes: int = 64 * MIB  # the largest message, once
    sessions: int = 64  # followed at one publisher, or published by one; finals stay in the store
    services: int = 16  # attached to one adapter at a time; each may hold back what the others have acknowledged
    unacknowledged_bytes: int = 32 * MIB
    resend_bytes: int = 256 * MIB
    snapshot_page_bytes: int = 8 * MIB
    held_bytes: int = 32 * MIB  # the finals of some scans; one answer to ``resend`` fits several times


DEFAULT_LIMITS = Limits()
