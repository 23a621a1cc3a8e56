"""A JPEG whose last bytes were lost: whether so little is missing that it is shown as browsers show it.

Appending the marker of its end lets libjpeg fill what is missing: with grey, where the file holds one scan. A
progressive file goes from coarse to fine in several scans; what the last of them lacks can hardly be seen.
"""

import re
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

END = b"\xff\xd9"
MOST_MISSING = 0.05  # of the pixels, below which an image counts as nearly whole
START = b"\xff\xd8"
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # the next marker; restarts belong to the scan
_BASELINE, _PROGRESSIVE = {0xC0, 0xC1}, 0xC2
_SOS, _EOI = 0xDA, 0xD9
_FILL = 128  # libjpeg's, in every component
TAIL_BYTES = 64  # in which the marker mostly stands


@dataclass
class _Frame:
    """What the headers of a JPEG say."""

    has_end: bool = False
    kind: int = 0
    n_components: int = 0
    scans: list[bytes] = field(default_factory=list)  # their headers


def lacks_end(content: bytes) -> bool:
    """Whether a JPEG stops before its end."""
    return content.startswith(START) and END not in content[-TAIL_BYTES:] and not _read(content).has_end


def can_be_completed(content: bytes) -> bool:
    """Whether a JPEG without an end holds enough scans for an image: its only one, or the last of a progressive one."""
    frame = _read(content)
    if frame.n_components not in (1, 3):  # of others the pixels do not show what was filled in
        return False
    if frame.kind in _BASELINE:
        return [scan[0] for scan in frame.scans] == [frame.n_components]
    return frame.kind == _PROGRESSIVE and _is_fine(frame)


def share_filled(image: Image.Image) -> float:
    """Share of an image's pixels that libjpeg filled in at its end, as far as `MOST_MISSING` goes."""
    width, height = image.size
    rows = min(height, int(2 * MOST_MISSING * height) + 16)
    bottom = np.asarray(image.crop((0, height - rows, width, height))).reshape(rows, width, -1)
    is_filled = (bottom == _FILL).all(axis=2)[::-1, ::-1]  # from the last pixel on
    lengths = np.where(is_filled.all(axis=1), width, is_filled.argmin(axis=1))
    first_whole = int(np.argmax(lengths == 0)) if (lengths == 0).any() else rows
    return float(lengths[:first_whole].sum()) / (width * height)


def _read(content: bytes) -> _Frame:
    """Follow the markers of a JPEG to its end, or to where it stops."""
    frame, at = _Frame(), len(START)
    while at + 4 <= len(content) and content[at] == 0xFF:
        kind = content[at + 1]
        if kind == 0xFF:  # padding
            at += 1
            continue
        if kind == _EOI:
            break
        length = int.from_bytes(content[at + 2 : at + 4], "big")
        segment = content[at + 4 : at + 2 + length]
        at += 2 + length
        if kind in (*_BASELINE, _PROGRESSIVE) and len(segment) >= 6:
            frame.kind, frame.n_components = kind, segment[5]
        if kind == _SOS and segment:
            frame.scans.append(segment)
            following = _AFTER_SCAN.search(content, at)
            if following is None:
                return frame
            at = following.start()
    frame.has_end = content[at : at + 2] == END
    return frame


def _is_fine(frame: _Frame) -> bool:
    """Whether every coefficient of every component has been sent, or begun, to its last bit."""
    fine: dict[int, set[int]] = {}
    for scan in frame.scans:
        n = scan[0]
        if len(scan) < 4 + 2 * n:
            return False
        first, last, bits = scan[1 + 2 * n : 4 + 2 * n]
        if bits & 15 == 0:
            for component in scan[1 : 1 + 2 * n : 2]:
                fine.setdefault(component, set()).update(range(first, last + 1))
    return len(fine) == frame.n_components and all(found >= set(range(64)) for found in fine.values())
