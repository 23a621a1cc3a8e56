"""What lies on disk, the contracts around it, and the score. Imports no sibling package."""

from typing import TYPE_CHECKING

from store.lazy import lazy_names

if TYPE_CHECKING:
    from store.catalog.demo.generate import make_demo as make_demo
    from store.catalog.ingest.run import ingest as ingest
    from store.catalog.read import read_split as read_split
    from store.config import ColumnConfig as ColumnConfig
    from store.config import Config as Config
    from store.config import load_config as load_config
    from store.config import save_config as save_config
    from store.errors import ShelfpriceError as ShelfpriceError
    from store.folds.assign import decide_folds as decide_folds
    from store.metric import smape as smape
    from store.metric import smape_scorer as smape_scorer
    from store.workspace import Workspace as Workspace

_MODULES = {
    "ColumnConfig": "store.config",
    "Config": "store.config",
    "ShelfpriceError": "store.errors",
    "Workspace": "store.workspace",
    "decide_folds": "store.folds.assign",
    "ingest": "store.catalog.ingest.run",
    "load_config": "store.config",
    "make_demo": "store.catalog.demo.generate",
    "read_split": "store.catalog.read",
    "save_config": "store.config",
    "smape": "store.metric",
    "smape_scorer": "store.metric",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
