"""Global-to-local progressive fine-tuning (the paper's section 3.3) and the systems it is compared with.

Stage 1 (global) fine-tunes the backbone on whole trajectories with every role's text in the loss. Stage 2 (local)
starts one model a role from that backbone and fine-tunes each on its own spans: all of its weights (``full``), or an
adapter on the frozen backbone (``lora``, ``alora``). `train` takes any system through its stages, skips what is done
and resumes what isn't.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from alpha_umi.adapters import RoleAdapters, backbone_fingerprint, save_adapter
from alpha_umi.run_directory import (
    BACKBONE,
    AdapterIdentity,
    RunInfo,
    Variant,
    load_model,
    load_tokenizer,
    role_folder,
    save_model,
)
from alpha_umi.training.job import Job, Jobs, Progress, Stage
from alpha_umi.training.model_card import write_card
from alpha_umi.training.objective import Objective, RowObjective
from alpha_umi.training.processes import join
from alpha_umi.training.recipe import GlpftRecipe, LocalStageRecipe, LocalVariant, StageRecipe
from alpha_umi.training.shared_prefix import SpanObjective
from alpha_umi.training.start import (
    adopt_global_stage,
    adopt_roles,
    load_backbone,
    open_run,
    start_from_base,
    tokenizer_name,
)
from alpha_umi.training.targets import Batches, Source, open_source
from alpha_umi.transcript import ROLES, Renderer, Role, Voice

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def train(recipe: GlpftRecipe, on_step: Callable[[Progress], None] = lambda progress: None) -> RunInfo:
    """Trains a run to its end in ``recipe.out``; called again after any interruption, it goes on where it stopped.

    Called in every process that ``accelerate launch`` or ``torchrun`` has started, it trains with all of them; steps
    are told to the main one alone.

    Raises:
        RecipeError: The directory holds a run of another recipe.
        UserError: Data, backbone or disk are not what the recipe needs.
    """
    processes = join()
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    out = Path(recipe.out)
    source = open_source(recipe.data)
    tokenizer = load_tokenizer(tokenizer_name(recipe))
    renderer = Renderer(tokenizer, "single" if recipe.system == "single" else "roles", recipe.observation_tokens)
    with processes.main_first():
        info = open_run(recipe, out, renderer, source)
    jobs = Jobs(recipe, out, info, on_step, processes)
    _Training(jobs, source, tokenizer, renderer).stages()
    if processes.main:
        write_card(out, info)
    return info


@dataclass
class _Training:
    """The stages of one run."""

    jobs: Jobs
    source: Source
    tokenizer: PreTrainedTokenizerBase
    renderer: Renderer

    def __post_init__(self) -> None:
        self.recipe, self.out, self.processes = self.jobs.recipe, self.jobs.out, self.jobs.processes

    def stages(self) -> None:
        """All that the recipe asks for, in order."""
        recipe = self.recipe
        if recipe.global_stage is not None:
            self.global_stage(recipe.global_stage)
        else:
            with self.processes.main_first():
                if recipe.stage_1 is not None:
                    adopt_global_stage(Path(recipe.stage_1), self.out, self.renderer)
                else:
                    start_from_base(recipe, self.out, self.tokenizer)
        if recipe.local_stage is not None:
            for variant in recipe.local_stage.variants:
                self.local_stage(recipe.local_stage, variant)

    def global_stage(self, stage: StageRecipe) -> None:
        """Stage 1, or the only stage of a one-model system."""
        voices: tuple[Voice, ...] = ("assistant",) if self.renderer.voices == "single" else ROLES
        batches = self._batches(stage, voices, balanced=self.recipe.system == "single-multitask")

        def objective(batches: Batches) -> Objective:
            return self._rows(load_backbone(self.recipe, self.tokenizer), batches)

        self.jobs.run(
            Job("global", (), 1, batches, stage.optimization, objective, self._whole(self.out / BACKBONE)), stage
        )

    def local_stage(self, stage: LocalStageRecipe, variant: LocalVariant) -> None:
        """Stage 2 in one variant, from the global stage's weights; roles that aren't trained come from another run."""
        if self.recipe.stage_1 is not None:
            others: list[Role] = [role for role in ROLES if role not in stage.roles]
            with self.processes.main_first():
                adopt_roles(Path(self.recipe.stage_1), self.out, variant, others)
        if variant == "alora":
            self.jobs.run(self._adapters("local/alora", stage, tuple(stage.roles)), stage)
            return
        for role in stage.roles:
            job = self._full(stage, role) if variant == "full" else self._adapters("local/lora", stage, (role,))
            self.jobs.run(job, stage)

    def _full(self, stage: LocalStageRecipe, role: Role) -> Job:
        """All of a role's weights, fine-tuned on its own spans."""

        def objective(batches: Batches) -> Objective:
            return self._rows(load_model(str(self.out / BACKBONE)), batches)

        batches = self._batches(stage, (role,))
        save = self._whole(role_folder(self.out, "full", role))
        return Job("local", (role,), len(stage.roles), batches, stage.optimization, objective, save)

    def _adapters(self, name: Stage, stage: LocalStageRecipe, roles: tuple[Role, ...]) -> Job:
        """A role's adapter on the whole of its rows, or the activated adapters of several roles in one pass."""
        variant: Variant = "lora" if name == "local/lora" else "alora"

        def objective(batches: Batches) -> Objective:
            torch.manual_seed(self.recipe.seed)
            adapters = RoleAdapters(load_model(str(self.out / BACKBONE)), roles, stage.adapter)
            if variant == "alora":
                return SpanObjective(
                    adapters, batches.rows, self.jobs.info.precision, recompute=self.recipe.gradient_checkpointing,
                    processes=self.processes,
                )  # fmt: skip
            return self._rows(adapters.model, batches, adapters)

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
        batches = self._batches(stage, roles)
        return Job(name, roles, share, batches, stage.adapter.optimization, objective, save)

    def _rows(self, model: PreTrainedModel, batches: Batches, adapters: RoleAdapters | None = None) -> Objective:
        return RowObjective(
            model, batches, self.jobs.info.precision, adapters=adapters,
            recompute=self.recipe.gradient_checkpointing, processes=self.processes,
        )  # fmt: skip

    def _whole(self, target: Path) -> Callable[[Objective], None]:
        return lambda trained: save_model(trained.model, self.tokenizer, target)

    def _batches(self, stage: StageRecipe, voices: tuple[Voice, ...], balanced: bool = False) -> Batches:
        recipe = self.recipe
        return Batches(
            self.source, self.renderer, voices, recipe.batch_tokens, recipe.max_length, recipe.seed,
            first=stage.first, balanced=balanced, rationale_dropout=recipe.rationale_dropout, reword=recipe.data.reword,
            processes=self.processes,
        )  # fmt: skip
