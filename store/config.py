"""`shelfprice.toml` -> frozen dataclasses. An unknown key or a wrong type is an error that names it."""

import dataclasses
import os
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from store.errors import ConfigError, WorkspaceError
from store.workspace import Workspace

CONFIG_FILE = "shelfprice.toml"
LAST_CONFIG_FILE = "shelfprice.toml.last"  # a copy of the settings that were last used
Grouping = Literal["auto", "none", "exact", "near"]
Table = TypeVar("Table")
RowPolicy = Literal["keep", "drop"]
RangePolicy = Literal["refuse", "mid"]
DecimalMark = Literal["auto", "point", "comma"]
ImagePolicy = Literal["all", "first"]
GroupPolicy = Literal["keep", "drop", "median", "first", "weight"]
ROW_NUMBER = "row-number"  # given instead of a column of ids


@dataclass(frozen=True)
class ColumnConfig:
    """Column names of the user's files, and how their cells are read.

    >>> ColumnConfig(sample_id="sku", text="title", more_text=("about",), price="usd").image_link
    'image_link'
    """

    sample_id: str = "sample_id"  # column of ids; "row-number": rows are numbered from 1
    test_id: str = ""  # column of ids of the test file; empty: as in the training file
    text: str = "catalog_content"  # column of the text that describes the product
    more_text: tuple[str, ...] = ()  # further columns of text, written after it under their names
    image_link: str = "image_link"  # column of links to images, or of file names
    price: str = "price"  # column of prices, in one currency
    numeric: tuple[str, ...] = ()  # further columns that are read as numbers; others by their values
    categorical: tuple[str, ...] = ()  # further columns that are read as categories; others by their values
    left_out: tuple[str, ...] = ()  # columns that are not read
    images_per_row: ImagePolicy = "all"  # images of a row that are embedded; all: their vectors are averaged
    group: str = ""  # column of groups, such as the seller: rows of one value share a fold; empty: none
    time: str = ""  # column of times: each fold is then predicted from earlier rows only; empty: none
    weight: str = ""  # column of row weights in fits and scores; empty: none
    decimal: DecimalMark = "auto"  # mark before the decimals of prices; auto: found from the prices
    # what happens with a price such as 10-12: refuse the row, or take the middle
    price_range: RangePolicy = "refuse"
    max_rejected: float = 0.05  # share of a file's rows that may be refused


@dataclass(frozen=True)
class EmbedConfig:
    """Which vectors a run computes, and how many inputs may fail."""

    # vector sets that 'embed run' computes: encoders, for texts with a composition
    vectors: tuple[str, ...] = ("minilm@structured", "efficientnet-lite0-stages")
    max_failures: float = 0.01  # largest share of inputs that may fail
    # largest difference between train and test in the share of rows without a vector
    max_coverage_gap: float = 0.05


@dataclass(frozen=True)
class FoldConfig:
    """How training rows are divided into folds."""

    k: int = 5  # number of folds, at least 2
    # rows that share a fold; auto: the grouping with which training rows have relatives in other folds about as often
    # as test rows have them in train
    group: Grouping = "auto"


@dataclass(frozen=True)
class CleanConfig:
    """What training does with each finding of `shelfprice catalog clean`; rows that are scored are never changed."""

    same_text_image: GroupPolicy = "keep"  # rows of the same text and image
    same_image: GroupPolicy = "keep"  # the same image, other texts
    same_text: GroupPolicy = "keep"  # the same text, other images
    near_text: GroupPolicy = "keep"  # nearly the same text
    near_image: GroupPolicy = "keep"  # nearly the same image
    price: GroupPolicy = "keep"  # copies of one product with other prices
    outlier: RowPolicy = "keep"  # prices far from those of similar rows
    quantity: RowPolicy = "keep"  # value and unit that fit no size in the title
    encoding: RowPolicy = "keep"  # texts with broken characters
    language: RowPolicy = "keep"  # texts in another language than most


@dataclass(frozen=True)
class HeadConfig:
    """Which heads a run trains, and parameters that differ from their defaults."""

    # heads that 'heads run' trains; empty: chosen by rows and columns, see 'heads plan'
    run: tuple[str, ...] = ()
    # vector sets that heads read, unless a head's own parameter names others
    vectors: tuple[str, ...] = ("minilm@structured", "efficientnet-lite0-stages")
    # also train each head on a sample of the rows, which corrects the expected score to a model of all rows
    learning_curve: bool = True
    params: dict[str, dict[str, Any]] = field(default_factory=dict)  # head -> parameter -> value

    @property
    def own_vectors(self) -> list[str]:
        """Vector sets that single heads read; a wrong name is an error when the head is trained."""
        lists = [params["vectors"] for params in self.params.values() if "vectors" in params]
        return [
            name
            for names in lists
            if isinstance(names, (list, tuple))
            for name in names
            if isinstance(name, str)
        ]


