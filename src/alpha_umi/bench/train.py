"""``umi bench train``: the local stage against the usual ways of training three adapters.

The same transcripts are learnt by four peers, each in a process of its own, one after another:

    ours            activated adapters of all roles in one shared-prefix pass
    trl             TRL's SFTTrainer with PEFT LoRA, one sequence a trajectory, three adapters one after another, TRL's
                    defaults (gradient checkpointing is one of them)
    trl-plain       the same without gradient checkpointing
    layout          the paper's layout, one sample a step, LoRA, three adapters one after another

What is timed is optimizer steps after a warm-up; a step of every peer covers the same batch of transcripts.
"""

from __future__ import annotations

import importlib.util
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alpha_umi.bench.process import Settings, answer, measure, random_backbone, spread
from alpha_umi.bench.shapes import ShapeName, for_role, read_by, rows, step_by_step
from alpha_umi.errors import UserError
from alpha_umi.transcript import ROLES, Role

if TYPE_CHECKING:
    from alpha_umi.training.batch import Row

Peer = Literal["ours", "trl", "trl-plain", "layout"]
PEERS: tuple[Peer, ...] = ("ours", "trl", "trl-plain", "layout")
_WARM_UP = 1


@dataclass(frozen=True, kw_only=True)
class TrainBench(Settings):
    """What is measured.

    Attributes:
        transcripts: In a batch.
        rank: Of every adapter.
    """

    transcripts: int = 4
    rank: int = 16


def bench_train(
    settings: TrainBench, shapes: Sequence[ShapeName], on_peer: Callable[[str], None] = lambda name: None
) -> dict[str, Any]:
    """Measures every peer on every shape; ``runs`` has the seconds of a step and the peak memory.

    Raises:
        UserError: TRL isn't installed, a peer failed, or the data don't suffice.
    """
    if importlib.util.find_spec("trl") is None:
        raise UserError("TRL isn't installed; `make bench-setup` (or pip install 'alpha-umi[bench]') brings the peers")
    return measure(__name__, settings, shapes, PEERS, _ratios, on_peer)


def _ratios(found: dict[str, dict[str, float]]) -> dict[str, float]:
    ours, seconds = found["ours"], {peer: run["median_s"] for peer, run in found.items()}
    return {
        "local_speedup_vs_trl_lora": round(seconds["trl"] / ours["median_s"], 2),
        "local_speedup_vs_trl_lora_no_checkpointing": round(seconds["trl-plain"] / ours["median_s"], 2),
        "local_speedup_vs_paper_layout": round(seconds["layout"] / ours["median_s"], 2),
        "local_peak_memory_vs_one_lora": round(ours["peak_mb"] / found["trl-plain"]["peak_mb"], 3),
        "stage1_tokens_per_transcript_token": round(ours["padded"], 3),
        "paper_layout_tokens_per_transcript_token": round(ours["layout"], 2),
        "flops_floor_vs_trl_lora_no_checkpointing": round(ours["floor"], 2),
    }


# ---- in the peer's process


def _measure(settings: TrainBench, shape: ShapeName, peer: Peer) -> dict[str, float]:
    import torch

    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    read = rows(settings, shape, settings.transcripts)
    seconds = {"ours": _ours, "layout": _layout}.get(peer, _trl)(settings, read, peer)
    out = spread("s", seconds) | {"peak_mb": _peak_mb()}
    return out | (_counted(settings, read) if peer == "ours" else {})


def _peak_mb() -> float:
    import torch

    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def _counted(settings: TrainBench, rows: Sequence[Row]) -> dict[str, float]:
    """Tokens of the layouts, and how much faster the count of operations allows us to be."""
    from alpha_umi.training.batch import collate

    tokens, model = read_by(rows), random_backbone(settings)
    weights = sum(p.numel() for p in model.parameters()) - settings.vocabulary * settings.hidden
    spans = sum(s.span_stop - s.start for row in rows for s in row.segments)
    usual = 3 * 4.0 * weights * tokens
    ours = 2.0 * weights * tokens + 4.0 * weights * spans
    layout = sum(read_by(step_by_step(row, role)) for row in rows for role in ROLES)
    return {"padded": collate(rows).tokens / tokens, "layout": layout / tokens, "floor": usual / ours}


