"""Whether cells are texts whose words other cells use as well, and not names, codes, links or numbers."""

import re
from collections import Counter
from collections.abc import Sequence

# Scripts that put no space between words: Thai, Lao, Burmese, Khmer, kana, Chinese characters.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff\uff66-\uff9f"
)
LEAST_SHARING = 0.5  # of the cells
MOST_HOLDING = 0.9  # of the cells, that a word may be in: one in all, such as "item", tells none apart
# Letters that stand by themselves: not the parts of an address, of a link or of a code.
_WORD = re.compile(rf"[{UNSPACED}]|(?<![\w@/:=.#-])[^\W\d_{UNSPACED}]{{2,}}(?![\w@/:=]|[.-]\w)")


def share_words(cells: Sequence[str]) -> bool:
    """Whether at least half of the cells have a word that others have too, and not nearly all of them.

    >>> share_words(["soft red wool", "hard red oak", "soft grey oak"])
    True
    >>> share_words(["https://shop.example/soft", "https://shop.example/hard", "item 4f1a"])
    False
    """
    words = [set(_WORD.findall(cell.lower())) for cell in cells]
    held = Counter(word for found in words for word in found)
    most = MOST_HOLDING * len(cells)
    return sum(any(1 < held[word] <= most for word in found) for found in words) >= LEAST_SHARING * len(cells)
