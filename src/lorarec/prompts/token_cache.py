"""A cache of encoded texts, limited by the memory that it takes."""

import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable

#: Bytes of a number in a tuple, and of the entry of a dictionary around it.
_BYTES_PER_ID = sys.getsizeof(1 << 20)
_BYTES_PER_ENTRY = 200


class TokenCache:
    """Remember the token ids of the texts that were encoded last.

    A limit on the number of entries would not limit the memory, since requests can hold texts of any length.

    Args:
        encode: Function whose results are remembered, by its arguments, the first of which is the text.
        max_bytes: Approximate maximum of the memory in bytes.

    Attributes:
        bytes: Approximate size of the memory in bytes.
    """

    def __init__(self, encode: Callable[..., tuple[int, ...]], max_bytes: int) -> None:
        self._encode = encode
        self._max_bytes = max_bytes
        self._entries: OrderedDict[tuple[Hashable, ...], tuple[int, ...]] = OrderedDict()
        self.bytes = 0

    def __call__(self, *arguments: Hashable) -> tuple[int, ...]:
        """Return the token ids of a text."""
        try:
            self._entries.move_to_end(arguments)
            return self._entries[arguments]
        except KeyError:
            ids = self._entries[arguments] = self._encode(*arguments)
        self.bytes += _size(arguments, ids)
        while self.bytes > self._max_bytes and self._entries:
            self.bytes -= _size(*self._entries.popitem(last=False))
        return ids


def _size(arguments: tuple[Hashable, ...], ids: tuple[int, ...]) -> int:
    text, *_ = arguments
    return _BYTES_PER_ENTRY + sys.getsizeof(text) + sys.getsizeof(ids) + _BYTES_PER_ID * len(ids)
