"""An image of a request: from an upload, base64 or a link, checked before it is passed to the model."""

import asyncio
import base64
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from ensemble.serving.settings import ServeSettings
from store.catalog.download.addresses import read_link
from store.catalog.images.open import UndecodableError, open_image

MOST_REDIRECTS = 5
UNREADABLE = b""  # what the model is given for an image that it must not decode: it flags the row


@dataclass(frozen=True)
class ImageRead:
    """The bytes of an image, or why there are none that may be decoded."""

    content: bytes
    problem: str | None = None
    n_pixels: int = 0

    @classmethod
    def failed(cls, problem: str) -> Self:
        return cls(UNREADABLE, problem)


def checked(content: bytes, max_pixels: int) -> ImageRead:
    """An image whose header is that of a known format and names no more than `max_pixels`."""
    try:
        with open_image(content, max_pixels) as image:
            return ImageRead(content, None, image.width * image.height)
    except UndecodableError as error:
        return ImageRead.failed(error.reason)


def from_base64(text: str, max_pixels: int) -> ImageRead:
    """An image written as base64, standard alphabet; line breaks are passed over."""
    try:
        content = base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        return ImageRead.failed("not base64")
    return checked(content, max_pixels)


class LinkReader:
    """Fetches images behind links, by the downloader that checks addresses after each look-up and redirect."""

    def __init__(self, settings: ServeSettings) -> None:
        from store.catalog.download.fetch import Fetcher, FetchLimits

        limits = settings.limits
        seconds = limits.seconds / 2  # the model needs the rest
        self._max_pixels = limits.image_pixels
        self._fetcher = Fetcher(
            FetchLimits(
                max_bytes=limits.link_bytes,
                max_pixels=limits.image_pixels,
                connect_seconds=min(5.0, seconds),
                silent_seconds=min(5.0, seconds),
                total_seconds=seconds,
            ),
            "shelfprice-serve",
            connections=32,
            allow_private=settings.allow_private,
        )

    async def __aenter__(self) -> Self:
        await self._fetcher.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._fetcher.__aexit__(kind, error, trace)

    async def read(self, text: str) -> ImageRead:
        """The image behind a link; nothing that a server does is an exception."""
        link = read_link(text)
        url, problem = link.url, link.problem
        for _ in range(MOST_REDIRECTS + 1):
            if url is None:
                return ImageRead.failed(f"link: {problem or 'empty'}")
            reply = await self._fetcher.fetch(url)
            if reply.body is not None:
                with reply.body as body:
                    body.seek(0)
                    return await asyncio.to_thread(checked, body.read(), self._max_pixels)
            if reply.redirect is None:
                return ImageRead.failed(f"link: {reply.reason}")
            url = reply.redirect
        return ImageRead.failed(f"link: more than {MOST_REDIRECTS} redirects")
