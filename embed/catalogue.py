"""The vectors of a catalogue: computed as `shelfprice embed run` does, and read row by row."""

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embed.encoders.base import Resolved, Sources
from embed.forward.devices import DeviceSettings
from embed.job.limits import FailureLimits
from embed.job.request import find_requests
from embed.job.run import EmbedOptions, EmbedOutcome, Runner, run
from embed.job.share import Share
from store.catalog.read import read_split
from store.config import keep_settings, load_config
from store.errors import FoldMismatchError
from store.folds.assign import read_folds
from store.vectors.folded import FoldedMatrix, is_folded, load_any
from store.vectors.sets import VectorSet, current_spec
from store.workspace import Workspace

if TYPE_CHECKING:
    from embed.distributed.cluster import Cluster

logger = logging.getLogger(__name__)


def embed_catalogue(
    workspace: Workspace | str | os.PathLike[str],
    encoders: str | Sequence[str] | None = None,
    *,
    device: str = "auto",
    precision: str = "auto",
    models_dir: str | os.PathLike[str] | None = None,
    offline: bool = False,
    trust_remote_code: bool = False,
    batch_tokens: int | None = None,
    batch_size: int | None = None,
    publish_every: float = 60.0,
    retry_failed: bool = False,
    max_failures: float | None = None,
    max_coverage_gap: float | None = None,
    share: str | Share | None = None,
    cluster: "Cluster | None" = None,
    say: Callable[[str], None] = logger.info,
) -> list[EmbedOutcome]:
    """Embed every row that has no vector yet, as `shelfprice embed run` does.

    Whatever ends a run, the next goes on where it stopped. A run with nothing to do loads no model.

        >>> from embed import embed_catalogue
        >>> [outcome.n_embedded for outcome in embed_catalogue("run", "minilm@structured")]  # doctest: +SKIP
        [6500]

    Args:
        workspace: one with an ingested catalogue, or its folder or address.
        encoders: vector sets or encoders, such as "minilm@structured"; None: all of the configuration.
        device: "auto", "cpu", "cuda", "cuda:1", "mps", "all"; several as "cuda:0,cuda:1".
        precision: "auto": the fastest that keeps every measured row within cosine 0.999 of fp32; or "fp32", "bf16",
            "fp16", "int8". Part of what the cache tells apart.
        models_dir: folder of models carried over from a connected machine.
        offline: never ask the model hub; its local cache is still read.
        trust_remote_code: run the code that a model brings along, where its library does not know it.
        batch_tokens: most padded tokens of a forward pass; None: found by measuring.
        batch_size: most images of a forward pass; None: found by measuring.
        publish_every: seconds after which what is embedded is published at the latest.
        retry_failed: try inputs again that failed before.
        max_failures: largest share of inputs that may fail; None: of the configuration.
        max_coverage_gap: largest difference between train and test in the share of rows without a vector; None: of the
            configuration.
        share: "i/n": only the i-th of n shares of what is missing.
        cluster: of Ray, to run there; None: in this process.
        say: takes lines for people.

    Returns:
        What was done, an entry for each encoder; a model with two towers has two.

    Raises:
        CatalogError: nothing was ingested.
        ConfigError: an option or a vector set is not understood.
        EncoderError: an unknown encoder, or its files are missing or damaged.
        FailureLimitError: too many inputs fail, or the splits differ too much.
        WorkspaceError: the workspace can't be written. What was published stays.
    """
    workspace = Workspace.of(workspace)
    config = load_config(workspace).embed
    keep_settings(workspace, say)
    limits = FailureLimits(
        config.max_failures if max_failures is None else max_failures,
        config.max_coverage_gap if max_coverage_gap is None else max_coverage_gap,
    )
    settings = DeviceSettings(tuple(name.strip() for name in device.split(",")), batch_tokens, batch_size)
    asked = [encoders] if isinstance(encoders, str) else encoders or []
    sources = Sources(
        Path(models_dir) if models_dir is not None else None, offline, trust_remote_code=trust_remote_code
    )
    options = EmbedOptions(
        limits,
        retry_failed,
        Share.parse(share) if isinstance(share, str) else share,
        shard_seconds=publish_every,
    )
    where: Any = nullcontext() if cluster is None else cluster

    def load(resolved: Sequence[Resolved]) -> Sequence[Runner]:
        if cluster is not None:
            from embed.distributed.engine import load_on_ray

            return load_on_ray(workspace, resolved, cluster, settings)
        from embed.forward.fleet import load_engines

        return load_engines(workspace, resolved, settings)

    requests = find_requests(workspace, asked, sources, precision)
    with where:
        return run(workspace, requests, options, load, say)


def vectors(
    workspace: Workspace | str | os.PathLike[str],
    vector_set: str,
    split: str = "train",
    *,
    fold: int | None = None,
) -> np.ndarray:
    """The vectors of a split, row by row in the order of the catalogue; NaN where a row has none.

    A row has none where it has no such content (no image, no text), or where its content failed: `np.isnan(X[:, 0])`
    says which. Whoever wants the rows' ids reads `sample_id` of the same split, which is in the same order.

        >>> from embed import vectors
        >>> vectors("run", "minilm@structured").shape  # doctest: +SKIP
        (6500, 384)

    Args:
        workspace: one whose catalogue was embedded, or its folder or address.
        vector_set: `encoder@composition` for texts, `encoder` for images.
        split: "train" or "test".
        fold: of a fine-tuned encoder, which has vectors for each fold, made by a model that never saw that fold's rows.

    Returns:
        Shape (n_rows, dim), float32.

    Raises:
        CatalogError: that split was never ingested.
        MissingVectorsError: some row was never embedded; names the command.
        FoldMismatchError: the encoder is fine-tuned and no fold is named, or not one of its folds.
    """
    workspace = Workspace.of(workspace)
    read_split(workspace, split, ["sample_id"])  # says what is missing
    spec = current_spec(workspace, vector_set.partition("@")[0])
    wanted = VectorSet.parse(vector_set, spec.modality)
    folds_hash = read_folds(workspace).hash if is_folded(spec) else ""
    found = load_any(workspace, wanted, split, folds_hash)
    if isinstance(found, FoldedMatrix):
        if fold is None:
            raise FoldMismatchError(
                f"{vector_set} is fine-tuned and has vectors for each fold: name one, fold=0 say"
            )
        found = found.for_fold(fold)
    X: np.ndarray = found.X
    X[~found.valid] = np.nan
    return X
