"""The committed JSON Schema of every header, for clients in other languages: ``python -m livestem.wire.schema``.

`schema.json` is what today's code generates, descriptions included. `schema_history.json` holds one digest for each
version: it is how a change of the messages without a change of `VERSION` is found. A version is frozen by the first
tagged release that speaks it (docs/decisions/0009). Descriptions are left out of the digest, so that a docstring may be
improved at any time.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from livestem.wire.messages import VERSION, schema

SCHEMA = Path(__file__).with_name("schema.json")
HISTORY = Path(__file__).with_name("schema_history.json")
WORDS = frozenset(["description", "title"])  # of JSON Schema, for people only


def text() -> str:
    """Return what `schema.json` must hold."""
    return json.dumps(schema(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def digest() -> str:
    """Return the sha256 of the canonical schema: sorted keys, no blanks, nothing that is for people only."""
    canonical = json.dumps(_meaning(schema()), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def history() -> dict[str, str]:
    """Return the digest of every version so far."""
    if not HISTORY.exists():
        return {}
    found: dict[str, str] = json.loads(HISTORY.read_text(encoding="utf-8"))
    return found


def changed_without_a_new_version() -> str | None:
    """Return what to do if the messages are not those that `VERSION` stands for, or None."""
    known = history().get(str(VERSION), digest())
    if known == digest():
        return None
    return (
        f"the messages differ from those of wire version {VERSION}, which others already speak: "
        "raise VERSION in livestem/wire/header.py (and the Literal of `v`), then run python -m livestem.wire.schema "
        "and tests/wire/make_golden.py; or undo the change"
    )


def main() -> int:
    """Write `schema.json`, and the digest of a new version; refuse a change of an old one."""
    complaint = changed_without_a_new_version()
    if complaint is not None:
        print(complaint, file=sys.stderr)
        return 1
    SCHEMA.write_text(text(), encoding="utf-8")
    known = {**history(), str(VERSION): digest()}
    HISTORY.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    return 0


def _meaning(node: object) -> object:
    """Return a schema without what is for people; property names are kept, whatever they are called."""
    if isinstance(node, list):
        return [_meaning(child) for child in node]
    if not isinstance(node, dict):
        return node
    kept = {k: v for k, v in node.items() if not (k in WORDS and isinstance(v, str))}
    return {k: _meaning(v) for k, v in kept.items()}


if __name__ == "__main__":
    raise SystemExit(main())
