"""Coverage-guided fuzzing of the decoder, and of what takes what it lets through: `make fuzz`.

An input is the frames of a message without their check, which is computed here: nothing would ever come past it
otherwise. It is decoded; a plan is then admitted or refused, a tile counted in or refused, anything else given to a
follower. Only our own errors may come of it; a tile that is refused leaves the sums as they were; what decodes can be
sent on.

Atheris (libFuzzer) mutates bytes, and `mutate` every other time one value of the header. It starts from the golden
messages and the hostile corpus. A failing input is written to a file and printed; that file as argument tries it again.

    python tests/fuzz/decoder.py [--seconds N] [--found FOLDER] [INPUT ...]
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import logging
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris
import msgpack

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / folder) for folder in (".", "wire", "unit")]

import livestem.stages.photons  # noqa: E402, F401 - what Numba compiles is not to be instrumented

with atheris.instrument_imports(include=["livestem.domain", "livestem.wire", "livestem.protocol", "livestem.runtime"]):
    from livestem.domain.errors import LivestemError, WireError
    from livestem.domain.limits import Limits
    from livestem.domain.parameters import Processing
    from livestem.domain.scan import ScanPlan
    from livestem.protocol.follower import Follower
    from livestem.runtime.accumulator import Accumulator
    from livestem.runtime.admission import check_disk, check_limits
    from livestem.runtime.recipe import resolve
    from livestem.wire import messages as m
    from livestem.wire.codec import Message, decode, encode

import msgspec  # noqa: E402

import hostile  # noqa: E402 - after what is instrumented
from hostile_making import PLAN, framed  # noqa: E402
from hostile_strategies import EDGES, EXAMPLES  # noqa: E402

LIMITS = Limits(message_bytes=2**22)  # a fuzzer finds no more by larger ones
FIELD = msgspec.convert(PLAN, ScanPlan)
TILES_A_SCAN = 200  # then a fresh one: a full field has nothing left to find
MOST_BYTES = 8192  # of an input: the golden messages take some hundred

Parts = list[bytes]


class Target:
    """What a message meets behind the decoder."""

    def __init__(self) -> None:
        self._scans = itertools.cycle(range(TILES_A_SCAN))
        self._renew()

    def __call__(self, data: bytes) -> None:
        """Try one input; any error that is not ours is a finding."""
        frames = framed(*unpacked(data))
        try:
            message = decode(frames, LIMITS)
        except WireError:
            return
        stream = frames[0].split(b".")[0].decode()
        encode(message.header, message.arrays, stream=stream)
        if isinstance(message.header, m.ScanStart):
            self._admit(message.header)
        elif isinstance(message.header, m.HaadfRows | m.EdsRows):
            self._count_in(message)
        else:
            self._follow(message)

    def _renew(self) -> None:
        grid, parameters = resolve(FIELD, Processing())
        self._accumulator = Accumulator(FIELD, grid, parameters.register)
        ids = (f"f{n}" for n in itertools.count())
        self._follower = Follower(role="service", take="attach", ids=ids, limits=LIMITS)

    def _admit(self, start: m.ScanStart) -> None:
        with contextlib.suppress(LivestemError):
            grid, parameters = resolve(start.plan, Processing())
            check_limits(LIMITS, start.plan, grid, parameters)
            check_disk(LIMITS, start.plan, 2**40)

    def _count_in(self, message: Message) -> None:
        if next(self._scans) == 0:
            self._renew()
        before = self._accumulator.input_digest()
        try:
            taken = self._accumulator.apply(message)
        except WireError:
            taken = False
        assert taken or self._accumulator.input_digest() == before, "a refused tile has changed the sums"

    def _follow(self, message: Message) -> None:
        take = self._follower.replied if isinstance(message.header, m.Talk) else self._follower.published
        with contextlib.suppress(WireError):
            take(message, 1.0)
        self._follower.tick(1.0)


def packed(parts: Parts) -> bytes:
    """Return frames as one input: each behind its length in three bytes."""
    return b"".join(len(part).to_bytes(3, "big") + part for part in parts)


def unpacked(data: bytes) -> Parts:
    """Undo `packed`, whatever the lengths say."""
    parts = []
    while data:
        size = int.from_bytes(data[:3], "big")
        parts.append(data[3 : 3 + size])
        data = data[3 + size :]
    return parts


def mutate(data: bytes, most: int, seed: int) -> bytes:
    """Change bytes, or one value of the header: replaced by one at which programs break, removed, or doubled."""
    rng = random.Random(seed)
    parts = unpacked(data)
    if len(parts) < 2 or rng.random() < 0.5:
        return bytes(atheris.Mutate(data, most))
    try:
        tree = msgpack.unpackb(parts[1])
        node = tree
        while (deeper := _inner(node)) and rng.random() < 0.6:
            node = rng.choice(deeper)
        place = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if rng.random() < 0.1:
            del node[place]
        else:
            node[place] = rng.choice(EDGES)
        parts[1] = msgpack.packb(tree)
    except (ValueError, TypeError, IndexError, OverflowError, RecursionError):  # no map to change any more
        return bytes(atheris.Mutate(data, most))
    return packed(parts)[:most]


def _inner(node: Any) -> list[Any]:
    children = node.values() if isinstance(node, dict) else node
    return [child for child in children if isinstance(child, dict | list) and child]


def seeds(folder: Path) -> None:
    """Write what to start from."""
    cases = [case.make("gold") for case in hostile.CORPUS if not case.heavy]
    for frames in (*EXAMPLES.values(), *cases):
        data = packed(frames[:-1])
        if len(data) <= MOST_BYTES:
            (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


def fuzz(asked: argparse.Namespace, target: Callable[[bytes], None]) -> None:
    """Fuzz, or try files; libFuzzer ends the process, with 0 if nothing was found."""
    logging.disable(logging.CRITICAL)

    def one_input(data: bytes) -> None:
        try:
            target(data)
        except BaseException:
            print(f"failing input: {data.hex()}", file=sys.stderr, flush=True)
            raise

    flags = [
        *("-timeout=10", "-rss_limit_mb=4096", f"-max_len={MOST_BYTES}", f"-artifact_prefix={asked.found}/"),
        *("-print_final_stats=1", f"-max_total_time={asked.seconds}"),
    ]
    atheris.Setup([sys.argv[0], *flags, *asked.inputs], one_input, custom_mutator=mutate)
    atheris.Fuzz()


def arguments() -> argparse.Namespace:
    """Return what is asked for."""
    parser = argparse.ArgumentParser(description="fuzz the decoder")
    parser.add_argument("--seconds", type=int, default=60, help="how long")
    parser.add_argument("--found", type=Path, default=Path("."), help="folder where a failing input is written")
    parser.add_argument("inputs", nargs="*", help="inputs to try again, or a folder to start from")
    asked = parser.parse_args()
    asked.found.mkdir(parents=True, exist_ok=True)
    return asked


def main() -> int:
    """Fuzz; without inputs from the golden messages and the corpus, in a process of its own that leaves no files."""
    asked = arguments()
    if asked.inputs:
        fuzz(asked, Target())
    with tempfile.TemporaryDirectory() as folder:
        seeds(Path(folder))
        again = [sys.executable, __file__, "--seconds", str(asked.seconds), "--found", str(asked.found), folder]
        return subprocess.run(again).returncode


if __name__ == "__main__":
    raise SystemExit(main())
