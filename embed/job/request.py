"""What the user asks for -> encoders, resolved, each with the vector sets wanted of it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from embed.encoders.base import Sources
from embed.encoders.registry import parse_address
from embed.encoders.resolve import resolve
from embed.job.catalog import CatalogSource
from embed.job.run import EncodeRequest
from store.catalog.read import present_splits
from store.config import Config, load_config, save_config
from store.errors import ConfigError
from store.vectors.sets import TUNED, VectorSet
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
            is_image = resolved.spec.modality == "image"
            vector_sets: dict[VectorSet, None] = {}
            for name in wanted:
                at, composition = name.partition("@")[1:]
                if is_image and not towers_named and resolved.spec.name != encoder:
                    at = composition = ""  # of a model with two towers the composition is for the text alone
                vector_sets[
                    VectorSet.parse(f"{resolved.spec.name}{at}{composition}", resolved.spec.modality)
                ] = None
            requests.append(EncodeRequest(resolved, CatalogSource(workspace, tuple(vector_sets))))
    return requests


def unread_encoders(config: Config) -> list[str]:
    """Encoders of the configuration that are embedded and that no head is configured to read."""
    read = {name.partition("@")[0] for name in (*config.heads.vectors, *config.heads.own_vectors)}
    embedded = dict.fromkeys(name.partition("@")[0] for name in config.embed.vectors)
    return [
        name for name in embedded if name not in read and not any(one.startswith(f"{name}.") for one in read)
    ]


def leave_images_out(workspace: Workspace, sources: Sources) -> list[str]:
    """Take every set of image vectors out of the configuration, for this run and those after it.

    Returns:
        The sets that were taken out.

    Raises:
        ConfigError: no set of texts would be left to embed.
        EncoderError: an unknown encoder, or its files are missing.
    """
    config = load_config(workspace)
    texts: dict[str, list[str]] = {}  # set -> what is left of it
    for name in dict.fromkeys([*config.embed.vectors, *config.heads.vectors, *config.heads.own_vectors]):
        encoder, at, composition = name.partition("@")
        if encoder.startswith(TUNED):
            texts[name] = [name]
            continue
        found = [one.spec for one in resolve(workspace, encoder, sources)]
        kept = [f"{spec.name}{at}{composition}" for spec in found if spec.modality != "image"]
        texts[name] = [name] if len(kept) == len(found) else kept

    def without(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(left for name in names for left in texts[name]))

    if not without(config.embed.vectors):
        raise ConfigError("--no-images leaves nothing to embed: name a text encoder in embed.vectors")
    params = {
        head: values | ({"vectors": list(without(own))} if (own := _sets_of(values)) is not None else {})
        for head, values in config.heads.params.items()
    }
    heads = replace(config.heads, vectors=without(config.heads.vectors), params=params)
    embed = replace(config.embed, vectors=without(config.embed.vectors))
    save_config(workspace, replace(config, embed=embed, heads=heads))
    return [name for name, left in texts.items() if left != [name]]


def _sets_of(params: dict[str, Any]) -> list[str] | None:
    named = params.get("vectors")
    return named if isinstance(named, list) and all(isinstance(one, str) for one in named) else None


def _expand(asked: str, configured: Sequence[str]) -> list[str]:
    if "@" in asked:
        return [asked]
    return [name for name in configured if name.partition("@")[0] == asked] or [asked]