def _timed(step: Callable[[], None], rounds: int) -> list[float]:
    seconds: list[float] = []
    for number in range(_WARM_UP + rounds):
        started = time.perf_counter()
        step()
        if number >= _WARM_UP:
            seconds.append(time.perf_counter() - started)
    return seconds


def _ours(settings: TrainBench, rows: Sequence[Row], peer: Peer) -> list[float]:
    from alpha_umi.adapters import RoleAdapters
    from alpha_umi.run_directory import AdapterShape
    from alpha_umi.training.loop import Trainer
    from alpha_umi.training.optimizer import Optimization
    from alpha_umi.training.shared_prefix import SpanObjective

    adapters = RoleAdapters(random_backbone(settings), ROLES, AdapterShape(rank=settings.rank))
    objective = SpanObjective(adapters, lambda step: rows, "bf16")
    trainer = Trainer(objective, Optimization(), 1000, Path("/nonexistent"), checkpoint_seconds=float("inf"))
    numbers = iter(range(1, 1000))
    return _timed(lambda: trainer.train(stop_at=next(numbers)), settings.rounds)


def _layout(settings: TrainBench, rows: Sequence[Row], peer: Peer) -> list[float]:
    """One sample a step through PEFT, in batches as large as the one of whole transcripts."""
    import torch
    from peft import get_peft_model

    from alpha_umi.training.batch import collate
    from alpha_umi.training.objective import TokenLosses

    total: list[float] = [0.0] * settings.rounds
    for role in ROLES:
        model: Any = get_peft_model(random_backbone(settings), _lora(settings))  # pyright: ignore[reportArgumentType]
        losses = TokenLosses(model.get_base_model())
        optimizer = torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)
        samples = sorted((s for row in rows for s in step_by_step(row, role)), key=lambda sample: len(sample.ids))
        batches = [collate(samples[at : at + len(rows)]) for at in range(0, len(samples), len(rows))]

        def step(batches: Any = batches, losses: Any = losses, optimizer: Any = optimizer) -> None:
            for batch in batches:
                with torch.autocast("cuda" if torch.cuda.is_available() else "cpu", torch.bfloat16):
                    loss = losses(batch.ids, batch.select, batch.targets).mean()
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()

        total = [a + b for a, b in zip(total, _timed(step, settings.rounds), strict=True)]
    return total


def _lora(settings: TrainBench) -> Any:
    from peft import LoraConfig

    return LoraConfig(r=settings.rank, lora_alpha=2 * settings.rank, target_modules="all-linear", task_type="CAUSAL_LM")


def _trl(settings: TrainBench, rows: Sequence[Row], peer: Peer) -> list[float]:
    """SFTTrainer's own steps, from its step's beginning to its end."""
    total: list[float] = [0.0] * settings.rounds
    for role in ROLES:
        seconds = _trl_role(settings, rows, role, peer == "trl")
        total = [a + b for a, b in zip(total, seconds, strict=True)]
    return total


def _trl_role(settings: TrainBench, rows: Sequence[Row], role: Role, checkpointing: bool) -> list[float]:
    import torch
    from datasets import Dataset  # pyright: ignore[reportMissingImports]  (the extra `bench`)
    from transformers import TrainerCallback
    from trl.trainer.sft_config import SFTConfig  # pyright: ignore[reportMissingImports]
    from trl.trainer.sft_trainer import SFTTrainer  # pyright: ignore[reportMissingImports]

    from alpha_umi.run_directory import load_tokenizer, shipped_base

    seconds: list[float] = []

    class Clock(TrainerCallback):
        started = 0.0

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.started = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            seconds.append(time.perf_counter() - self.started)

    mine = [row for row in (for_role(row, role) for row in rows) if row is not None]
    data = Dataset.from_list([{"input_ids": list(row.ids), "labels": list(row.labels)} for row in mine])
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder, max_steps=_WARM_UP + settings.rounds, per_device_train_batch_size=len(mine),
            max_length=None, gradient_checkpointing=checkpointing, save_strategy="no", report_to=[], disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(), bf16=True,
        )  # fmt: skip
        SFTTrainer(
            model=random_backbone(settings), args=config, train_dataset=data, callbacks=[Clock()],
            peft_config=_lora(settings), processing_class=load_tokenizer(str(shipped_base())),
        ).train()  # fmt: skip
    return seconds[_WARM_UP:]


if __name__ == "__main__":
    answer(lambda settings, shape, peer: _measure(TrainBench(**settings), shape, peer))