@dataclass(frozen=True)
class SubmissionConfig:
    """What prices are submitted."""

    price_floor: float = 0.01  # lowest price that is submitted and scored


@dataclass(frozen=True)
class Config:
    """Settings of one run, as `shelfprice.toml` holds them; every one has a default.

    >>> Config(folds=FoldConfig(k=10)).folds.k
    10
    """

    seed: int = 42  # seed of folds, heads and random draws
    columns: ColumnConfig = field(default_factory=ColumnConfig)
    embed: EmbedConfig = field(default_factory=EmbedConfig)
    folds: FoldConfig = field(default_factory=FoldConfig)
    heads: HeadConfig = field(default_factory=HeadConfig)
    clean: CleanConfig = field(default_factory=CleanConfig)
    submission: SubmissionConfig = field(default_factory=SubmissionConfig)


def load_config(workspace: Workspace | str | os.PathLike[str]) -> Config:
    """The workspace's configuration, or the defaults where it has none.

    >>> load_config("new").folds.k
    5

    Args:
        workspace: a workspace, or the path or address of one.

    Returns:
        Every setting of the run.

    Raises:
        ConfigError: not TOML, an unknown key, or a wrong type; names the key and what is expected. Or the file is
            missing or empty, and the workspace was made with other settings than the defaults.
    """
    workspace = Workspace.of(workspace)
    value = _read(workspace, CONFIG_FILE)
    if not value:
        lost = sorted(_settings(_last(workspace) or {}).items() - _settings(_DEFAULTS).items())
        if lost:
            path, last = workspace.path(CONFIG_FILE), workspace.path(LAST_CONFIG_FILE)
            found, place = "empty" if workspace.exists(CONFIG_FILE) else "gone", path
            if workspace.is_local and found == "gone" and os.path.islink(path):
                found, place = "a link that leads to no file", f"{path} in place of the link"
            raise ConfigError(
                f"{path} is {found}, but this workspace was made with {len(lost)} settings other than the defaults "
                f"(first: {lost[0][0]} = {lost[0][1]}): they are kept in {last}, copy it to {place}, or delete it to use "
                "the defaults"
            )
    try:
        return _config_of(value)
    except ConfigError as error:
        raise ConfigError(f"{error}{_way_back(workspace)}") from error


def _config_of(value: dict[str, Any]) -> Config:
    config = _build(Config, value, "")
    if config.folds.k < 2:
        raise ConfigError(f"{CONFIG_FILE}: folds.k must be at least 2, got {config.folds.k}")
    if not 0 <= config.seed < 2**32:
        raise ConfigError(f"{CONFIG_FILE}: seed must be from 0 to {2**32 - 1}, got {config.seed}")
    shares = {
        "columns.max_rejected": config.columns.max_rejected,
        "embed.max_failures": config.embed.max_failures,
        "embed.max_coverage_gap": config.embed.max_coverage_gap,
    }
    for name, share in shares.items():
        if not 0 <= share <= 1:  # NaN as well
            raise ConfigError(f"{CONFIG_FILE}: {name} must be a share from 0 to 1, got {share:g}")
    floor = config.submission.price_floor
    if not 0 < floor < float("inf"):
        raise ConfigError(f"{CONFIG_FILE}: submission.price_floor must be above 0, got {floor:g}")
    return config


def keep_settings(workspace: Workspace, log: Callable[[str], None]) -> None:
    """Report settings that changed since something was last made here, and record the present ones.

    Every command that makes something by the configuration calls it. A setting that was lost from the file gets its
    default, which is reported once.
    """
    now = _read(workspace, CONFIG_FILE)
    if not now or now == (before := _last(workspace)):
        return
    if before is not None:
        old, new = _settings(_DEFAULTS) | _settings(before), _settings(_DEFAULTS) | _settings(now)
        for name in sorted(name for name in {*old, *new} if old.get(name) != new.get(name)):
            log(f"{CONFIG_FILE} has changed: {name} {old.get(name, 'unset')} became {new.get(name, 'unset')}")
    with suppress(WorkspaceError):  # one that can't be written can still be looked at
        workspace.publish_bytes(LAST_CONFIG_FILE, workspace.read_bytes(CONFIG_FILE))


