"""The further subscribers of `subscribers`: each receives everything that a service publishes, and notes how much.

Bare sockets of one process, which take little of the machine: in a session each of them is a machine of its own. They
end when stdin is closed, and say in JSON what each has received: a list of `Received`.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import zmq

ROOT = Path(__file__).parents[2]
_TURN_MS = 100


class Received(msgspec.Struct):
    """What one subscriber has received: messages, bytes of them, live maps and ends of scans among them."""

    messages: int = 0
    nbytes: int = 0
    live: int = 0
    done: int = 0

    def take(self, frames: list[bytes]) -> None:
        """Count a message."""
        self.messages += 1
        self.nbytes += sum(map(len, frames))
        self.live += frames[0].endswith(b".live")
        self.done += frames[0].endswith(b".scan_done")


@contextlib.contextmanager
def crowd(endpoint: str, subscribers: int) -> Iterator[list[Received]]:
    """Have so many subscribers beside what is done; what they received is in the list afterwards."""
    found: list[Received] = []
    if not subscribers:
        yield found
        return
    command = [sys.executable, "-m", "benchmarks.performance.crowd", endpoint, str(subscribers)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")
    assert process.stdout is not None
    try:
        if process.stdout.readline().strip() != "listening":
            raise RuntimeError(f"{command} ended before it was listening")
        yield found
    finally:
        try:
            told, _ = process.communicate(timeout=60)  # closes stdin
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    found += msgspec.json.decode(told, type=list[Received])


def main() -> None:
    """Listen until stdin is closed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("endpoint")
    parser.add_argument("subscribers", type=int)
    asked = parser.parse_args()
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    with contextlib.ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        poller, received = zmq.Poller(), {}
        for _ in range(asked.subscribers):
            socket = stack.enter_context(context.socket(zmq.SUB))
            socket.setsockopt(zmq.LINGER, 0)
            socket.subscribe(b"")
            socket.connect(asked.endpoint)
            poller.register(socket, zmq.POLLIN)
            received[socket] = Received()
        print("listening", flush=True)
        while (ready := poller.poll(_TURN_MS)) or not over.is_set():  # what is on its way is taken
            for socket, _ in ready:
                with contextlib.suppress(zmq.Again):
                    while True:
                        received[socket].take(socket.recv_multipart(zmq.NOBLOCK))
    print(msgspec.json.encode(list(received.values())).decode())


if __name__ == "__main__":
    main()
