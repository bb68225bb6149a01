"""Write golden messages that are not there yet: ``python tests/wire/make_golden.py``.

A golden message, once committed, is what somebody's recording or program holds: it is never made again. If today's
encoder says another thing for one, this script changes nothing, says which, and exits with 1. What a header says is
compared with types and order, not the bytes of its MessagePack: the length of a map may be written in more than one
way, and msgspec takes a longer one for a type of more than 15 fields.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgpack
from wire_examples import examples, frames_of

from livestem.wire.messages import VERSION

GOLDEN = Path(__file__).parent / "golden"


def folder(version: int) -> Path:
    """Return where a version's messages are kept."""
    return GOLDEN / f"v{version}" / "messages.json"


def load(version: int) -> dict[str, list[bytes]]:
    """Return a version's messages: name -> frames."""
    path = folder(version)
    if not path.exists():
        return {}
    written = json.loads(path.read_text(encoding="utf-8"))
    return {name: [bytes.fromhex(f) for f in frames] for name, frames in written.items()}


def said(frames: list[bytes]) -> list[str | bytes]:
    """Return what a message says: its frames with the header read, without the check over its bytes."""
    topic, head, *bodies, _ = frames
    return [topic, repr(msgpack.unpackb(head)), *bodies]


def main() -> int:
    """Add what is missing."""
    kept = load(VERSION)
    made = {name: frames_of(example) for name, example in examples().items()}
    wrong = sorted(n for n in kept if n not in made or (said(kept[n]) != said(made[n]) and "zstd" not in n))
    if wrong:
        print(f"today's encoder disagrees with golden version {VERSION} on {', '.join(wrong)}", file=sys.stderr)
        return 1
    all_of_them = {**made, **kept}
    text = json.dumps({n: [f.hex() for f in all_of_them[n]] for n in sorted(all_of_them)}, indent=1)
    folder(VERSION).parent.mkdir(parents=True, exist_ok=True)
    folder(VERSION).write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