def _read(workspace: Workspace, file: str) -> dict[str, Any]:
    """What a TOML file holds; nothing where it does not exist."""
    if not workspace.exists(file):
        return {}
    try:
        return tomllib.loads(workspace.read_bytes(file).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        way_on = "" if file == LAST_CONFIG_FILE else _way_back(workspace)
        raise ConfigError(f"{workspace.path(file)} is not TOML: {error}{way_on}") from error


def _way_back(workspace: Workspace) -> str:
    """The end of a message about settings that can't be used; empty where no others are known."""
    last = _last(workspace)
    try:
        if last is None:
            return ""
        _config_of(last)
    except ConfigError:
        return ""
    return f": correct it, or go back to {workspace.path(LAST_CONFIG_FILE)}, which has the settings that were last used"


def _last(workspace: Workspace) -> dict[str, Any] | None:
    """The settings that something was last made with; None where that is not known."""
    try:
        return _read(workspace, LAST_CONFIG_FILE) or None
    except (ConfigError, WorkspaceError):
        return None


def _settings(table: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Every setting by its full name, its value as text."""
    found: dict[str, str] = {}
    for name, value in table.items():
        found |= (
            _settings(value, f"{prefix}{name}.")
            if isinstance(value, dict)
            else {f"{prefix}{name}": repr(value)}
        )
    return found


def check_table(cls: type[Table], value: dict[str, Any], where: str) -> Table:
    """A table of the configuration out of plain values, checked as if it stood in the file.

    Raises:
        ConfigError: an unknown key, or a value that it can't have.
    """
    built: Table = _build(cls, value, where)
    return built


def save_config(workspace: Workspace | str | os.PathLike[str], config: Config) -> None:
    """Write a configuration to `shelfprice.toml`.

    Comments, order and spelling of an existing file are kept: only values that differ are written, and settings that
    it lacks are added where they differ from their defaults.

    Args:
        workspace: a workspace, or the path or address of one.
        config: every setting of the run.

    Raises:
        WorkspaceError: the workspace can't be written.
    """
    import tomlkit

    workspace = Workspace.of(workspace)
    written, defaults = tomlkit.document(), {}
    if workspace.exists(CONFIG_FILE):
        written = tomlkit.parse(workspace.read_bytes(CONFIG_FILE).decode())
        defaults = _DEFAULTS
    _update(written, _plain(dataclasses.asdict(config)), defaults)
    workspace.publish_bytes(CONFIG_FILE, tomlkit.dumps(written).encode())


def _update(written: Any, wanted: dict[str, Any], defaults: dict[str, Any]) -> None:
    import tomlkit

    for key in [key for key in written if key not in wanted]:
        del written[key]
    for key, value in wanted.items():
        if key not in written and key in defaults and defaults[key] == value:
            continue
        if isinstance(value, dict):
            if key not in written:
                written[key] = tomlkit.table()
            _update(written[key], value, defaults.get(key, {}))
        elif key not in written or written[key] != value:
            written[key] = value


def _plain(value: Any) -> Any:
    """As TOML has it: tuples are lists."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _build(cls: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ConfigError(f"{CONFIG_FILE}: [{where}] must be a table, got {value!r}")
    hints = get_type_hints(cls)
    unknown = sorted(set(value) - set(hints))
    if unknown:
        key = f"{where}.{unknown[0]}" if where else unknown[0]
        raise ConfigError(f"{CONFIG_FILE}: unknown key {key!r}, expected one of {', '.join(sorted(hints))}")
    built = {key: _convert(hints[key], item, f"{where}.{key}".lstrip(".")) for key, item in value.items()}
    return cls(**built)


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where)  # type: ignore[arg-type]
    origin = get_origin(hint)
    if origin is Literal:
        if value not in get_args(hint):
            raise ConfigError(
                f"{CONFIG_FILE}: {where} must be one of {', '.join(get_args(hint))}, got {value!r}"
            )
        return value
    if origin is tuple:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ConfigError(f"{CONFIG_FILE}: {where} must be a list of strings, got {value!r}")
        return tuple(value)
    if origin is dict:
        if not isinstance(value, dict) or not all(isinstance(item, dict) for item in value.values()):
            raise ConfigError(f"{CONFIG_FILE}: [{where}] must hold one table per head, got {value!r}")
        return value
    accepted = (int, float) if hint is float else hint
    if not isinstance(value, accepted) or isinstance(value, bool) != (hint is bool):
        raise ConfigError(f"{CONFIG_FILE}: {where} must be {hint.__name__}, got {value!r}")
    return hint(value)


_DEFAULTS = _plain(dataclasses.asdict(Config()))
