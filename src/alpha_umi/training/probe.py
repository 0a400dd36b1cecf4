"""A probe: how often a backbone gets what can be known of a document exactly right.

Copying on and choosing what to copy are two abilities, and the second comes much later. Most tokens of a part follow
from the token before them; which name, value or function is meant shows in its first one alone, the part's *choice*.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from alpha_umi.training.corpus import KINDS

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def copying_probe(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, count: int = 40, seed: int = 1_000_003
) -> dict[str, dict[str, float]]:
    """Shares of tokens, choices and whole parts that the model gets right, by kind of document.

    The text before each token is the true one (teacher forcing), and only parts that can be known count. Where a part
    could be worded in two ways, the wrong guess of the wording counts as wrong.

    Args:
        model: On any device, in any precision.
        tokenizer: The nano tokenizer.
        count: Documents of each kind.
        seed: Of the documents; the pretraining corpus has other ones.
    """
    return {kind: _probe(model, tokenizer, kind, count, seed) for kind in KINDS}


def _probe(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, kind: str, count: int, seed: int
) -> dict[str, float]:
    import torch

    sums: dict[str, int] = defaultdict(int)
    for index in range(count):
        ids: list[int] = []
        spans: list[tuple[int, int]] = []
        for part in KINDS[kind][0](random.Random(f"probe/{seed}/{kind}/{index}")):
            piece = tokenizer(part.text, add_special_tokens=False)["input_ids"]
            assert isinstance(piece, list)
            if part.learn and ids:
                spans.append((len(ids), len(ids) + len(piece)))
            ids += piece
        with torch.inference_mode():
            row = torch.tensor([ids], device=model.device)
            guessed = model(input_ids=row, use_cache=False).logits[0].argmax(-1).tolist()
        for start, stop in spans:
            right = [guessed[at - 1] == ids[at] for at in range(start, stop)]
            sums["tokens"] += len(right)
            sums["right"] += sum(right)
            sums["parts"] += 1
            sums["exact"] += all(right)
            sums["choices"] += right[_choice(tokenizer, ids[start:stop])]
    return {
        "tokens_right": round(sums["right"] / max(sums["tokens"], 1), 4),
        "choices_right": round(sums["choices"] / max(sums["parts"], 1), 4),
        "parts_exact": round(sums["exact"] / max(sums["parts"], 1), 4),
    }


def _choice(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> int:
    """Which token of a part tells what it is about: the first one with a letter or digit."""
    words = (any(map(str.isalnum, tokenizer.decode([token]))) for token in ids)
    return next((place for place, word in enumerate(words) if word), 0)
