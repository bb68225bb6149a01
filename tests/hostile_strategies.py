"""Hostile messages by chance, for hypothesis: random bytes, real messages spoilt, headers with one field replaced.

All but random bytes have a right check: without it nothing but the check would ever be tried.
"""

from __future__ import annotations

from typing import Any

import msgpack
from hypothesis import strategies as st
from wire_examples import examples, frames_of

import hostile

EXAMPLES = {name: frames_of(example) for name, example in examples().items()}

# Values at which programs break: edges of integers, floats that are none, names of files, lengths, wrong types.
EDGES: list[Any] = [
    *(sign * (2**bits) + more for bits in (7, 8, 15, 16, 31, 32, 53, 62) for sign in (1, -1) for more in (-1, 0, 1)),
    *(2**63 - 1, 2**63, 2**64 - 1, -(2**63), 0, 1, -1),
    *(0.0, -0.0, 0.5, 1e-308, 1e308, -1e308, float("nan"), float("inf"), float("-inf")),
    *("", "s", "open", "../x", "CON", "nul", "\0", "a" * 65, "é", "acq", "haadf_tile", "<u2", "|O", "(1,", "zstd"),
    *(None, True, False, b"", b"\xff" * 9, [], {}, [[]], [{}], {"": None}, [0] * 5, {"v": 1}, [0.5, 1.5], [2**40] * 2),
]  # fmt: skip
_scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8)
_values = st.sampled_from(EDGES) | st.recursive(
    _scalars | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def broken_bytes() -> st.SearchStrategy[list[bytes]]:
    """Return frames of random bytes, with a right check or none."""
    frames = st.lists(st.binary(max_size=64), max_size=10)
    return frames | frames.map(lambda f: hostile.framed(*f))


@st.composite
def mutated(draw: st.DrawFn, names: tuple[str, ...] = tuple(sorted(EXAMPLES))) -> list[bytes]:
    """Return a real message with some bytes replaced, inserted or removed, and its right check."""
    frames = [bytearray(f) for f in EXAMPLES[draw(st.sampled_from(names))][:-1]]
    for _ in range(draw(st.integers(1, 4))):
        frame = frames[draw(st.integers(0, len(frames) - 1))]
        place = draw(st.integers(0, len(frame)))
        what = draw(st.sampled_from(["replace", "insert", "remove", "repeat"]))
        some = draw(st.binary(min_size=1, max_size=4))
        if what == "insert":
            frame[place:place] = some
        elif what == "repeat":
            frame[place:place] = frame[place : place + 16]
        else:
            frame[place : place + len(some)] = some if what == "replace" else b""
    return hostile.framed(*map(bytes, frames))


@st.composite
def structured(draw: st.DrawFn, names: tuple[str, ...] = tuple(sorted(EXAMPLES))) -> list[bytes]:
    """Return a real message in whose header one value, at any depth, is replaced, added or left out."""
    topic, head, *bodies, _ = EXAMPLES[draw(st.sampled_from(names))]
    tree = msgpack.unpackb(head)
    node: Any = tree
    while True:
        places = list(node) if isinstance(node, dict) else list(range(len(node)))
        deeper = [p for p in places if isinstance(node[p], dict | list) and node[p]]
        if not deeper or draw(st.booleans()):
            break
        node = node[draw(st.sampled_from(deeper))]
    place = draw(st.sampled_from(places))
    what = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"]))
    if what == "remove":
        del node[place]
    elif what == "add" and isinstance(node, dict):
        node[draw(st.text(max_size=6))] = draw(_values)
    else:
        node[place] = draw(_values)
    return hostile.framed(topic, msgpack.packb(tree), *bodies)
