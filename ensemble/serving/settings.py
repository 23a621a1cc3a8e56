"""Settings of a server, fixed at its start."""

from dataclasses import dataclass, field

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
MiB = 2**20


@dataclass(frozen=True)
class Limits:
    """What one request may take, and all of them together; a request beyond them is refused as a whole."""

    body_bytes: int = 16 * MiB
    rows: int = 256  # of a request for prices
    explained_rows: int = 16  # of a request for explanations, which cost more
    text_chars: int = 50_000  # of one cell
    image_pixels: int = 50_000_000
    all_pixels: int = 200_000_000  # of all images of a request
    link_bytes: int = 16 * MiB  # of an image behind a link
    seconds: float = 30.0  # from the head of a request to its answer
    waiting_rows: int = 1024  # that the model has not begun, of all requests
    held_bytes: int = 256 * MiB  # bodies at work, of all requests
    connections: int = 1024
    batch_rows: int = 32  # that the model prices at a time


@dataclass(frozen=True)
class ServeSettings:
    """How a server listens and whom it answers."""

    host: str = "127.0.0.1"
    port: int = 8000
    limits: Limits = field(default_factory=Limits)
    allow_links: bool = False  # images may be links, which this server then fetches
    allow_private: bool = False  # also from private and loopback addresses
    token: str | None = field(default=None, repr=False)
    hosts: tuple[str, ...] = ()  # names by which it may be addressed; none: any

    @property
    def is_loopback(self) -> bool:
        return self.host in LOOPBACK_HOSTS
