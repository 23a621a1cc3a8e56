"""Images that were read and decoded, or why they could not be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from embed.inputs import InputFailure
from embed.inputs.batch import ImageReader
from store.catalog.images.jpeg_end import lacks_end
from store.errors import StoreError, WorkspaceError

Decoded = np.ndarray | InputFailure


@dataclass(frozen=True)
class DecodedImages:
    """Some images, in the order asked for."""

    pixels: np.ndarray  # (n_decoded, height, width, 3) uint8, of those that could be decoded
    failures: list[InputFailure | None]  # one an image; None: it was decoded
    n_cut: int  # decoded from a file that lacks its end


def collected(images: Sequence[tuple[Decoded, bool]]) -> DecodedImages:
    """What `read_image_marked` gave for each."""
    pixels = [one for one, _ in images if not isinstance(one, InputFailure)]
    # A copy even of one alone: torch warns of arrays that can't be written to, as Pillow's are.
    stacked = np.stack(pixels) if pixels else np.empty((0, 0, 0, 3), np.uint8)
    failures = [one if isinstance(one, InputFailure) else None for one, _ in images]
    return DecodedImages(stacked, failures, sum(is_cut for _, is_cut in images))


def read_image(images: ImageReader, content: str, decode: Callable[[bytes], Decoded]) -> Decoded:
    """One image, ready to enter the model, or why it can't be; see `read_image_marked`."""
    return read_image_marked(images, content, decode)[0]


def read_image_marked(
    images: ImageReader, content: str, decode: Callable[[bytes], Decoded]
) -> tuple[Decoded, bool]:
    """One image, ready to enter the model, or why it can't be; and whether its file lacks its end.

    Args:
        decode: bytes -> pixels.

    Raises:
        StoreError: an object store can't be asked; that says nothing about the image.
    """
    try:
        found = images.read(content)
    except StoreError:
        raise
    except (WorkspaceError, OSError) as error:
        return InputFailure("read", " ".join(str(error).split())), False
    decoded = decode(found)
    return decoded, not isinstance(decoded, InputFailure) and lacks_end(found)
