"""Texts -> token ids with a fast tokenizer, in bounded memory and without the GIL."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embed.encoders.base import Tokens
from embed.encoders.hub import digest_files, quiet_loading
from store.errors import EncoderError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from embed.encoders.base import HashFile

CHUNK_TEXTS = 256  # encodings are some 150 bytes a token: few at a time
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
)


class FastTokenizer:
    """A copy of a `tokenizers.Tokenizer` with its own truncation and no padding.

    Args:
        backend: the model's tokenizer; left as it is.
        max_tokens: longest sequence, special tokens included.
        long: "truncate" drops what is beyond; "chunks" makes further sequences of it.
        prompt: put before every text.
    """

    def __init__(
        self, backend: "Tokenizer", max_tokens: int, long: str = "truncate", prompt: str = ""
    ) -> None:
        from tokenizers import Tokenizer

        self._backend = Tokenizer.from_str(backend.to_str())
        self._backend.no_padding()
        self._backend.enable_truncation(max_tokens)
        self._chunks = long == "chunks"
        self._prompt = prompt

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Token ids of each text, in order."""
        sequences: list[np.ndarray] = []
        owner: list[int] = []
        n_truncated = 0
        for start in range(0, len(texts), CHUNK_TEXTS):
            chunk = [self._prompt + text for text in texts[start : start + CHUNK_TEXTS]]
            for offset, encoding in enumerate(self._backend.encode_batch_fast(chunk)):
                parts = [encoding, *encoding.overflowing] if self._chunks else [encoding]
                sequences.extend(np.array(part.ids, dtype=np.int32) for part in parts)
                owner.extend([start + offset] * len(parts))
                n_truncated += bool(encoding.overflowing) and not self._chunks
        return Tokens(sequences, np.array(owner, dtype=np.int32), n_truncated)


def tokenizer_sha256(folder: Path, hash_file: "HashFile") -> str:
    """Digest over the files of a folder that decide token ids.

    Raises:
        EncoderError: the folder holds no tokenizer.
    """
    names = [name for name in TOKENIZER_FILES if (folder / name).is_file()]
    if not set(names) - {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"}:
        raise EncoderError(
            f"{folder} holds no tokenizer (tokenizer.json or a vocabulary): complete the folder"
        )
    return digest_files(folder, names, hash_file)


def load_tokenizer(folder: str, **options: Any) -> Any:
    """A fast Hugging Face tokenizer from a local folder; nothing in the folder is run.

    Raises:
        EncoderError: its files are damaged, or it has no fast form.
    """
    from transformers import AutoTokenizer

    try:
        with quiet_loading():
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, **options
            )
    except Exception as error:  # the library raises many kinds over damaged files
        reason = " ".join(str(error).split())[:200]
        raise EncoderError(
            f"{folder}: the tokenizer can't be loaded, its files are damaged or of a kind not known here: {reason}: "
            "fetch it again, or put a tokenizer.json there"
        ) from error
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise EncoderError(f"{folder}: {type(tokenizer).__name__} has no fast form (tokenizer.json)")
    return tokenizer
