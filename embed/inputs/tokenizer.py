"""Texts -> token ids with a fast tokenizer, in bounded memory and without the GIL."""

import copy
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embed.encoders.base import Tokens
from embed.encoders.hub import digest_files, quiet_loading
from store.errors import EncoderError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from embed.encoders.base import HashFile

PARALLELISM = "TOKENIZERS_PARALLELISM"  # of the library, which asks for it at every call
# open_clip switches it off, for everyone, when it is imported: only what was set before is the user's wish.
ASKED = None if "open_clip" in sys.modules else os.environ.get(PARALLELISM)
CHUNK_TEXTS = 256  # encodings are some 150 bytes a token: few at a time
CHUNK_CHARACTERS = 1_000_000  # of texts tokenised together
BOUND_CHARACTERS = (4096, 8)  # texts beyond so many, and so many more a token within reach, may be shortened
MOST_CHARACTERS = 1_000_000  # of any text: beyond, one word or one blank of megabytes takes minutes
BOUND_TOKENS = 2  # what is left of a shortened text fills the reach so many times
MOST_CHUNKS = 512  # of one text
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
# What a library's own tokenizer and ours must cut alike before any text is embedded.
PROBES = (
    "Red cotton shirt, pack of 6",
    "  Größe 42 — 6 × 330\u00a0ml 😀\n\tit's 50% off; é ﬁ ＡＢ",
    "x",
    "ACME™ 12-in-1 <b>kit</b> &amp; 日本語 ",
)


