"""The nano backbone: its shape, its pretraining and the copy that ships with the package."""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from alpha_umi.compute import probe_precision
from alpha_umi.run_directory import load_model, load_tokenizer, save_model, shipped_base
from alpha_umi.training.batch import GROUPS, Batch, Row, collate
from alpha_umi.training.corpus import Document, document, tokenizer_text
from alpha_umi.training.loop import StepReport, Trainer
from alpha_umi.training.objective import RowObjective, embedding_matrix
from alpha_umi.training.probe import copying_probe
from alpha_umi.training.recipe import NANO_BASE, NanoShape, PretrainRecipe
from alpha_umi.training.tokenizer import train_tokenizer
from alpha_umi.trajectory import atomic_write, write_json
from alpha_umi.transcript import IGNORED, NANO_END, ROLES, nano_token

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

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

    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    out = Path(recipe.out)
    base = out / "base"
    if (base / "training.json").exists():
        return base
    saved = out / "tokenizer"
    start = Path(str(shipped_base()) if recipe.start == NANO_BASE else recipe.start) if recipe.start else None
    if not (saved / "tokenizer.json").exists():
        tokenizer = new_tokenizer(recipe) if start is None else load_tokenizer(str(start))
        tokenizer.save_pretrained(saved)
    tokenizer = cast("PreTrainedTokenizerFast", load_tokenizer(str(saved)))
    model = new_model(recipe.shape, len(tokenizer), recipe.seed) if start is None else load_model(str(start))

    def batches(step: int) -> Batch:
        return collate(
            [packed_row(tokenizer, recipe.seed, step * recipe.rows + r, recipe.length) for r in range(recipe.rows)]
        )

    precision = probe_precision() if recipe.precision == "auto" else recipe.precision
    objective = RowObjective(model, batches, precision, recipe.compile)
    trainer = Trainer(objective, recipe.optimization, recipe.steps, out / "checkpoints", recipe.checkpoint_seconds)
    recent: deque[float] = deque(maxlen=100)

    def remember(report: StepReport) -> None:
        recent.append(report.loss)
        on_step(report)

    trainer.train(remember)
    _open_alike(model, tokenizer)
    save_model(model, tokenizer, base, torch.bfloat16)
    probe = copying_probe(load_model(str(base)), tokenizer)
    facts: dict[str, Any] = {
        "recipe": recipe.model_dump(mode="json"), "precision": precision, "counts": vars(trainer.counts),
        "before": json.loads((start / "training.json").read_text(encoding="utf-8")) if start is not None else None,
        "loss": round(sum(recent) / max(len(recent), 1), 4), "probe": probe, "torch": torch.__version__,
    }  # fmt: skip
    write_json(base / "training.json", facts)
    with atomic_write(base / "README.md") as file:
        file.write(base_card(facts))
    trainer.discard_checkpoints()
    return base


def _open_alike(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Gives the roles' headers the embedding of the assistant's: fine-tuning starts from a voice that can speak."""
    import torch

    embeddings = embedding_matrix(model)
    assistant, *roles = (tokenizer.convert_tokens_to_ids(nano_token(kind)) for kind in ("assistant", *ROLES))
    with torch.no_grad():
        for role in roles:
            embeddings[role] = embeddings[assistant]


def base_card(facts: dict[str, Any]) -> str:
    """The model card of a pretrained backbone."""
    shape = facts["recipe"]["shape"]
    legs = [facts]
    while legs[0].get("before"):
        legs.insert(0, legs[0]["before"])
    costs = [_leg(number, leg) for number, leg in enumerate(legs, 1)]
    rows = [
        f"| {kind} | {p['tokens_right']:.3f} | {p['choices_right']:.3f} | {p['parts_exact']:.3f} |"
        for kind, p in facts["probe"].items()
    ]
    return "\n".join([
        "---", "library_name: transformers", "license: apache-2.0", "tags: [alpha-umi, tiny]", "---", "",
        f"# {NANO_BASE}", "",
        f"A Llama of {shape['layers']} layers, {shape['hidden']} wide, with a byte-level BPE of {shape['vocabulary']} "
        "pieces: a backbone to fine-tune into a planner, a caller and a summarizer on a laptop. No chat model.", "",
        "**Data.** Procedural text in invented words (`alpha_umi.training.corpus`): reading schemas, copying names and "
        "values, JSON, following references, restating facts. No tool, template or value of ToolWorld; no text of "
        "anybody else. The loss is on what can be known from the text before it, not on values drawn at random.", "",
        "**Training.**", "",
        "| leg | steps | tokens | in the loss | FLOPs | minutes | mean loss of the last 100 steps |",
        "|---|---|---|---|---|---|---|", *costs, "",
        f"Forward passes in {facts['precision']}, torch {facts['torch']}. The recipes `recipes/nano-base*.yaml`, one a "
        "leg and in this order, make a backbone like it.", "",
        "**Probe** on unseen documents, teacher-forced, first choice of the saved bf16 weights:", "",
        "| kind of document | tokens right | of them the first that tells which | parts exact |", "|---|---|---|---|",
        *rows, "",
    ])  # fmt: skip


def _leg(number: int, facts: dict[str, Any]) -> str:
    counts = facts["counts"]
    tokens, learned, minutes = counts["tokens"] / 1e6, counts["loss_tokens"] / 1e6, counts["seconds"] / 60
    return (
        f"| {number} | {facts['recipe']['steps']} | {tokens:.1f} M | {learned:.1f} M "
        f"| {counts['flops']:.3g} | {minutes:.0f} | {facts['loss']:.3f} |"
    )
