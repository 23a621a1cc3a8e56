"""Which vectors of each set the cache holds, and which nothing refers to. Reads keys only, no vectors."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from embed.job.recipes import changed_recipes
from embed.job.verify import DAMAGED_PREFIX
from store.catalog.images.links import LINKS_FILE
from store.config import Config
from store.errors import MissingVectorsError, ShelfpriceError
from store.inventory import CatalogHolding, catalog_holding
from store.rooms import Leftover, Room, Section, size_text
from store.vectors.folded import embedded_keys, folders_of
from store.vectors.keys import among
from store.vectors.sets import (
    TUNED,
    VECTORS,
    VectorSet,
    current_encoders,
    current_file,
    current_spec,
    iter_image_keys,
)
from store.vectors.shard import shard_names
from store.vectors.spec import EncoderSpec
from store.workspace import Workspace


@dataclass(frozen=True)
class SetCoverage:
    """Which rows of a split have a vector of one set."""

    rows: int
    have: int
    failed: int
    missing: int  # rows with content that was never embedded


@dataclass(frozen=True)
class VectorHolding:
    """One vector set that the configuration or the workspace knows."""

    name: str
    is_configured: bool
    fingerprint: str | None  # None: never embedded
    dim: int | None
    n_shards: int
    n_bytes: int
    coverage: dict[str, SetCoverage]  # split -> rows
    problem: str | None  # what can't be read, in words

    @property
    def missing(self) -> int:
        return sum(split.missing for split in self.coverage.values())


def vector_holdings(
    workspace: Workspace, config: Config, catalog: CatalogHolding | None
) -> list[VectorHolding]:
    """Every configured vector set in its order, then what else was embedded."""
    configured = configured_sets(config)
    encoders = {name.partition("@")[0] for name in configured}
    others = [name for name in current_encoders(workspace) if name not in encoders]
    reader = _CoverageReader(workspace, catalog)
    return [reader.holding(name, name in configured) for name in [*configured, *others]]


def configured_sets(config: Config) -> list[str]:
    """Vector sets that the configuration names, each once."""
    return list(dict.fromkeys([*config.embed.vectors, *config.heads.vectors, *config.heads.own_vectors]))


class _CoverageReader:
    """Reads the keys of each encoder once, however many sets share them."""

    def __init__(self, workspace: Workspace, catalog: CatalogHolding | None) -> None:
        self._workspace, self._catalog = workspace, catalog
        self._keys: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def holding(self, name: str, is_configured: bool) -> VectorHolding:
        splits = self._catalog.splits if self._catalog is not None else {}
        try:
            spec = current_spec(self._workspace, name.partition("@")[0])
        except MissingVectorsError:
            is_text = "@" in name  # without a spec nothing else tells
            nothing_yet = {
                split: SetCoverage(n.rows, 0, 0, n.rows if is_text else n.with_image)
                for split, n in splits.items()
            }
            return VectorHolding(name, is_configured, None, None, 0, 0, nothing_yet, None)
        coverage, problem = {}, None
        try:
            vector_set = VectorSet.parse(name, spec.modality)
            coverage = {split: self._coverage(spec, vector_set, split) for split in splits}
        except ShelfpriceError as error:
            problem = str(error)
        folders = folders_of(spec)
        return VectorHolding(
            name=str(vector_set) if problem is None else name,
            is_configured=is_configured,
            fingerprint=spec.fingerprint,
            dim=spec.dim,
            n_shards=sum(len(shard_names(self._workspace, folder)) for folder in folders),
            n_bytes=sum(self._workspace.folder_bytes(folder) for folder in folders),
            coverage=coverage,
            problem=problem,
        )

    def _coverage(self, spec: EncoderSpec, vector_set: VectorSet, split: str) -> SetCoverage:
        if spec.folder not in self._keys:
            self._keys[spec.folder] = embedded_keys(self._workspace, spec)
        have, failed = self._keys[spec.folder]
        n_rows = n_have = n_failed = n_missing = 0
        for parts in iter_image_keys(self._workspace, vector_set, split):
            found, bad, lacks = np.zeros((3, parts[0][0].num_rows), dtype=bool)
            for _, keys in parts:
                here, wrong = among(have, keys), among(failed, keys)
                found |= here
                bad |= wrong
                lacks |= keys.is_valid().to_numpy(zero_copy_only=False) & ~here & ~wrong
            n_rows += len(found)
            n_have += int((found & ~lacks).sum())
            n_failed += int((bad & ~found & ~lacks).sum())
            n_missing += int(lacks.sum())
        return SetCoverage(n_rows, n_have, n_failed, n_missing)


# ---- as `status` and `prune` ask for it ----------------------------------------------------------


def sections(workspace: Workspace, config: Config) -> Iterator[Section]:
    """Every vector set that the configuration or the workspace knows."""
    holdings = vector_holdings(workspace, config, catalog_holding(workspace))
    width = max((len(one.name) for one in holdings), default=0) + 2
    lines = tuple(f"{one.name:<{width}}{_line(one)}" for one in holdings)
    yield Section(20, "vectors", lines, {"vectors": holdings}, _step(holdings, config))
    if changed := changed_recipes(workspace):
        yield Section(21, "recipes", tuple(changed), {"recipes": changed})


def _step(holdings: list[VectorHolding], config: Config) -> tuple[str, str] | None:
    lost = next((one.problem for one in holdings if one.problem and LINKS_FILE in one.problem), None)
    if lost is not None:
        return "shelfprice catalog ingest --train FILE --test FILE --images DIR", lost
    broken = [one.name for one in holdings if one.is_configured and one.problem]
    if broken:
        return "shelfprice embed verify", f"vectors of {', '.join(broken)} can't be read"
    lacking = [one for one in holdings if one.is_configured and one.missing]
    if not lacking:
        return None
    rows = ", ".join(f"{one.name} {one.missing:,}" for one in lacking)
    frozen = [one.name for one in lacking if not one.name.startswith(TUNED)]
    command = "run" if frozen else "finetune ENCODER..."
    if set(frozen) - set(config.embed.vectors):  # a run embeds those, or what it is told
        command += "".join(f" -e {shlex.quote(name)}" for name in frozen)
    return f"shelfprice embed {command}", f"rows without a vector: {rows}"


def _line(one: VectorHolding) -> str:
    if one.problem is not None:
        return one.problem
    parts = []
    for split, rows in one.coverage.items():
        notes = [f"{rows.failed:,} failed"] if rows.failed else []
        notes += [f"{rows.missing:,} missing"] if rows.missing else []
        parts.append(f"{split} {rows.have:,} of {rows.rows:,}" + (f" ({', '.join(notes)})" if notes else ""))
    about = f"{one.dim} numbers each, {size_text(one.n_bytes)}" if one.fingerprint else "never embedded"
    extra = "" if one.is_configured else ", not configured"
    return f"{', '.join(parts)}{'; ' if parts else ''}{about}{extra}"


def leftovers(workspace: Workspace, config: Config) -> Iterator[Leftover]:
    """Folders of vectors that the configuration doesn't refer to, and damaged files put aside in those it does."""
    current = {name: current_spec(workspace, name) for name in current_encoders(workspace)}
    configured = {name.partition("@")[0] for name in configured_sets(config)}
    kept = {
        folder
        for name, spec in current.items()
        if any(name == encoder or name.startswith(f"{encoder}.") for encoder in configured)
        for folder in folders_of(spec)
    }
    for folder in (f"{VECTORS}/{name}" for name in workspace.names(VECTORS)):
        if not workspace.exists(f"{folder}/encoder.json"):
            continue
        locks = tuple(f"{folder}/{name}" for name in {"lock", *workspace.names(folder, "lock")})
        name = EncoderSpec.from_json(workspace.read_json(f"{folder}/encoder.json")).name
        is_current = name in current and folder in folders_of(current[name])
        if folder not in kept:
            why = (
                f"the configuration reads no vectors of {name}"
                if is_current
                else f"an earlier recipe of {name}"
            )
            first = (current_file(workspace, name),) if is_current else ()
            yield Leftover(folder, workspace.folder_bytes(folder), why, locks, first)
            continue
        for damaged in workspace.names(folder, DAMAGED_PREFIX):
            path = f"{folder}/{damaged}"
            yield Leftover(path, workspace.size(path), "damaged, put aside and embedded again", locks)


def disk(workspace: Workspace) -> dict[str, int]:
    return {"vectors": workspace.folder_bytes(VECTORS)}


room = Room(sections, leftovers, disk)
