"""The subscriber of `live_latency`: notes when each live map came, and what it says of itself; ends with the scan.

Writes JSON: a list of `Heard`. The clock is the one that all processes of this machine share.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import msgspec

from livestem.client import Subscriber
from livestem.wire import messages as m

SILENT_S = 120.0  # finals of the slowest preset are made in that, and then the scan is done


class Heard(msgspec.Struct, frozen=True):
    """One live message.

    Attributes
    ----------
    at : when it was received, s
    seq : the last data that it includes
    scored : whether it has a label map
    """

    at: float
    seq: int
    scored: bool


def main() -> None:
    """Listen to one scan, and write what was heard."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    heard: list[Heard] = []
    with Subscriber(asked.endpoint) as results:
        results.wait_subscribed(30.0)
        print("listening", flush=True)
        while (message := results.receive(SILENT_S)) is not None:
            header = message.header
            if isinstance(header, m.Live):
                heard.append(Heard(time.perf_counter(), header.watermark.seq, header.method is not None))
            elif isinstance(header, m.ScanDone):
                break
    asked.out.write_bytes(msgspec.json.encode(heard))


if __name__ == "__main__":
    main()
