"""A publisher that closes while its readers hang up in the middle of a message lives: in a process of its own.

libzmq 4.3.5 ends the process of one that unbinds then, so the test is whether that process ends well.
"""

import subprocess
import sys
from pathlib import Path

ROUNDS = 40  # ended by libzmq within the first few where connections are cut in the middle of a message
READERS_THAT_HANG_UP = r"""
import sys, time, zmq
from livestem.client.sockets import unbind
context, body = zmq.Context(), bytes(3_000_000)  # more than a connection takes at once
for turn in range(int(sys.argv[2])):
    publisher = context.socket(zmq.XPUB)
    publisher.sndhwm = 10
    publisher.setsockopt(zmq.XPUB_VERBOSER, 1)
    publisher.bind(sys.argv[1])
    where = publisher.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
    readers = []
    for _ in range(6):
        reader = context.socket(zmq.SUB)
        reader.rcvhwm = 1  # and never read
        reader.setsockopt(zmq.RCVBUF, 4096)
        reader.subscribe(b"")
        reader.connect(where)
        readers.append(reader)
    for _ in readers:
        publisher.recv()
    for _ in range(8):
        publisher.send_multipart([b"topic", b"header", body, body])
    time.sleep(0.003 * (turn % 4))
    if turn % 2:
        unbind(publisher, 100)
    for reader in readers:
        reader.close(linger=0)
    if not turn % 2:
        unbind(publisher, 100)
context.term()
print("well")
"""


def test_readers_that_hang_up_in_the_middle_of_a_message_do_not_end_a_publisher_that_closes(tmp_path: Path):
    where = f"ipc://{tmp_path / 'e'}" if sys.platform != "win32" else "tcp://127.0.0.1:*"
    command = [sys.executable, "-c", READERS_THAT_HANG_UP, where, str(ROUNDS)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout.strip()) == (0, "well"), ended.stderr
