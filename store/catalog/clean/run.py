"""Finds what is doubtful in the catalogue and decides about it by policy."""

import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from store.catalog.clean.decide import decisions_digest, decisions_table
from store.catalog.clean.images import alike_pairs, perceptual_hashes
from store.catalog.clean.prices import contradictions, outliers
from store.catalog.clean.quantity import disagreements
from store.catalog.clean.rows import Catalogue, Finding, read_catalogue
from store.catalog.clean.texts import encoding_damage, other_languages
from store.catalog.clean.twins import exact_twins, near_images, near_texts, repeats_of_train
from store.catalog.images.open import quiet_pillow
from store.catalog.read import catalog_digest
from store.cleaning import CLEANING_FILE, CONTRADICTION
from store.config import CleanConfig, load_config, save_config
from store.errors import ConfigError
from store.folds.assign import ensure_folds
from store.workspace import Workspace

CODE_VERSION = 2  # raised when the same catalogue yields other findings

FINDINGS = {
    "same_text_image": "same text and same image (or neither has one)",
    "same_image": "same image, other text",
    "same_text": "same text, other image",
    "near_text": "nearly the same text",
    "near_image": "nearly the same image",
    "price": "prices of one text that contradict",
    "outlier": "price far from its neighbours'",
    "quantity": "Value and Unit disagree with the title",
    "encoding": "damaged characters",
    "language": "another language or script",
    "test_repeats": "test rows that repeat train rows",
}


@dataclass(frozen=True)
class FindingReport:
    """What was found and decided of one kind, counted in rows."""

    name: str
    summary: str
    policy: str
    groups: int | None  # None: rows are found one by one
    train_rows: int
    test_rows: int
    decisions: dict[str, int]  # of training rows, for a fit on all of them


@dataclass(frozen=True)
class CleanReport:
    """What `shelfprice catalog clean` found and decided."""

    rows: int
    findings: list[FindingReport]
    dropped: int  # training rows that a fit on all rows does not see
    digest: str | None  # None: no decision changes a fit
    config_written: bool
    seconds: dict[str, float]


def with_policies(policies: CleanConfig, given: tuple[str, ...]) -> CleanConfig:
    """Policies changed as the options say, each FINDING=POLICY.

    Raises:
        ConfigError: an option is no pair, or names what does not exist.
    """
    from store.config import check_table

    pairs = {}
    for one in given:
        finding, equals, policy = one.partition("=")
        if not equals:
            raise ConfigError(f"a policy is written FINDING=POLICY, such as price=median, got {one!r}")
        pairs[finding.strip()] = policy.strip()
    return check_table(CleanConfig, dataclasses.asdict(policies) | pairs, "clean")


def clean_catalog(
    workspace: Workspace,
    given: tuple[str, ...] = (),
    processes: int = 2,
    log: Callable[[str], None] = lambda line: None,
) -> CleanReport:
    """Find, decide, and publish cleaning.parquet; the catalogue stays as it is.

    Args:
        given: policies that differ from shelfprice.toml, each FINDING=POLICY; they are saved there.

    Raises:
        CatalogError: no train catalogue, or rows that can't be split into folds.
        ConfigError: a policy or a finding is unknown.
    """
    before = load_config(workspace)
    config = dataclasses.replace(before, clean=with_policies(before.clean, given))
    folds = ensure_folds(workspace, config, log)
    seconds: dict[str, float] = {}
    rows = read_catalogue(workspace, folds)
    findings = find_all(rows, workspace, processes, seconds, log)
    table = decisions_table(rows, findings, config.clean)
    digest = decisions_digest(table)
    if config != before:
        save_config(workspace, config)
    metadata = {
        "catalog_digest": catalog_digest(workspace),
        "folds_hash": folds.hash,
        "policies": dataclasses.asdict(config.clean),
        "digest": digest,
        "contradiction": CONTRADICTION,
        "code_version": CODE_VERSION,
    }
    workspace.publish_table(CLEANING_FILE, table, metadata=metadata)
    dropped = table.filter(pc.equal(table["decision"], "drop"))["sample_id"]
    reports = [report_of(table, name, getattr(config.clean, name, "keep")) for name in FINDINGS]
    return CleanReport(len(rows), reports, len(pc.unique(dropped)), digest, config != before, seconds)


def _without_empty_images(rows: Catalogue, hashes: dict[str, bytes | None]) -> Catalogue:
    """An image that can't be decoded, or shows nothing, is no evidence that two rows are alike."""
    shown = pa.array([digest for digest, value in hashes.items() if value is not None], pa.string())
    image = pc.if_else(pc.is_in(rows.image, value_set=shown), rows.image, pa.scalar(None, pa.string()))
    return dataclasses.replace(rows, image=image)


def find_all(
    rows: Catalogue,
    workspace: Workspace,
    processes: int,
    seconds: dict[str, float],
    log: Callable[[str], None] = lambda line: None,
) -> list[Finding]:
    """Every finding, in the order of `FINDINGS`; `seconds` takes how long each step took.

    Images are hashed by other processes while the texts are looked at here.
    """
    found: dict[str, Finding] = {}

    def step(name: str, find: Callable[[], list[Finding]]) -> None:
        started = time.perf_counter()
        found.update((one.name, one) for one in find())
        seconds[name] = round(time.perf_counter() - started, 3)

    distinct = pc.unique(rows.image.drop_null()).to_pylist()
    with quiet_pillow(), ThreadPoolExecutor(1) as pool:
        hashing = pool.submit(perceptual_hashes, workspace, distinct, processes, log)
        step("near_text", lambda: [near_texts(rows)])
        step("price", lambda: [contradictions(rows)])
        step("outlier", lambda: [outliers(rows)])
        step("quantity", lambda: [disagreements(rows)])
        step("encoding", lambda: [encoding_damage(rows)])
        step("language", lambda: [other_languages(rows)])
        started = time.perf_counter()
        seen = _without_empty_images(rows, hashing.result())
        seconds["waiting for image hashes"] = round(time.perf_counter() - started, 3)
    step("exact", lambda: exact_twins(seen))
    step("near_image", lambda: [near_images(seen, lambda d: alike_pairs(workspace, d, processes))])
    step("test_repeats", lambda: [repeats_of_train(seen)])
    return [found[name] for name in FINDINGS]


def report_of(table: pa.Table, name: str, policy: str) -> FindingReport:
    """Counts of one finding in a table of decisions."""
    here = table.filter(pc.equal(table["finding"], name))
    train = here.filter(pc.equal(here["split"], "train"))
    counts = {row["values"]: row["counts"] for row in pc.value_counts(train["decision"]).to_pylist()}
    groups = len(pc.unique(here["group"].drop_null())) if len(here["group"].drop_null()) else None
    return FindingReport(name, FINDINGS[name], policy, groups, len(train), len(here) - len(train), counts)
