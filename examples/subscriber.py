"""Follow a running `livestem serve`: print the finals of one scan. Runs anywhere; needs the base install only."""

import sys

from livestem.client import Subscriber
from livestem.wire import messages as m

with Subscriber(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5570") as results:
    for message in results:
        header = message.header
        if isinstance(header, m.Segmentation):
            labels = message.arrays[0]  # (rows, cols) int16; -1: no data
            print(f"{header.method}.{header.modality}: {labels.max() + 1} regions on {labels.shape} chips")
        elif isinstance(header, m.ScanDone):
            print(header.scan_id, header.status, header.digest[:16])
            break
