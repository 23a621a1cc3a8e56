"""What the user asks for -> encoders, resolved, each with the vector sets wanted of it."""

from collections.abc import Sequence

from embed.encoders.base import Sources
from embed.encoders.registry import parse_address
from embed.encoders.resolve import resolve
from embed.job.catalog import CatalogSource
from embed.job.run import EncodeRequest
from store.catalog.read import present_splits
from store.config import load_config
from store.vectors.sets import VectorSet
from store.workspace import Workspace


def find_requests(
    workspace: Workspace, asked: Sequence[str], sources: Sources, precision: str = "auto"
) -> list[EncodeRequest]:
    """Resolve encoders and gather the sets of each.

    Args:
        asked: vector sets or encoders; an encoder alone stands for all its sets in the configuration (else for its
            default composition). Empty: every set of the configuration.
        precision: the policy, part of the fingerprint.

    Raises:
        CatalogError: nothing was ingested; before anything is written.
        ConfigError: an unknown composition, or one for images.
        EncoderError: an unknown encoder, or its files are missing.
    """
    present_splits(workspace)
    configured = load_config(workspace).embed.vectors
    names = [name for one in asked for name in _expand(one, configured)] or list(configured)
    sets: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        sets.setdefault(name.partition("@")[0], []).append(name)
    requests: list[EncodeRequest] = []
    for encoder, wanted in sets.items():
        towers_named = parse_address(encoder).tower is not None
        for resolved in resolve(workspace, encoder, sources, precision):
            is_text = resolved.spec.modality == "text"
            vector_sets: dict[VectorSet, None] = {}
            for name in wanted:
                at, composition = name.partition("@")[1:]
                if not is_text and not towers_named and resolved.spec.name != encoder:
                    at = composition = ""  # of a model with two towers the composition is for the text alone
                vector_sets[VectorSet.parse(f"{resolved.spec.name}{at}{composition}", is_text=is_text)] = None
            requests.append(EncodeRequest(resolved, CatalogSource(workspace, tuple(vector_sets))))
    return requests


def _expand(asked: str, configured: Sequence[str]) -> list[str]:
    if "@" in asked:
        return [asked]
    return [name for name in configured if name.partition("@")[0] == asked] or [asked]
