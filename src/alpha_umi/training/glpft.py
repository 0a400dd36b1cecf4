"""Global-to-local progressive fine-tuning (the paper's section 3.3) and the systems it is compared with.

Stage 1 (global) fine-tunes the backbone on whole trajectories with every role's text in the loss. Stage 2 (local)
starts one model a role from that backbone and fine-tunes each on its own spans. `train` takes any system through its
stages, skips what is done and resumes what isn't.
"""

from __future__ import annotations

import copy
import json
import os
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from alpha_umi.compute import probe_precision
from alpha_umi.errors import RecipeError, RunDirectoryError, UserError
from alpha_umi.run_directory import (
    BACKBONE,
    RendererInfo,
    RunInfo,
    load_model,
    load_tokenizer,
    read_info,
    save_model,
    shipped_base,
)
from alpha_umi.training.loop import StepReport, Trainer, embedding_matrix
from alpha_umi.training.model_card import write_card
from alpha_umi.training.nano import new_model
from alpha_umi.training.recipe import NANO_BASE, GlpftRecipe, NanoShape, StageRecipe
from alpha_umi.training.targets import WINDOW, Batches, Source, open_source
from alpha_umi.transcript import ROLES, Renderer, Role, Voice

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Stage = Literal["global", "local"]
_WARM_UP, _TIMED = 2, 6
_MAY_CHANGE = frozenset({"out", "threads", "checkpoint_seconds"})
"""Recipe keys that change nothing about the result: a run may be moved and go on elsewhere."""

_BYTES_A_WEIGHT = 4 * 3
"""Disk a weight needs while it is trained: itself and two moments, in float32."""


@dataclass(frozen=True)
class Progress:
    """What a caller of `train` is told of every step."""

    stage: Stage
    role: Role | None
    report: StepReport

    @property
    def name(self) -> str:
        """The stage as ``run.json`` and the bars call it: ``global``, ``local/planner`` and so on."""
        return self.stage if self.role is None else f"{self.stage}/{self.role}"


OnStep = Callable[[Progress], None]


def train(recipe: GlpftRecipe, on_step: OnStep = lambda progress: None) -> RunInfo:
    """Trains a run to its end in ``recipe.out``; called again after any interruption, it goes on where it stopped.

    Raises:
        RecipeError: The directory holds a run of another recipe.
        UserError: Data, backbone or disk are not what the recipe needs.
    """
    import torch

    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    out = Path(recipe.out)
    source = open_source(recipe.data)
    tokenizer = load_tokenizer(_tokenizer_name(recipe))
    renderer = Renderer(tokenizer, "single" if recipe.system == "single" else "roles", recipe.observation_tokens)
    info = _open(recipe, out, renderer, source)
    run = _Training(recipe, out, source, tokenizer, renderer, info, on_step)
    if recipe.global_stage is not None:
        run.global_stage(recipe.global_stage)
    elif recipe.stage_1 is not None:
        _adopt(Path(recipe.stage_1), out, renderer)
    else:
        _start_from_base(recipe, out, tokenizer)
    if recipe.local_stage is not None:
        for role in ROLES:
            run.local_stage(recipe.local_stage, role)
    write_card(out, info)
    return info


def _tokenizer_name(recipe: GlpftRecipe) -> str:
    if recipe.stage_1 is not None:
        return str(Path(recipe.stage_1) / BACKBONE)
    return (
        str(shipped_base())
        if recipe.backbone == NANO_BASE or isinstance(recipe.backbone, NanoShape)
        else recipe.backbone
    )


