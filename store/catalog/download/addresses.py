"""Which links and which addresses may be asked: decided before anything is sent."""

import ast
import ipaddress
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import idna

MAX_LINK_CHARS = 4096
TOO_LONG = f"link too long: over {MAX_LINK_CHARS} characters"
MAX_CELL_CHARS = 65_536  # of a list of links
SCHEMES = ("http", "https")
DEFAULT_PORTS = {"http": 80, "https": 443}

# Where clouds answer with credentials. Refused even where private addresses are allowed.
METADATA_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in (
        "169.254.169.254",  # most clouds; link-local as well
        "168.63.129.16",  # Azure's host, a public address by its number
        "100.100.100.200",  # Alibaba
        "192.0.0.192",  # Oracle
        "fd00:ec2::/32",  # AWS over IPv6: metadata, credentials of pods
        "fd20:ce::254",  # Google over IPv6
    )
)
DOCUMENTATION = ipaddress.IPv6Network("3fff::/20")  # RFC 9637, later than what Python knows
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

_PLAIN_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_.])?", re.ASCII)
_NEXT_LINK = re.compile(
    r"(?<![\s,;|])[\s,;|]++(?=https?://|data:)", re.IGNORECASE
)  # linear in a run of blanks
_IMAGE_FILE = re.compile(r"[^\s;|,]\.(?:jpe?g|jfif|png|webp|gif|bmp|tiff?|avif|heic)\Z", re.IGNORECASE)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SAFE = "!#$%&'()*+,-./:;=?@[]_~"  # left alone by percent-encoding


@dataclass(frozen=True)
class Link:
    """What a cell of the link column means."""

    urls: tuple[str, ...] = ()  # canonical: scheme and host in lower case, ASCII, no fragment; each once
    problem: str | None = None  # why the first that can't be used can't; neither: the cell is empty
    note: str | None = None  # what had to be done to read it

    @property
    def url(self) -> str | None:
        """The first of its URLs."""
        return self.urls[0] if self.urls else None


def read_link(cell: str | None, *, take_all: bool = False) -> Link:
    """A cell of the link column -> the URL to ask, or why there is none.

    Quotes and blanks around a link are taken off, hosts in other scripts become their ASCII form, and what a URL can't
    hold is percent-encoded.

    Args:
        take_all: of several links every one that can be used; else the first alone.
    """
    text = (cell or "").strip()
    if not text:
        return Link()
    if len(text) > MAX_CELL_CHARS:
        return Link((), TOO_LONG)
    bare = text.strip("\"'`<> \t")
    if not bare:
        return Link()
    note = "quoted: the quotes were taken off" if bare != text else None
    links = split_links(bare)
    urls: dict[str, None] = {}
    problem = None
    for link in filter(None, [bare] if links is None else links if take_all else links[:1]):
        try:
            urls.setdefault(canonical_url(link))
        except ValueError as error:
            problem = problem or str(error)
    if links is not None:
        note = "list: every link was taken" if take_all else "list: the first link was taken"
        if urls and problem:
            note = f"list: usable links were taken, left out: {problem}"
    return Link(tuple(urls), problem, note if urls or problem else None)


def canonical_url(text: str) -> str:
    """One spelling for each link, safe to send.

    Raises:
        ValueError: this is no link that may be asked; the message says why in a few words.
    """
    if len(text) > MAX_LINK_CHARS:
        raise ValueError(TOO_LONG)
    if _CONTROL.search(text):
        raise ValueError("not a link: control character")
    scheme_match = _SCHEME.match(text)
    if text.startswith(("//", "/", "./", "../")) or scheme_match is None:
        looks_relative = "/" in text or re.search(r"\.[A-Za-z]{3,4}$", text)
        raise ValueError("relative link" if looks_relative else "not a link")
    scheme = scheme_match[1].lower()
    if scheme not in SCHEMES:
        raise ValueError(f"scheme not allowed: {scheme[:20]}")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"not a link: {str(error)[:80]}") from error
    if "\\" in text:
        raise ValueError("not a link: backslash")
    if parts.username is not None or parts.password is not None:
        raise ValueError("not a link: user name in it")
    if not host:
        raise ValueError("not a link: no host")
    netloc = _ascii_host(host)
    if port is not None and port != DEFAULT_PORTS[scheme]:
        netloc = f"{netloc}:{port}"
    url = urlunsplit((scheme, netloc, quote(parts.path, _SAFE) or "/", quote(parts.query, _SAFE), ""))
    if len(url) > MAX_LINK_CHARS:
        raise ValueError(TOO_LONG)
    return url


def address_problem(address: str, allow_private: bool = False) -> str | None:
    """Why an IP address may not be asked, or None where it may.

    Args:
        allow_private: also take private and loopback addresses (intranets, tests). Link-local,
            multicast and metadata addresses stay refused.
    """
    ip: Any = ipaddress.ip_address(address.partition("%")[0])
    inner = _embedded_ipv4(ip)
    if inner is not None:
        return address_problem(str(inner), allow_private)
    kind = None
    if any(ip in network for network in METADATA_NETWORKS):
        kind = "a metadata service"
    elif ip.is_link_local:
        kind = "link-local"
    elif ip.is_multicast:
        kind = "multicast"
    elif ip.is_unspecified or (ip.is_reserved and not ip.is_loopback):
        kind = "reserved"
    elif not allow_private:
        if ip.is_loopback:
            kind = "loopback"
        elif not ip.is_global or (ip.version == 6 and (ip.is_site_local or ip in DOCUMENTATION)):
            kind = "private"
    return f"address refused: {kind} ({ip})" if kind else None


def host_of(url: str) -> str:
    """Host and port of a canonical URL: what limits are counted by."""
    return urlsplit(url).netloc


def _embedded_ipv4(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if isinstance(ip, ipaddress.IPv4Address):
        return None
    if ip in NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)


def _ascii_host(host: str) -> str:
    if ":" in host:
        if "%" in host:
            raise ValueError("bad host: an IPv6 address with a scope")
        try:
            return f"[{ipaddress.IPv6Address(host)}]"
        except ValueError as error:
            raise ValueError("bad host: not an IPv6 address") from error
    try:
        plain = host if host.isascii() else idna.encode(host, uts46=True, transitional=False).decode()
    except idna.IDNAError as error:
        raise ValueError("bad host: not a domain name") from error
    longest = max(map(len, plain.split(".")))
    if not _PLAIN_HOST.fullmatch(plain) or ".." in plain or longest > 63 or len(plain) > 253:
        raise ValueError("bad host: not a domain name")
    return plain


def split_links(text: str) -> list[str] | None:
    """The links of a cell that holds a list of them, or the names of several files; None where there is just one."""
    if text[0] in "[(" and text[-1] in "])":
        for parse in (json.loads, ast.literal_eval):
            try:
                items = parse(text)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
            if isinstance(items, list | tuple):
                return [item.strip() for item in items if isinstance(item, str) and item.strip()]
        return [part.strip("\"', ") for part in _NEXT_LINK.split(text[1:-1].strip())]
    parts = _NEXT_LINK.split(text)
    if len(parts) > 1:
        return [part.strip("\"', ") for part in parts]
    return None if "://" in text or text[:5].lower() == "data:" else _file_names(text)


def _file_names(text: str) -> list[str] | None:
    """Names of several image files, parted by `;`, `|`, commas or blanks."""
    for parts in (text.replace("|", ";").split(";"), text.split(","), text.split()):
        names = [name.strip() for name in parts if name.strip()]
        if len(names) > 1 and all(_IMAGE_FILE.search(name) for name in names):
            return names
    return None
