"""Findings and policies -> decisions: a row of cleaning.parquet for every row of every finding."""

import hashlib
import json

import numpy as np
import pyarrow as pa

from store.catalog.clean.rows import Catalogue, Finding
from store.cleaning import repeats
from store.config import CleanConfig
from store.schema import CLEANING

DIGEST_CHARACTERS = 16


def decisions_table(rows: Catalogue, findings: list[Finding], policies: CleanConfig) -> pa.Table:
    """Columns of `store.schema.CLEANING`: what a fit on all training rows does about each."""
    parts = [_decide(rows, finding, getattr(policies, finding.name, "keep")) for finding in findings]
    schema = pa.schema([pa.field("sample_id", rows.sample_id.type), *CLEANING])
    return pa.concat_tables([part.cast(schema) for part in parts] or [schema.empty_table()])


def decisions_digest(table: pa.Table) -> str | None:
    """16 hex characters over every decision that can change a fit; None where none can."""
    effective = [
        (row["finding"], row["policy"], row["group"], row["sample_id"])
        for row in table.select(["finding", "policy", "group", "sample_id", "split"]).to_pylist()
        if row["policy"] != "keep" and row["split"] == "train"
    ]
    if not effective:
        return None
    content = json.dumps(sorted(effective, key=str), ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()[:DIGEST_CHARACTERS]


def _decide(rows: Catalogue, finding: Finding, policy: str) -> pa.Table:
    n_found = len(finding.rows)
    in_train = finding.rows < rows.n_train
    decision = np.full(n_found, "keep", dtype=object)
    if finding.group is None:
        decision[in_train] = policy
    else:
        position = np.flatnonzero(in_train)
        acts = position[repeats(finding.group[position])]
        if policy == "first":
            decision[acts] = "drop"
            decision[position[np.unique(finding.group[position], return_index=True)[1]]] = "keep"
        else:
            decision[acts] = policy
    group = pa.nulls(n_found, pa.int64()) if finding.group is None else pa.array(finding.group, pa.int64())
    return pa.table(
        {
            "sample_id": rows.sample_id.take(pa.array(finding.rows)),
            "split": pa.array(np.where(in_train, "train", "test").tolist(), pa.string()),
            "finding": pa.array([finding.name] * n_found, pa.string()),
            "group": group,
            "policy": pa.array([policy] * n_found, pa.string()),
            "decision": pa.array(decision.tolist(), pa.string()),
            "reason": pa.array(finding.reasons, pa.string()),
        }
    )
