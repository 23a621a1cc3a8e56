"""A share of the work by key: n runs without communication do each part once."""

from dataclasses import dataclass

import numpy as np

from store.errors import ConfigError
from store.vectors.keys import first_of_range


@dataclass(frozen=True)
class Share:
    """The i-th of n ranges of keys. Keys are digests, so that ranges hold about as many each."""

    i: int  # 1 to n
    n: int

    def __str__(self) -> str:
        return f"{self.i}/{self.n}"

    @classmethod
    def parse(cls, text: str) -> "Share":
        """From `i/n`.

        Raises:
            ConfigError: not two numbers, or i is not among 1 to n.
        """
        i, slash, n = text.partition("/")
        if not slash or not i.isdecimal() or not n.isdecimal() or not 1 <= int(i) <= int(n):
            raise ConfigError(f"--shard is i/n with i from 1 to n, such as 1/4 or 4/4, got {text!r}")
        return cls(int(i), int(n))

    def of(self, sorted_keys: np.ndarray) -> np.ndarray:
        """Those of the sorted keys that fall to this share."""
        start = np.searchsorted(sorted_keys, first_of_range(self.i - 1, self.n))
        if self.i == self.n:
            return sorted_keys[start:]
        return sorted_keys[start : np.searchsorted(sorted_keys, first_of_range(self.i, self.n))]
