"""Everything that can change a vector, as plain data, and its digest, the fingerprint."""

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from store.errors import CorruptFileError

Modality = Literal["image", "text", "joint"]  # joint: texts, images, or both in one vector
FINGERPRINT_CHARACTERS = 16


def canonical_json(value: Any) -> bytes:
    """One spelling for one value: sorted keys, no spaces, no NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()


def digest(value: Any, characters: int = FINGERPRINT_CHARACTERS) -> str:
    """SHA-256 of the canonical JSON, shortened to 16 hex characters."""
    return hashlib.sha256(canonical_json(value)).hexdigest()[:characters]


def slug(name: str) -> str:
    """An encoder's name as part of a file name: an address may hold slashes, colons and question marks."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[-120:]


@dataclass(frozen=True)
class EncoderSpec:
    """All that can change a vector. What a machine chose by measuring is provenance and not part of it."""

    name: str  # `minilm`, `clip-vit-l14.image`; names the folder, not part of the fingerprint
    modality: Modality
    library: str  # "timm", "open_clip", "transformers", "sentence-transformers"
    model: str  # architecture or model name within the library
    weights_sha256: str
    dim: int
    preprocessing: dict[
        str, Any
    ]  # image: size, crop, interpolation, mean, std; text: tokenizer digest, max_tokens
    pooling: str  # "mean", "cls", "projection", "average"
    normalize: bool  # vectors scaled to unit length
    precision: str = "auto"  # the policy, not the choice: "auto", "fp32", "bf16", "fp16", "int8"
    fold: int | None = None  # of a fine-tuned encoder: the fold it never saw
    folds_hash: str | None = None
    code_version: int = 1  # raised when the same declaration yields other vectors
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """16 hex characters over everything but the name."""
        declared = dataclasses.asdict(self)
        del declared["name"]
        return digest(declared)

    @property
    def folder(self) -> str:
        """Where its shards lie in a workspace."""
        return f"vectors/{slug(self.name)}-{self.fingerprint}"

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "EncoderSpec":
        known = {f.name for f in dataclasses.fields(cls)}
        if not isinstance(value, dict) or not set(value) <= known:
            raise CorruptFileError(f"encoder.json holds unknown fields: {sorted(set(value) - known)}")
        return cls(**value)
