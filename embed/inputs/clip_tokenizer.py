"""open_clip's own byte-pair tokenizer, run by the `tokenizers` library: the same ids, without the GIL."""

import html
import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from embed.encoders.base import Tokens
from embed.inputs.tokenizer import FastTokenizer, load_tokenizer

WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def clip_backend(simple: Any) -> Any:
    """A `tokenizers.Tokenizer` that cuts cleaned text as an `open_clip.tokenizer.SimpleTokenizer` does."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

    backend = Tokenizer(
        models.BPE(vocab=simple.encoder, merges=list(simple.bpe_ranks), end_of_word_suffix="</w>")
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    start, end = (simple.decoder[i] for i in (simple.sot_token_id, simple.eot_token_id))
    backend.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, simple.sot_token_id), (end, simple.eot_token_id)]
    )
    return backend


NO_PUNCTUATION = str.maketrans("_", " ", string.punctuation.replace("_", ""))


def cleaned(text: str, how: str) -> str:
    """A text as `open_clip.tokenizer.get_clean_fn(how)` leaves it; "none" leaves it as it is."""
    if how == "none":
        return text
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    if how == "canonicalize":
        text = text.translate(NO_PUNCTUATION)
    return " ".join((text if how == "whitespace" else text.lower()).split())


class CleaningTokenizer:
    """A fast tokenizer behind open_clip's cleaning of texts, and its padding where the model sees it.

    Args:
        fast: cuts to the model's length.
        clean: how a text is cleaned before: "whitespace", "lower", "canonicalize" or "none".
        pad_to: make every sequence this long, for a tower that attends to its padding; None: do not pad.
        pad_id: what to pad with.
        left: pad in front.
        strip: a token id to turn into 0, or None.
    """

    def __init__(
        self,
        fast: FastTokenizer,
        clean: str,
        *,
        pad_to: int | None = None,
        pad_id: int = 0,
        left: bool = False,
        strip: int | None = None,
    ) -> None:
        self._fast, self._clean = fast, clean
        self._pad_to, self._pad_id, self._left, self._strip = pad_to, pad_id, left, strip

    def record(self) -> dict[str, Any]:
        """All of it as JSON, for `tokenizer_from_record`."""
        padding = {
            "pad_to": self._pad_to,
            "pad_id": self._pad_id,
            "left": self._left,
            "strip": self._strip,
        }
        return {**self._fast.record(), "clean": self._clean, "padding": padding}

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Token ids of each text, in order."""
        tokens = self._fast([cleaned(text, self._clean) for text in texts])
        if self._pad_to is None and self._strip is None:
            return tokens
        weights = np.array([len(sequence) for sequence in tokens.sequences])
        sequences = [self._finished(sequence) for sequence in tokens.sequences]
        return Tokens(sequences, tokens.owner, tokens.n_truncated, weights)

    def _finished(self, sequence: np.ndarray) -> np.ndarray:
        if self._strip is not None:
            sequence = np.where(sequence == self._strip, 0, sequence).astype(np.int32)
        missing = (self._pad_to or 0) - len(sequence)
        if missing <= 0:
            return sequence
        return np.pad(
            sequence, (missing, 0) if self._left else (0, missing), constant_values=self._pad_id
        ).astype(np.int32)


def clip_tokenizer(
    folder: str | None, options: dict[str, Any], max_tokens: int, long: str, pad_to: int | None
) -> tuple[CleaningTokenizer, int]:
    """The tokenizer of a text tower, and the id that pads its batches.

    Args:
        folder: a Hugging Face tokenizer; None for open_clip's own.
        options: `tokenizer_kwargs` of the model's configuration.
        max_tokens: longest sequence, special tokens included.
        long: what becomes of longer texts, as in `text_preprocessing`.
        pad_to: as `CleaningTokenizer` takes it.

    Raises:
        EncoderError: the tokenizer can't be loaded.
    """
    from open_clip.tokenizer import SimpleTokenizer

    options = dict(options)
    if folder is None:
        simple = SimpleTokenizer(context_length=max_tokens, **options)
        fast = FastTokenizer(clip_backend(simple), max_tokens, long)
        return CleaningTokenizer(fast, options.get("clean", "lower"), pad_to=pad_to), 0
    clean = options.pop("clean", "whitespace")
    strips = options.pop("strip_sep_token", False)
    tokenizer = load_tokenizer(folder, **options)
    fast = FastTokenizer(tokenizer.backend_tokenizer, max_tokens, long)
    fast.check_same_as(tokenizer, folder)
    return CleaningTokenizer(
        fast,
        clean,
        pad_to=pad_to,
        pad_id=tokenizer.pad_token_id or 0,
        left=tokenizer.padding_side == "left",
        strip=tokenizer.sep_token_id if strips else None,
    ), tokenizer.pad_token_id or 0


def tokenizer_from_record(record: dict[str, Any]) -> FastTokenizer | CleaningTokenizer:
    """What `record()` of either tokenizer described; imports neither torch nor the model's library."""
    fast = FastTokenizer.from_record(record)
    return CleaningTokenizer(fast, record["clean"], **record["padding"]) if "clean" in record else fast
