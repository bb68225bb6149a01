"""A dictionary with room for the newest entries only: what peers can make us remember has a bound."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Remembered(dict[K, V]):
    """The `most` entries that were set last; whatever is set beyond that displaces the oldest.

    Examples
    --------
    >>> found = Remembered(2)
    >>> found["a"], found["b"], found["c"] = 1, 2, 3
    >>> found
    {'b': 2, 'c': 3}
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def __setitem__(self, key: K, value: V) -> None:
        self.pop(key, None)
        super().__setitem__(key, value)
        if len(self) > self._most:
            del self[next(iter(self))]
