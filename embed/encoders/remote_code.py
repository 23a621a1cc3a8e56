"""Models that bring code of their own: refused, unless the user trusts it; then its digest is part of the spec."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from embed.encoders.base import Address, HashFile, Sources
from embed.encoders.hub import digest_files
from store.errors import EncoderError

REMOTE_CODE = "remote_code"  # in a spec's `extra`: digest over the code that a model brought along
# Kinds that the library knows in part, and the entry of `config.json` that is positive where it is not enough: it has no
# experts, as nomic-embed-text-v2-moe has them.
KNOWN_IN_PART = {"nomic_bert": "moe_every_n_layers"}


def remote_code(
    address: Address, folder: Path, config: dict[str, Any], sources: Sources, hash_file: HashFile
) -> dict[str, str]:
    """What a spec's `extra` holds of a transformers model's own code; empty where the library knows the model.

    Raises:
        EncoderError: its code is needed and not trusted, or lies in another repository.
    """
    needed = _needed_code(config)
    return needed_code(address, folder, needed, sources, hash_file) if needed else {}


def needed_code(
    address: Address, folder: Path, needed: str, sources: Sources, hash_file: HashFile
) -> dict[str, str]:
    """The same where it is known that code named `needed` is.

    Raises:
        EncoderError: as `remote_code`.
    """
    if "--" in needed:
        repository = needed.partition("--")[0]
        raise EncoderError(
            f"{address.name}: transformers {version('transformers')} does not know this model, and its code lies in "
            f"another repository ({repository}), which is not run: use a version of the model that the library knows"
        )
    if not sources.trust_remote_code:
        raise EncoderError(
            f"{address.name}: transformers {version('transformers')} does not know this model, which brings its own code "
            f"({needed}): read it, then pass --trust-remote-code to run it, or use a model that the library knows"
        )
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.py"))
    if not names:
        raise EncoderError(f"{address.name}: {folder} lacks the code that it names ({needed})")
    return {REMOTE_CODE: digest_files(folder, names, hash_file)}


def _needed_code(config: dict[str, Any]) -> str | None:
    """The class of a model that the installed library does not have, as `auto_map` names it."""
    named = (config.get("auto_map") or {}).get("AutoModel")
    if not isinstance(named, str):
        return None
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    kind = str(config.get("model_type"))
    known = MODEL_MAPPING_NAMES.get(kind, ()) if kind in CONFIG_MAPPING_NAMES else ()
    if (config.get(KNOWN_IN_PART.get(kind, "")) or 0) > 0:
        return named
    return None if named.rpartition(".")[2] in ((known,) if isinstance(known, str) else known) else named
