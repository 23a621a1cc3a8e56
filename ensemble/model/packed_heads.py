"""Fitted heads of a blend -> files of a model, compared with their predictions."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.inputs import read_test_log_prices
from ensemble.model.pricing import HEADS, Pricer
from heads.features.inputs import Inputs, read_inputs
from heads.fitted import TREE
from heads.run import FITTED
from store.config import load_config
from store.errors import HeadError, RowMismatchError
from store.folds.assign import read_folds
from store.names import file_name
from store.predictions import damaged_files
from store.vectors.folded import is_folded
from store.vectors.sets import TUNED, VectorSet, current_spec
from store.workspace import Workspace

CHECKED_ROWS = 2000  # test rows that the packed heads price again
TOLERANCE = 1e-6  # log price

Log = Callable[[str], None]


def head_inputs(workspace: Workspace, head: str, folder: str, log: Log) -> dict[str, Any]:
    """What a head's predictions depend on; fits it again where it was not kept or is damaged."""
    if head.startswith(TUNED):
        raise HeadError(
            f"{head} is tuned along with its encoders, fold by fold, and can't be packed: blend the others with "
            "'shelfprice ensemble blend --standing --head NAME …'"
        )
    inputs: dict[str, Any] = workspace.read_json(f"{folder}/head.json")["inputs"]
    for name, *_ in inputs["vectors"]:
        spec = current_spec(workspace, name.partition("@")[0])
        why = {
            "is fine-tuned fold by fold": is_folded(spec),
            "embeds image and text together": spec.modality == "joint",
        }
        for said in (said for said, is_so in why.items() if is_so):
            raise HeadError(
                f"{head} reads {name}, which {said}, and can't be packed: blend the others with "
                "'shelfprice ensemble blend --standing --head NAME …'"
            )
    damaged = [name for name in damaged_files(workspace, folder) if name.startswith(f"{FITTED}/")]
    if damaged or not workspace.exists(f"{folder}/{FITTED}/{TREE}"):
        problem = (
            f"{workspace.path(folder)}/{damaged[0]} is damaged or gone"
            if damaged
            else "was not kept as fitted"
        )
        log(f"{head}: {problem}: it is fitted again")
        _fit_again(workspace, head, folder)
    return inputs


def _fit_again(workspace: Workspace, head: str, folder: str) -> None:
    """Train a head anew in the place of predictions that were made without keeping it."""
    from heads.fitted import write_fitted
    from heads.plan import plan_heads
    from heads.run import train_head
    from store.catalog.read import catalog_digest

    folds, config = read_folds(workspace), load_config(workspace)
    ((_, plan),) = plan_heads(workspace, config, [head], folds, catalog_digest(workspace))
    if isinstance(plan, Exception) or plan.folder != folder:
        raise HeadError(
            f"{head} of the blend was trained with other parameters than now: run 'shelfprice heads run --head {head}' and "
            "'shelfprice ensemble blend'"
        ) from (plan if isinstance(plan, Exception) else None)
    inputs = read_inputs(workspace, [one.vector_set for one in plan.sets], plan.head.texts, folds)
    model = train_head(workspace, plan, inputs, lambda line: None)
    assert model.status == "trained"
    if not workspace.exists(f"{folder}/{FITTED}/{TREE}"):
        write_fitted(
            head, [plan.head.clone().fit(inputs.train, inputs.log_price)]
        )  # raises: names what it can't write
        raise HeadError(
            f"{head} was not kept as fitted: blend the others with "
            "'shelfprice ensemble blend --standing --head NAME …'"
        )


def write_head(
    workspace: Workspace, work: Path, head: str, folder: str, inputs: dict[str, Any]
) -> dict[str, Any]:
    """Copy a fitted head into the model; its entry in the manifest."""
    name = file_name(head, "a head")
    target = work / HEADS / name
    target.mkdir(parents=True)
    for file in workspace.names(f"{folder}/{FITTED}"):
        (target / file).write_bytes(workspace.read_bytes(f"{folder}/{FITTED}/{file}"))
    return {"name": head, "folder": name, "sets": [one[0] for one in inputs["vectors"]]}


def vector_sets(workspace: Workspace, inputs_of: Mapping[str, dict[str, Any]]) -> list[VectorSet]:
    """Vector sets of all heads; those that the heads were fitted on."""
    found: dict[str, VectorSet] = {}
    for head, inputs in inputs_of.items():
        for name, fingerprint, *_ in inputs["vectors"]:
            spec = current_spec(workspace, name.partition("@")[0])
            if spec.fingerprint != fingerprint:
                raise RowMismatchError(
                    f"{head} was fitted on {name} of fingerprint {fingerprint}, and {spec.fingerprint} stands now: run "
                    f"'shelfprice heads run --head {head}' and 'shelfprice ensemble blend'"
                )
            found[name] = VectorSet.parse(name, spec.modality)
    return list(found.values())


def check_heads(workspace: Workspace, pricer: Pricer, folders: dict[str, str], found: Inputs) -> None:
    """Compare the prices of packed heads for test rows with their predictions."""
    if found.test is None:
        return
    index = np.arange(0, len(found.test), max(1, len(found.test) // CHECKED_ROWS))
    rows = found.test.subset(index)
    expected = read_test_log_prices(workspace, folders, found.test.sample_id)[index]
    got = pricer.log_prices(rows)
    for at, head in enumerate(folders):
        apart = np.abs(got[:, at] - expected[:, at])
        if apart.max() > TOLERANCE:
            worst = int(apart.argmax())
            raise RowMismatchError(
                f"{head} as packed prices test row {rows.sample_id[worst]} at {np.exp(got[worst, at]):.6g}, and its "
                f"predictions say {np.exp(expected[worst, at]):.6g}, as those of another version may: delete "
                f"{workspace.path(folders[head])}, then run 'shelfprice heads run --head {head}' and "
                "'shelfprice ensemble blend'"
            )
