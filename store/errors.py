"""The errors a user can meet. Anything else that escapes is a bug and keeps its traceback."""


class ShelfpriceError(Exception):
    """Base of every error that becomes one line and exit code 1 on the command line."""


class ConfigError(ShelfpriceError):
    """`shelfprice.toml`, or an option, holds something that is not understood."""


class CatalogError(ShelfpriceError):
    """A catalogue file can't be used at all, or no catalogue was ingested yet."""


class WorkspaceError(ShelfpriceError):
    """The workspace can't be read or written."""


class StoreError(WorkspaceError):
    """An object store or a disk refused or dropped a request: nothing is known about what was asked for."""


class CorruptFileError(WorkspaceError):
    """A published file is damaged: truncated, or a page checksum does not match."""


class EncoderError(ShelfpriceError):
    """An encoder is unknown, or its weights can't be found or loaded."""


class MissingVectorsError(ShelfpriceError):
    """Rows of the catalogue have no vector in the cache yet, or items none at all."""


class FailureLimitError(ShelfpriceError):
    """More inputs failed than the run allows."""


class RowMismatchError(ShelfpriceError):
    """Two things that must describe the same rows do not."""


class FoldMismatchError(RowMismatchError):
    """Predictions or vectors belong to other folds than the workspace's."""


class HeadError(ShelfpriceError):
    """A head is unknown, lacks something that it needs, or diverged."""


class UnknownHeadError(HeadError):
    """No head has that name."""


class PriceError(HeadError):
    """A price, or a log price, that nothing can be learned from or scored by: not finite, or not > 0."""


class NetworkError(ShelfpriceError):
    """No server could be reached at all."""


class EngineError(ShelfpriceError):
    """The engine that a run was given to can't take it, or went away."""


class AuditError(ShelfpriceError):
    """A check of what the honest score stands on failed."""
