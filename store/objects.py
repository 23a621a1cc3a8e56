"""An object store behind fsspec: its errors as one clear line, which never holds a credential; one request where one does."""

import re
from collections.abc import Callable
from typing import Any, TypeVar

from store.errors import StoreError, WorkspaceError

T = TypeVar("T")
THROTTLED = {
    "SlowDown",
    "503",
    "ServiceUnavailable",
    "RequestLimitExceeded",
    "Throttling",
    "TooManyRequests",
    "429",
}
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
REFUSED = {"AccessDenied", "403", "401", "AllAccessDisabled", "InvalidObjectState"}
UNKNOWN = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidSecurity"}
UNTOLD = {"400", "403"}  # answers to a HEAD request, which have no body to say why
LIBRARIES = ("botocore", "aiobotocore", "aiohttp", "boto3", "s3fs")
# A user and a password, or a key and a secret, before an '@'; a port is none.
CREDENTIALS = re.compile(r"://(?:[^/@]*@|[^/:@]*:(?!\d+(?:/|$))[^@]*@)")
# What fsspec opens and nothing can be published into: archives, views of other files, the web.
NO_PLACE = {"zip", "tar", "libarchive", "reference", "data", "http", "https", "git", "github", "jlab", "dir"} | {
    "filecache", "simplecache", "blockcache", "cached", "generic", "dask", "asynclocal",
}  # fmt: skip
RESUME = "what was published stays, run the command again to go on"


def check_address(root: str) -> None:
    """Check the address of a workspace.

    Raises:
        WorkspaceError: it holds credentials, which the message does not repeat; or nothing can be written there.
    """
    if CREDENTIALS.search(root):
        scheme = root.partition("://")[0]
        raise WorkspaceError(
            f"the address {scheme}://…@{root.rpartition('@')[2]} holds credentials: leave them out and set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or use the machine's role"
        )
    if "\0" in root:
        raise WorkspaceError(
            f"workspace {root!r}: no path holds a NUL character; name a folder or an address"
        )
    if "::" in root:
        raise WorkspaceError(
            f"workspace {root!r}: '::' chains addresses, and a workspace is one folder or one address"
        )
    protocol = root.partition(":")[0].lower()
    if protocol in NO_PLACE and ("://" in root or protocol == "data"):
        raise WorkspaceError(
            f"workspace {root!r}: {protocol} can't hold one; name a folder, or an address such as s3://bucket/run"
        )


class Objects:
    """The calls of a file system that a workspace makes, each with clear errors.

    Args:
        filesystem: of fsspec.
        root: the workspace's address, for messages.
    """

    def __init__(self, filesystem: Any, root: str) -> None:
        self.filesystem = filesystem
        self._root = root

    def exists(self, path: str) -> bool:
        """Whether there is a file or a folder; a request that fails raises and is never taken for False."""
        try:
            self.call(self.filesystem.info, path)
        except FileNotFoundError:
            return False
        return True

    def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function of the file system.

        Raises:
            FileNotFoundError, FileExistsError: as they come.
            StoreError: refused, throttled, dropped, or no valid credentials; says which and what to do.
        """
        try:
            return function(*args, **kwargs)
        except (FileNotFoundError, FileExistsError, NotADirectoryError):
            raise
        except Exception as error:
            told = self._told(error)
            if told is None:
                raise
            raise StoreError(told) from error

    def _told(self, error: BaseException) -> str | None:
        """What went wrong in one line; None where it is no error of a store."""
        code = code_of(error)
        if code in UNTOLD:
            code = self._asked_again() or code
        kinds = {kind.__name__ for one in _chain(error) for kind in type(one).__mro__}
        if "NoCredentialsError" in kinds or "PartialCredentialsError" in kinds:
            return (
                f"no credentials for {self._root}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or "
                "use the machine's role"
            )
        if code in EXPIRED:
            return f"the credentials for {self._root} have expired: renew them; {RESUME}"
        if code in UNKNOWN:
            return f"{self._root} does not know these credentials ({code}): check them in the environment; {RESUME}"
        if code in THROTTLED:
            return f"{self._root} asks to slow down ({code}), again and again: {RESUME} later, or use fewer workers"
        if code in REFUSED or "PermissionError" in kinds:
            return f"{self._root} refuses access ({code or 'permission denied'}): check the rights of these credentials"
        if code == "NoSuchBucket":
            return f"there is no bucket of {self._root}: create it, or correct the address"
        if code is not None:
            return f"{self._root} answers {code}: {RESUME}"
        from_library = any(type(one).__module__.split(".")[0] in LIBRARIES for one in _chain(error))
        if from_library or kinds & {"ConnectionError", "TimeoutError", "FSTimeoutError", "ProtocolError"}:
            return f"the connection to {self._root} fails ({type(error).__name__}): {RESUME}"
        if isinstance(error, OSError):
            return f"{self._root} fails ({error.strerror or type(error).__name__}): {RESUME}"
        return None

    def _asked_again(self) -> str | None:
        """The code of an answer that has a body."""
        try:
            self.filesystem.ls(self._root.partition("://")[2], detail=False, refresh=True)
        except Exception as error:  # noqa: BLE001 - only its code is of interest
            return code_of(error)
        return None


class ObjectFile:
    """A file of an object store, open for reading, as Arrow reads one; errors are those of `Objects`."""

    def __init__(self, objects: Objects, file: Any) -> None:
        self._objects = objects
        self._file = file
        self.closed = False

    def read(self, n: int = -1) -> bytes:
        return self._objects.call(self._file.read, n)

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True
        self._file.close()

    def __enter__(self) -> "ObjectFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def code_of(error: BaseException) -> str | None:
    """The store's own code of an error, such as `SlowDown`."""
    for one in _chain(error):
        response = getattr(one, "response", None)
        if isinstance(response, dict) and "Error" in response:
            code = response["Error"].get("Code")
            return None if code is None else str(code)
    return None


def _chain(error: BaseException | None) -> list[BaseException]:
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain
