"""Global-to-local progressive fine-tuning (the paper's section 3.3) and the systems it is compared with.

Stage 1 (global) fine-tunes the backbone on whole trajectories with every role's text in the loss. Stage 2 (local)
starts one model a role from that backbone and fine-tunes each on its own spans: all of its weights (``full``), or an
adapter on the frozen backbone (``lora``, ``alora``). `train` takes any system through its stages, skips what is done
and resumes what isn't.
"""

from __future__ import annotations

import copy
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from alpha_umi.adapters import RoleAdapters, backbone_fingerprint, save_adapter
from alpha_umi.compute import probe_precision
from alpha_umi.errors import RecipeError, RunDirectoryError, UserError
from alpha_umi.run_directory import (
    BACKBONE,
    AdapterIdentity,
    RendererInfo,
    RunInfo,
    Variant,
    load_model,
    load_tokenizer,
    read_info,
    role_folder,
    save_model,
    shipped_base,
)
from alpha_umi.training.loop import Objective, RowObjective, StepReport, Trainer, embedding_matrix
from alpha_umi.training.model_card import write_card
from alpha_umi.training.nano import new_model
from alpha_umi.training.optimizer import Optimization
from alpha_umi.training.recipe import (
    NANO_BASE,
    GlpftRecipe,
    LocalStageRecipe,
    LocalVariant,
    NanoShape,
    StageRecipe,
)
from alpha_umi.training.shared_prefix import SpanObjective
from alpha_umi.training.targets import WINDOW, Batches, Source, open_source
from alpha_umi.transcript import ROLES, Renderer, Role, Voice

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Stage = Literal["global", "local", "local/lora", "local/alora"]
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
        """What ``run.json`` and the bars call it: ``global``, ``local/planner``, ``local/alora`` and so on."""
        return self.stage if self.role is None else f"{self.stage}/{self.role}"


OnStep = Callable[[Progress], None]


def train(recipe: GlpftRecipe, on_step: OnStep = lambda progress: None) -> RunInfo:
    """Trains a run to its end in ``recipe.out``; called again after any interruption, it goes on where it stopped.

    Raises:
        RecipeError: The directory holds a run of another recipe.
        UserError: Data, backbone or disk are not what the recipe needs.
    """
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
        for variant in recipe.local_stage.variants:
            run.local_stage(recipe.local_stage, variant)
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


