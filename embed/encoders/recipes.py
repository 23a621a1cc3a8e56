"""What decides an encoder's vectors, in words; and how it differs from the recipe of earlier vectors."""

from collections.abc import Sequence
from typing import Any

from embed.encoders.base import PREPARED_BY, Resolved
from store.errors import CorruptFileError, MissingVectorsError
from store.vectors.sets import current_spec
from store.vectors.spec import EncoderSpec
from store.workspace import Workspace

Recipe = dict[str, str]  # what -> how, in words


def recipe_of(spec: EncoderSpec) -> Recipe:
    """Everything that decides a vector and can be said in words; digests can't."""
    inputs = spec.preprocessing
    recipe: Recipe = {}
    if "prompt" in inputs:
        shown = repr(inputs["prompt"]) if inputs["prompt"] else "none"
        left_out = "" if inputs.get("prompt_is_pooled", True) else ", left out of the pooling"
        recipe["prompt"] = shown + left_out
    if "max_tokens" in inputs:
        longer = {"truncate": "longer texts are cut", "chunks": "longer texts in pieces, averaged by length"}
        if inputs.get("prompt_of_chunks") == "each":
            longer["chunks"] += ", the prompt before each"
        recipe["text"] = f"at most {inputs['max_tokens']} tokens, {longer[inputs.get('long', 'truncate')]}"
    if "resize" in inputs:
        recipe["image"] = _geometry(inputs)
    if PREPARED_BY in inputs:
        patches = f", at most {inputs['max_patches']} patches" if "max_patches" in inputs else ""
        what = (
            "messages by the model's own template" if "messages_sha256" in inputs else "images of any shape"
        )
        recipe["inputs"] = f"{what}, prepared by {inputs[PREPARED_BY]}{patches}"
    recipe["pooling"] = spec.pooling
    cut = f", cut from {spec.extra['cut_from']}" if "cut_from" in spec.extra else ""
    recipe["vector"] = f"{spec.dim} numbers{cut}{', of unit length' if spec.normalize else ''}"
    recipe["precision"] = spec.precision
    for key, words in (
        ("quantized", "weights packed into {}"),
        ("remote_code", "code that came with the model is run (digest {:.12})"),
        ("head", "the {} that the weights end with is kept"),
    ):
        if key in spec.extra:
            recipe[key.replace("_", " ")] = words.format(spec.extra[key])
    if task := spec.extra.get("task"):
        recipe["task"] = f"adapter for {task['name']}"
    return recipe


def _geometry(inputs: dict[str, Any]) -> str:
    (height, width), (to_height, to_width) = inputs["size"], inputs["resize_to"]
    how = {
        "shortest": f"shortest edge to {min(to_height, to_width)}, aspect kept, centre kept",
        "longest": f"longest edge to {max(to_height, to_width)}, aspect kept, padded",
        "squash": f"squashed to {to_height} x {to_width}",
    }[inputs["resize"]]
    mean, std = (", ".join(f"{value:g}" for value in inputs[key]) for key in ("mean", "std"))
    return f"{height} x {width}: {how}, {inputs['interpolation']}; mean {mean}; std {std}"


def differences(before: EncoderSpec, now: EncoderSpec) -> list[str]:
    """What differs between two recipes, in words; the precision policy, which a run is asked for, aside."""
    old, new = recipe_of(before), recipe_of(now)
    return [
        f"{what} {old.get(what, 'none')} -> {new.get(what, 'none')}"
        for what in dict.fromkeys([*old, *new])
        if what != "precision" and old.get(what) != new.get(what)
    ]


def changed_recipe(workspace: Workspace, resolved: Resolved) -> str | None:
    """Why the vectors that heads read now are not those that the same address makes; None where they are."""
    try:
        before = current_spec(workspace, resolved.spec.name)
    except (MissingVectorsError, CorruptFileError):  # which a run writes anew
        return None
    return told(before, resolved.spec, resolved.notes) if differences(before, resolved.spec) else None


def told(before: EncoderSpec, now: EncoderSpec, notes: Sequence[str]) -> str:
    """One line for people."""
    why = f" ({'; '.join(notes)})" if notes else ""
    return (
        f"{now.name}: its vectors so far (fingerprint {before.fingerprint}) were made by another recipe than the address "
        f"stands for now: {'; '.join(differences(before, now))}{why}: they stay readable, and heads read them, until "
        "'shelfprice embed run' makes new ones"
    )
