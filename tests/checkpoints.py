"""Tiny Llama checkpoints with random weights, that read and write bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from alpha_umi.engines.checkpoint import Checkpoint

SHAPE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 8192,
}  # fmt: skip


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and the end that Llama models stop at."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {"</s>": 0} | {letter: number for number, letter in enumerate(alphabet, 1)}
    backend = Tokenizer(models.BPE(vocab=words, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")


def random_checkpoint(seed: int, **shape: Any) -> Checkpoint:
    """As `load_checkpoint` would return it."""
    tokenizer = byte_tokenizer()
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **(SHAPE | shape)))
    return Checkpoint(model.eval(), tokenizer)


def save_checkpoint(seed: int, directory: Path, **shape: Any) -> str:
    """Saves one as it would be downloaded; its name."""
    made = random_checkpoint(seed, **shape)
    made.model.save_pretrained(directory)
    made.tokenizer.save_pretrained(directory)
    return str(directory)
