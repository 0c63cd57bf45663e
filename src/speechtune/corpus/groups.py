"""Things that hang together through pairs, by number: 9 bytes each, however many pairs there are."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from typing import Any


class Groups:
    """Union-find over 0 to ``count`` - 1 whose representatives are the least members."""

    def __init__(self, count: int) -> None:
        self._parent = array("q", range(count))
        self._linked = bytearray(count)

    def _root(self, member: int) -> int:
        parent = self._parent
        while parent[member] != member:
            parent[member] = parent[parent[member]]
            member = parent[member]
        return member

    def join(self, firsts: Any, seconds: Any) -> None:
        """Link every first with its second (two integer arrays of one length)."""
        for first, second in zip(firsts.tolist(), seconds.tolist(), strict=True):
            self._linked[first] = self._linked[second] = True
            one, other = sorted((self._root(first), self._root(second)))
            self._parent[other] = one

    def members(self) -> Iterator[tuple[int, int]]:
        """(member, least member of its group) of everything that was linked, ascending."""
        linked: Iterable[int] = (member for member, yes in enumerate(self._linked) if yes)
        for member in linked:
            yield member, self._root(member)
