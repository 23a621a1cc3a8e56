"""Which of torch's kernels may compute attention."""

from typing import Any

import torch


def avoid_wrong_attention(preprocessing: dict[str, Any]) -> None:
    """Turn torch's memory-efficient attention off on CUDA, for this process, where batches may have a length that it gets wrong.

    `padded_length` avoids such lengths but for the longest that the model takes. What is left computes attention in more
    memory, and right.

    Args:
        preprocessing: of the encoder.
    """
    if preprocessing.get("max_tokens", 0) % 32 == 1:
        torch.backends.cuda.enable_mem_efficient_sdp(False)