@dataclass(frozen=True)
class _Job:
    """One training within a run.

    Attributes:
        stage: Which stage it is, or is a part of.
        roles: Whose models come out of it; none in the global stage.
        share: How many jobs share the stage's minutes.
        batches: What it sees.
        settings: Optimizer and schedule.
        objective: Loads what is trained; the trainer and a trial of its speed each have their own.
        save: Puts the result in its place.
    """

    stage: Stage
    roles: tuple[Role, ...]
    share: int
    batches: Batches
    settings: Optimization
    objective: Callable[[Batches], Objective]
    save: Callable[[Objective], None]

    @property
    def role(self) -> Role | None:
        """The one role it is for, if it is one."""
        return self.roles[0] if len(self.roles) == 1 else None

    @property
    def done(self) -> list[str]:
        """What is done once it is."""
        return [f"{self.stage}/{role}" for role in self.roles] or [self.stage]


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

        def objective(batches: Batches) -> Objective:
            return RowObjective(load_backbone(self.recipe, self.tokenizer), batches, self.info.precision)

        self._run(
            _Job("global", (), 1, batches, stage.optimization, objective, self._whole(self.out / BACKBONE)), stage
        )

    def local_stage(self, stage: LocalStageRecipe, variant: LocalVariant) -> None:
        """Stage 2 in one variant, from the global stage's weights; roles that aren't trained come from another run."""
        if self.recipe.stage_1 is not None:
            _adopt_roles(Path(self.recipe.stage_1), self.out, variant, [r for r in ROLES if r not in stage.roles])
        if variant == "alora":
            self._run(self._adapters("local/alora", stage, tuple(stage.roles)), stage)
            return
        for role in stage.roles:
            job = self._full(stage, role) if variant == "full" else self._adapters("local/lora", stage, (role,))
            self._run(job, stage)

    def _full(self, stage: LocalStageRecipe, role: Role) -> _Job:
        """All of a role's weights, fine-tuned on its own spans."""

        def objective(batches: Batches) -> Objective:
            return RowObjective(load_model(str(self.out / BACKBONE)), batches, self.info.precision)

        batches = self._batches((role,), balanced=False)
        save = self._whole(role_folder(self.out, "full", role))
        return _Job("local", (role,), len(stage.roles), batches, stage.optimization, objective, save)

    def _adapters(self, name: Stage, stage: LocalStageRecipe, roles: tuple[Role, ...]) -> _Job:
        """A role's adapter on the whole of its rows, or the activated adapters of several roles in one pass."""
        variant: Variant = "lora" if name == "local/lora" else "alora"

        def objective(batches: Batches) -> Objective:
            torch.manual_seed(self.recipe.seed)
            adapters = RoleAdapters(load_model(str(self.out / BACKBONE)), roles, stage.adapter)
            if variant == "alora":
                return SpanObjective(adapters, batches.rows, self.info.precision)
            return RowObjective(adapters.model, batches, self.info.precision, adapters=adapters)

        def save(trained: Objective) -> None:
            assert trained.adapters is not None
            backbone = backbone_fingerprint(self.out / BACKBONE)
            for role in roles:
                identity = AdapterIdentity(
                    role=role, variant=variant, backbone=backbone, renderer=self.renderer.fingerprint
                )
                folder = role_folder(self.out, variant, role)
                save_adapter(
                    folder, trained.adapters, identity, self.renderer.markers.headers[role], f"../../{BACKBONE}"
                )

        share = 1 if variant == "alora" else len(stage.roles)
        batches = self._batches(roles, balanced=False)
        return _Job(name, roles, share, batches, stage.adapter.optimization, objective, save)

    def _whole(self, target: Path) -> Callable[[Objective], None]:
        return lambda trained: save_model(trained.model, self.tokenizer, target)

    def _batches(self, voices: tuple[Voice, ...], balanced: bool) -> Batches:
        recipe = self.recipe
        return Batches(
            self.source, self.renderer, voices, recipe.batch_tokens, recipe.max_length, recipe.seed,
            balanced=balanced, rationale_dropout=recipe.rationale_dropout, reword=recipe.data.reword,
        )  # fmt: skip

    def _run(self, job: _Job, stage: StageRecipe) -> None:
        name = job.stage if job.role is None else f"{job.stage}/{job.role}"
        folder = self.out / "checkpoints" / name.replace("/", "-")
        if all(done in self.info.done for done in job.done):
            shutil.rmtree(folder, ignore_errors=True)  # left by a kill between the last two lines below
            return
        objective = job.objective(job.batches)
        _check_disk(self.out, objective.model)
        steps = self._budget(stage, job)
        if job.stage == "global":
            job.batches.steps, job.batches.easy = steps, self.recipe.data.easy
        trainer = Trainer(objective, job.settings, steps, folder, self.recipe.checkpoint_seconds)
        last: dict[str, float] = {}
        log = self.out / "metrics.jsonl"
        _drop_torn_line(log)

        def on_step(report: StepReport) -> None:
            progress = Progress(job.stage, job.role, report)
            _append(log, json.dumps(_line(self.recipe.system, progress)))
            last.update(report.losses)
            self.on_step(progress)

        trainer.train(on_step)
        job.save(objective)
        counts = trainer.counts
        self.info.costs[name] = {
            "steps": steps, "trajectories": job.batches.trajectories(steps), "tokens_forwarded": counts.tokens,
            "loss_tokens": counts.loss_tokens, "flops": counts.flops, "seconds": round(counts.seconds, 1),
        }  # fmt: skip
        self.info.losses[name] = last
        self.info.done += job.done
        self.info.save(self.out)
        trainer.discard_checkpoints()

    def _budget(self, stage: StageRecipe, job: _Job) -> int:
        """Steps of a job: as the recipe says, or what a measured warm-up says fits its minutes; kept a stage."""
        if job.stage not in self.info.budget:
            self.info.budget[job.stage] = stage.steps or _steps_in(stage, job)
            self.info.save(self.out)
        return self.info.budget[job.stage]


def _steps_in(stage: StageRecipe, job: _Job) -> int:
    """Times some steps of a trial; jobs of one stage share its minutes."""
    assert stage.minutes is not None
    timed: list[float] = []
    batches = copy.copy(job.batches)  # what it has dealt by the end is not the job's: easy episodes fade by its length
    started = time.perf_counter()
    batches.rows(0)
    a_deal = (time.perf_counter() - started) / WINDOW
    trial = Trainer(
        job.objective(batches), job.settings, _WARM_UP + _TIMED, Path("/nonexistent"), checkpoint_seconds=float("inf")
    )
    trial.train(lambda report: timed.append(report.seconds))
    a_step = sum(timed[_WARM_UP:]) / _TIMED + a_deal
    return max(1, int(stage.minutes * 60 / a_step / job.share))


def _adopt_roles(source: Path, out: Path, variant: LocalVariant, roles: Sequence[Role]) -> None:
    """Copies the models of roles that aren't trained again from another run, byte for byte."""
    for role in roles:
        theirs, ours = role_folder(source, variant, role), role_folder(out, variant, role)
        if not theirs.is_dir():
            raise RunDirectoryError(f"stage_1: {source} has no {variant} {role} to take; train it too ('roles')")
        if not ours.exists():
            partial = ours.with_name(f".{ours.name}.partial")
            shutil.copytree(theirs, partial, dirs_exist_ok=True)
            partial.rename(ours)


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
