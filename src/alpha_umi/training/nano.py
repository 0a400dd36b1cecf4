"""The nano backbone: its shape, its pretraining and the copy that ships with the package."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from alpha_umi.compute import probe_precision
from alpha_umi.training.corpus import Document, document, tokenizer_text
from alpha_umi.training.loop import GROUPS, Batch, Row, StepReport, Trainer, collate
from alpha_umi.training.recipe import NanoShape, PretrainRecipe
from alpha_umi.training.tokenizer import train_tokenizer
from alpha_umi.trajectory import write_json
from alpha_umi.transcript import IGNORED, NANO_END

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

_TEXT = GROUPS.index("text")


def new_model(shape: NanoShape, vocabulary: int, seed: int) -> LlamaForCausalLM:
    """A Llama of this shape with random weights, tied embeddings, in float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.intermediate,
        max_position_embeddings=shape.positions,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config)


def new_tokenizer(recipe: PretrainRecipe) -> PreTrainedTokenizerFast:
    """The tokenizer, trained on the procedural corpus alone."""
    texts = (tokenizer_text(recipe.seed, index) for index in range(recipe.tokenizer_documents))
    return train_tokenizer(texts, recipe.shape.vocabulary)


def encode_document(tokenizer: PreTrainedTokenizerFast, doc: Document, end: int) -> tuple[list[int], list[int]]:
    """Ids of a document and its labels: the ids of the parts that can be learned, `IGNORED` elsewhere."""
    ids: list[int] = []
    labels: list[int] = []
    for part in doc:
        piece = tokenizer.backend_tokenizer.encode(part.text, add_special_tokens=False).ids
        ids += piece
        labels += piece if part.learn else [IGNORED] * len(piece)
    return [*ids, end], [*labels, end]


def packed_row(tokenizer: PreTrainedTokenizerFast, seed: int, row: int, length: int) -> Row:
    """Row ``row`` of the corpus: documents one after another, the last one cut at ``length``."""
    end = tokenizer.convert_tokens_to_ids(NANO_END)
    assert isinstance(end, int)
    ids: list[int] = []
    labels: list[int] = []
    rng = random.Random(f"rows/{seed}/{row}")
    while len(ids) < length:
        more_ids, more_labels = encode_document(tokenizer, document(seed, rng.randrange(1 << 40)), end)
        ids += more_ids
        labels += more_labels
    return Row(ids[:length], labels[:length], [_TEXT] * length)


def pretrain(recipe: PretrainRecipe, on_step: Callable[[StepReport], None] = lambda report: None) -> Path:
    """Trains tokenizer and backbone and saves both to ``recipe.out`` (bf16 safetensors); resumes where it stopped."""
    import torch
    from transformers import AutoTokenizer

    out = Path(recipe.out)
    saved = out / "tokenizer"
    if not (saved / "tokenizer.json").exists():
        new_tokenizer(recipe).save_pretrained(saved)
    tokenizer = AutoTokenizer.from_pretrained(saved)
    model = new_model(recipe.shape, len(tokenizer), recipe.seed)

    def batches(step: int) -> Batch:
        return collate(
            [packed_row(tokenizer, recipe.seed, step * recipe.rows + r, recipe.length) for r in range(recipe.rows)]
        )

    precision = probe_precision() if recipe.precision == "auto" else recipe.precision
    trainer = Trainer(
        model, batches, recipe.optimization, recipe.steps, out / "checkpoints", precision,
        recipe.checkpoint_seconds, recipe.compile,
    )  # fmt: skip
    trainer.train(on_step)
    torch.nn.Module.to(model, torch.bfloat16)
    model.save_pretrained(out / "base")
    tokenizer.save_pretrained(out / "base")
    write_json(
        out / "training.json", {"recipe": recipe.model_dump(), "precision": precision, "counts": vars(trainer.counts)}
    )
    trainer.discard_checkpoints()
    return out / "base"