def load_backbone(recipe: GlpftRecipe, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The model the first stage starts from, with one embedding a token of the tokenizer at least."""
    import torch

    if isinstance(recipe.backbone, NanoShape):
        return new_model(recipe.backbone, len(tokenizer), recipe.seed)
    if recipe.stage_1 is not None:
        return load_model(str(Path(recipe.stage_1) / BACKBONE))
    model = load_model(_tokenizer_name(recipe))
    if len(tokenizer) > embedding_matrix(model).shape[0]:
        torch.manual_seed(recipe.seed)  # new embeddings are drawn around the mean of the old ones
        model.resize_token_embeddings(len(tokenizer))
    return model


def _open(recipe: GlpftRecipe, out: Path, renderer: Renderer, source: Source) -> RunInfo:
    """The run's ``run.json``, made or found; refuses a directory that holds another run."""
    content = recipe.model_dump(mode="json")
    info = read_info(out)
    if info is not None:
        changed = sorted(key for key in content if key not in _MAY_CHANGE and content[key] != info.recipe.get(key))
        if changed:
            raise RecipeError(
                f"{out} holds a run of another recipe (different: {', '.join(changed)}): "
                "choose another 'out', or remove it"
            )
        if info.data != source.fingerprint:
            raise RunDirectoryError(
                f"{out} was trained on other data ({info.data}, now {source.fingerprint}): "
                "bring that data back, or choose another 'out'"
            )
        if info.renderer.fingerprint != renderer.fingerprint:
            raise RunDirectoryError(
                f"{out} was begun with another renderer or tokenizer ({info.renderer.fingerprint}, here "
                f"{renderer.fingerprint}): choose another 'out', or use the version of alpha-umi it was made with"
            )
        return info
    precision = probe_precision() if recipe.precision == "auto" else recipe.precision
    identity = RendererInfo(
        voices=renderer.voices, observation_tokens=renderer.observation_tokens, fingerprint=renderer.fingerprint
    )
    info = RunInfo(
        system=recipe.system, recipe=content, renderer=identity, data=source.fingerprint,
        max_length=recipe.max_length, precision=precision, versions=_versions(),
    )  # fmt: skip
    info.save(out)
    return info


def _versions() -> dict[str, str]:
    packages = ("alpha-umi", "torch", "transformers", "tokenizers")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _adopt(stage_1: Path, out: Path, renderer: Renderer) -> None:
    """Copies another run's global stage."""
    info = read_info(stage_1)
    if info is None or "global" not in info.done:
        raise RunDirectoryError(f"stage_1: {stage_1} has no finished global stage")
    if info.renderer.fingerprint != renderer.fingerprint:
        raise RunDirectoryError(
            f"stage_1: {stage_1} was trained with another renderer "
            f"({info.renderer.fingerprint}, here {renderer.fingerprint})"
        )
    if not (out / BACKBONE).exists():
        shutil.copytree(stage_1 / BACKBONE, out / ".backbone.partial", dirs_exist_ok=True)
        (out / ".backbone.partial").rename(out / BACKBONE)


def _start_from_base(recipe: GlpftRecipe, out: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """``multi-one-stage``: the roles start from the base model itself."""
    if not (out / BACKBONE).exists():
        save_model(load_backbone(recipe, tokenizer), tokenizer, out / BACKBONE)


@dataclass
class _Training:
    """The stages of one run."""

    recipe: GlpftRecipe
    out: Path
    source: Source
    tokenizer: PreTrainedTokenizerBase
    renderer: Renderer
    info: RunInfo
    on_step: OnStep

    def global_stage(self, stage: StageRecipe) -> None:
        """Stage 1, or the only stage of a one-model system."""
        voices: tuple[Voice, ...] = ("assistant",) if self.renderer.voices == "single" else ROLES
        batches = self._batches(voices, balanced=self.recipe.system == "single-multitask")
        self._run(
            "global", None, stage, lambda: load_backbone(self.recipe, self.tokenizer), batches, self.out / BACKBONE
        )

    def local_stage(self, stage: StageRecipe, role: Role) -> None:
        """Stage 2 of one role: the global stage's weights, fine-tuned on the role's own spans."""
        batches = self._batches((role,), balanced=False)
        self._run("local", role, stage, lambda: load_model(str(self.out / BACKBONE)), batches, self.out / role)

    def _batches(self, voices: tuple[Voice, ...], balanced: bool) -> Batches:
        recipe = self.recipe
        return Batches(
            self.source, self.renderer, voices, recipe.batch_tokens, recipe.max_length, recipe.seed,
            balanced=balanced, rationale_dropout=recipe.rationale_dropout, reword=recipe.data.reword,
        )  # fmt: skip

    def _run(
        self,
        stage: Stage,
        role: Role | None,
        settings: StageRecipe,
        load: Callable[[], PreTrainedModel],
        batches: Batches,
        target: Path,
    ) -> None:
        name = stage if role is None else f"{stage}/{role}"
        folder = self.out / "checkpoints" / name.replace("/", "-")
        if name in self.info.done:
            shutil.rmtree(folder, ignore_errors=True)  # left by a kill between the last two lines below
            return
        model = load()
        _check_disk(self.out, model)
        steps = self._budget(stage, settings, model, batches)
        if stage == "global":
            batches.steps, batches.easy = steps, self.recipe.data.easy
        trainer = Trainer(
            model, batches, settings.optimization, steps, folder, self.info.precision, self.recipe.checkpoint_seconds
        )
        last: dict[str, float] = {}
        log = self.out / "metrics.jsonl"
        _drop_torn_line(log)

        def on_step(report: StepReport) -> None:
            progress = Progress(stage, role, report)
            _append(log, json.dumps(_line(self.recipe.system, progress)))
            last.update(report.losses)
            self.on_step(progress)

        trainer.train(on_step)
        save_model(model, self.tokenizer, target)
        counts = trainer.counts
        self.info.costs[name] = {
            "trajectories": batches.trajectories(steps), "tokens_forwarded": counts.tokens,
            "loss_tokens": counts.loss_tokens, "flops": counts.flops, "seconds": round(counts.seconds, 1),
        }  # fmt: skip
        self.info.losses[name] = last
        self.info.done.append(name)
        self.info.save(self.out)
        trainer.discard_checkpoints()

    def _budget(self, stage: Stage, settings: StageRecipe, model: PreTrainedModel, batches: Batches) -> int:
        """Steps of a stage: as the recipe says, or what a measured warm-up says fits its minutes; decided once."""
        if stage not in self.info.budget:
            steps = settings.steps or _steps_in(settings, model, batches, self.info.precision)
            self.info.budget[stage] = steps
            self.info.save(self.out)
        return self.info.budget[stage]


def _steps_in(
    settings: StageRecipe, model: PreTrainedModel, batches: Batches, precision: Literal["bf16", "fp32"]
) -> int:
    """Times some steps on a copy of the model; in the local stage the minutes are shared by three roles."""
    assert settings.minutes is not None
    timed: list[float] = []
    batches = copy.copy(batches)  # what it has dealt by the end is not the stage's: easy episodes fade by its length
    started = time.perf_counter()
    batches(0)
    a_deal = (time.perf_counter() - started) / WINDOW
    trial = Trainer(
        copy.deepcopy(model), batches, settings.optimization, _WARM_UP + _TIMED, Path("/nonexistent"), precision,
        checkpoint_seconds=float("inf"),
    )  # fmt: skip
    trial.train(lambda report: timed.append(report.seconds))
    a_step = sum(timed[_WARM_UP:]) / _TIMED + a_deal
    roles = len(ROLES) if len(batches.voices) == 1 and batches.voices[0] != "assistant" else 1
    return max(1, int(settings.minutes * 60 / a_step / roles))


def _append(path: Path, line: str) -> None:
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise UserError(
            f"can't write {path}: {error.strerror or error}. Free some space; the same command goes on where it was."
        ) from error


def _drop_torn_line(path: Path) -> None:
    """Takes away a last line that a kill or a full disk cut off, so that the next one stands on its own."""
    if path.is_file():
        data = path.read_bytes()
        if data and not data.endswith(b"\n"):
            os.truncate(path, data.rfind(b"\n") + 1)


def _line(system: str, progress: Progress) -> dict[str, object]:
    report = progress.report
    return {
        "system": system, "stage": progress.stage, "role": progress.role, "step": report.step, "steps": report.steps,
        "loss": {name: round(value, 6) for name, value in report.losses.items()},
        "tokens": report.tokens, "loss_tokens": report.loss_tokens, "seconds": round(report.seconds, 4),
        "time": round(time.time(), 1),
    }  # fmt: skip


def _check_disk(out: Path, model: PreTrainedModel) -> None:
    """Refuses to start what the disk can't hold: a checkpoint, the one that replaces it, and the trained weights."""
    needed = sum(p.numel() for p in model.parameters()) * _BYTES_A_WEIGHT * 2
    free = shutil.disk_usage(out).free
    if free < needed:
        raise UserError(
            f"{out}: {needed / 1e9:.1f} GB are needed for checkpoints and weights, {free / 1e9:.1f} GB are free; "
            "free some space or choose another 'out'"
        )