class FastTokenizer:
    """A copy of a `tokenizers.Tokenizer` with its own truncation and no padding.

    Args:
        backend: the model's tokenizer, left as it is; or its JSON.
        max_tokens: longest sequence, special tokens included.
        long: "truncate" drops what is beyond; "chunks" makes further sequences of it, each with the prompt.
        prompt: put before every text.
        special_tokens: add those that the model was trained with, at the start and the end.
    """

    def __init__(
        self,
        backend: "Tokenizer | str",
        max_tokens: int,
        long: str = "truncate",
        prompt: str = "",
        special_tokens: bool = True,
    ) -> None:
        from tokenizers import Tokenizer

        self._backend = Tokenizer.from_str(backend if isinstance(backend, str) else backend.to_str())
        self._backend.no_padding()
        self._backend.enable_truncation(max_tokens)
        self._max_tokens = max_tokens
        self._chunks = long == "chunks"
        self._prompt = prompt
        self._special_tokens = special_tokens
        if prompt and self.prompt_tokens + 2 > max_tokens:
            raise EncoderError(
                f"the prompt {prompt[:40]!r} alone takes {self.prompt_tokens} of {max_tokens} tokens: pass a shorter prompt= "
                "or a larger max_tokens="
            )
        if self._chunks and prompt:
            self._spans = copy.deepcopy(self._whole)
            self._spans.enable_truncation(max(3, max_tokens - len(self._whole.encode(prompt).ids)))

    @cached_property
    def _whole(self) -> "Tokenizer":
        """Without truncation; large vocabularies take a second to copy, and few texts need it."""
        whole = copy.deepcopy(self._backend)
        whole.no_truncation()
        return whole

    def record(self) -> dict[str, Any]:
        """All of it as JSON, for `from_record`."""
        return {
            "tokenizer": self._whole.to_str(),
            "max_tokens": self._max_tokens,
            "long": "chunks" if self._chunks else "truncate",
            "prompt": self._prompt,
            "special_tokens": self._special_tokens,
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "FastTokenizer":
        """The same tokenizer; imports neither torch nor the model's library."""
        return cls(*(record[key] for key in ("tokenizer", "max_tokens", "long", "prompt", "special_tokens")))

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Token ids of each text, in order."""
        sequences: list[np.ndarray] = []
        owner: list[int] = []
        n_truncated = 0
        for start, chunk, batch in self._ahead(self._parts(texts)):
            lists: list[list[int]] = []
            for offset, (encodings, is_cut) in enumerate(self._encoded(chunk, batch())):
                lists.extend(encoding.ids for encoding in encodings)
                owner.extend([start + offset] * len(encodings))
                n_truncated += is_cut
            ends = list(itertools.accumulate(map(len, lists), initial=0))
            ids = np.fromiter(itertools.chain.from_iterable(lists), np.int32, ends[-1])
            sequences.extend(ids[begin:end] for begin, end in itertools.pairwise(ends))
        return Tokens(sequences, np.array(owner, dtype=np.int32), n_truncated)

    @property
    def prompt_tokens(self) -> int:
        """Tokens in front of the text: a special one at the start, and the prompt's."""
        encoding = self._whole.encode(self._prompt)
        return len(encoding.ids) - bool(encoding.ids and encoding.special_tokens_mask[-1])

    def shortened(self, text: str) -> str:
        """A text without those characters at its end that no token within the model's length comes from.

        Tokenising takes up to a kilobyte of memory a character. A text is cut where what is left still fills the model
        twice, so that no vector changes, and beyond `MOST_CHARACTERS`.
        """
        reach = self._max_tokens * (MOST_CHUNKS if self._chunks else 1)
        limit = BOUND_CHARACTERS[0] + BOUND_CHARACTERS[1] * reach
        text = text[: max(MOST_CHARACTERS, limit)]
        while len(text) > limit:
            if len(self._whole.encode(text[:limit]).ids) >= BOUND_TOKENS * reach:
                return text[:limit]
            limit *= 2
        return text

    def _parts(self, texts: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
        """Texts in order, a few at a time, with the position of the first."""
        start, n_characters = 0, 0
        part: list[str] = []
        for at, text in enumerate(texts):
            text = self.shortened(text)
            if part and (len(part) == CHUNK_TEXTS or n_characters + len(text) > CHUNK_CHARACTERS):
                yield start, part
                start, part, n_characters = at, [], 0
            part.append(text)
            n_characters += len(text)
        if part:
            yield start, part

    def _ahead(
        self, parts: Iterator[tuple[int, list[str]]]
    ) -> Iterator[tuple[int, list[str], Callable[[], list[Any]]]]:
        """Each part with what gives its encodings; the next part is tokenised, without the GIL, while one is taken."""
        first, second = next(parts, None), next(parts, None)
        if first is None:
            return
        if second is None:
            yield *first, partial(self._batch, first[1])
            return
        with ThreadPoolExecutor(1, thread_name_prefix="tokenise") as thread:
            waiting = (*first, thread.submit(self._batch, first[1]))
            for start, part in itertools.chain([second], parts):
                following = (start, part, thread.submit(self._batch, part))
                yield waiting[0], waiting[1], waiting[2].result
                waiting = following
            yield waiting[0], waiting[1], waiting[2].result

    def _encoded(self, texts: list[str], batch: list[Any]) -> Iterator[tuple[list[Any], bool]]:
        """The sequences of each text, and whether it lost tokens."""
        for text, encoding in zip(texts, batch, strict=True):
            if not self._chunks or not encoding.overflowing:
                yield [encoding], bool(encoding.overflowing)
                continue
            parts = self._with_prompt(text) if self._prompt else [encoding, *encoding.overflowing]
            yield parts[:MOST_CHUNKS], len(parts) > MOST_CHUNKS

    def _batch(self, texts: list[str]) -> list[Any]:
        if ASKED is None:
            os.environ.pop(PARALLELISM, None)
        prompted = [self._prompt + text for text in texts]
        return self._backend.encode_batch_fast(prompted, add_special_tokens=self._special_tokens)

    def _with_prompt(self, text: str) -> list[Any]:
        """A long text's sequences, the prompt at the head of each."""
        first = self._spans.encode(text)
        spans = []
        for encoding in (first, *first.overflowing):
            offsets = [
                o
                for o, special in zip(encoding.offsets, encoding.special_tokens_mask, strict=True)
                if not special
            ]
            spans.append(text[offsets[0][0] : offsets[-1][1]] if offsets else "")
        return [self._backend.encode(self._prompt + span) for span in spans]

    def check_same_as(self, library: Any, name: str) -> None:
        """Refuse a tokenizer that does not cut as the model's own library does.

        Args:
            library: a Hugging Face tokenizer.
            name: of the encoder.

        Raises:
            EncoderError: token ids differ.
        """
        for text in (*PROBES, PROBES[-1] * (1 + self._max_tokens // 8)):
            theirs = library(self._prompt + text, truncation=True, max_length=self._max_tokens)["input_ids"]
            if theirs != self._backend.encode(self._prompt + text).ids:
                raise EncoderError(
                    f"{name}: its fast tokenizer cuts {text[:30]!r} otherwise than {type(library).__name__} does, so "
                    "vectors would be of other tokens than the model was trained with: put the tokenizer.json there "
                    "that belongs to the model"
                )


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


def load_tokenizer(folder: str, *, trust_remote_code: bool = False, **options: Any) -> Any:
    """A fast Hugging Face tokenizer from a local folder; nothing in the folder is run unless that is trusted.

    Raises:
        EncoderError: its files are damaged, or it has no fast form.
    """
    from transformers import AutoTokenizer

    try:
        with quiet_loading():
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=trust_remote_code, **options
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
