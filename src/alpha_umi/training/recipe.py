"""Recipes: YAML files that say what to train; every key is checked, an unknown one is refused with its neighbours."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from alpha_umi.errors import RecipeError
from alpha_umi.run_directory import AdapterShape
from alpha_umi.training.optimizer import Optimization
from alpha_umi.transcript import ROLES, Role

NANO_BASE = "umi-nano-base"
"""The backbone that ships with the package."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NanoShape(_Section):
    """A small Llama: the shape of a backbone trained from random weights.

    Attributes:
        vocabulary: Pieces of the tokenizer; used when a tokenizer is trained with the backbone.
        positions: Largest context its rotary embeddings are made for.
    """

    hidden: int = Field(default=256, ge=32, multiple_of=8)
    layers: int = Field(default=4, ge=1)
    heads: int = Field(default=4, ge=1)
    kv_heads: int = Field(default=2, ge=1)
    intermediate: int = Field(default=640, ge=32)
    vocabulary: int = Field(default=4096, ge=300, le=65536)
    positions: int = Field(default=8192, ge=256)


class DeeperBackbone(_Section):
    """A pretrained backbone with more layers that begin as nothing (`training.deepen`).

    Attributes:
        base: ``umi-nano-base``, a directory or a hub id.
        layers: In all.
    """

    base: str
    layers: int = Field(ge=1)


class PretrainRecipe(_Section):
    """Pretraining of a nano backbone on procedural text.

    Attributes:
        rows: Sequences a step.
        length: Tokens a sequence; documents are packed into it.
        tokenizer_documents: Documents the tokenizer is trained on.
        start: A pretrained backbone of the same shape to go on from, with its tokenizer, instead of random weights.
    """

    task: Literal["pretrain"]
    out: str
    start: str | None = None
    shape: NanoShape = NanoShape()
    steps: int = Field(ge=1)
    rows: int = Field(default=10, ge=1)
    length: int = Field(default=640, ge=64)
    tokenizer_documents: int = Field(default=12000, ge=100)
    optimization: Optimization = Optimization(optimizer="muon", learning_rate=5e-3)
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    compile: bool = False
    threads: int | None = Field(default=None, ge=1)
    seed: int = 0
    checkpoint_seconds: float = Field(default=60.0, gt=0)


System = Literal["single", "single-multitask", "multi-one-stage", "umi"]


class DataRecipe(_Section):
    """Where trajectories come from.

    Attributes:
        source: ``toolworld`` (made on the spot) or a JSONL file of trajectories.
        seed: Which ToolWorld instructions, and the order of any data.
        easy: ToolWorld only: share of short episodes at the start, faded out over the global stage.
        instructions: ToolWorld only: asked one after another in a conversation, at most.
        rationales: ``drop`` takes them out of every trajectory: the planner writes its decision alone.
        reword: Share of trajectories whose schemas' words are exchanged for others throughout (`training.reword`).
    """

    source: str = "toolworld"
    seed: int = 0
    easy: float = Field(default=0.0, ge=0, le=1)
    instructions: int = Field(default=1, ge=1, le=8)
    rationales: Literal["keep", "drop"] = "keep"
    reword: float = Field(default=0.0, ge=0, le=1)


class StageRecipe(_Section):
    """One stage.

    Attributes:
        steps: Optimizer steps (in the local stage: of each role).
        minutes: In place of steps, a wall-clock budget, turned into steps once, by a measured warm-up, and then kept.
        trajectories: In place of steps, how many trajectories are seen (in the local stage: by each role), about:
            whole steps are taken.
        first: Index of the first trajectory. Both stages begin at 0 and so share their trajectories (the paper's
            "reuse"), unless the local stage begins behind those of the global one.
    """

    steps: int | None = Field(default=None, ge=1)
    minutes: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    trajectories: int | None = Field(default=None, ge=1)
    first: int = Field(default=0, ge=0)
    optimization: Optimization = Optimization()

    @model_validator(mode="after")
    def _one_budget(self) -> StageRecipe:
        if [self.steps, self.minutes, self.trajectories].count(None) != 2:
            raise ValueError("give one of 'steps', 'minutes' and 'trajectories'")
        return self


class AdapterRecipe(AdapterShape):
    """The adapters of the variants ``lora`` and ``alora``, and how they are trained."""

    optimization: Optimization = Optimization(optimizer="adamw", learning_rate=2e-3, weight_decay=0.0)


LocalVariant = Literal["full", "lora", "alora"]


class LocalStageRecipe(StageRecipe):
    """The local stage.

    Attributes:
        variants: What a role's own model is: ``full`` weights, a ``lora`` adapter, or an activated one, ``alora``;
            several are trained one after another from the same global stage, each with the whole budget.
        roles: Which roles are trained; the others are taken from the run that ``stage_1`` names.
        optimization: Of the variant ``full``.
        adapter: Of the other two.
    """

    variants: list[LocalVariant] = Field(default=["full"], min_length=1)
    roles: list[Role] = Field(default=list(ROLES), min_length=1)
    adapter: AdapterRecipe = AdapterRecipe()


class GlpftRecipe(_Section):
    """Global-to-local progressive fine-tuning, or one of the systems it is compared with.

    Attributes:
        system: What is trained; see docs/design.md.
        backbone: ``umi-nano-base``, a directory or a hub id; a `DeeperBackbone`; or a `NanoShape` for random weights.
        stage_1: Local stage only: start from this run's global stage instead of training one, and take the roles from
            it that `LocalStageRecipe.roles` leaves out.
        batch_tokens: Tokens a step, padding included, of all processes together.
        max_length: A longer transcript is cut at the last segment that fits.
        observation_tokens: Budget of one observation, in training and at run time.
        rationale_dropout: Share of trajectories rendered without rationales, so that histories without them are known.
        gradient_checkpointing: Keep only the layers' inputs for the backward pass and compute the rest again: less
            memory, one more forward pass (`training.recompute`).
    """

    task: Literal["glpft"]
    out: str
    system: System = "umi"
    backbone: str | NanoShape | DeeperBackbone = NANO_BASE
    stage_1: str | None = None
    data: DataRecipe = DataRecipe()
    global_stage: StageRecipe | None = None
    local_stage: LocalStageRecipe | None = None
    batch_tokens: int = Field(default=6144, ge=64)
    max_length: int = Field(default=1024, ge=64)
    observation_tokens: int = Field(default=256, ge=16)
    rationale_dropout: float = Field(default=0.0, ge=0, le=1)
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    gradient_checkpointing: bool = False
    threads: int | None = Field(default=None, ge=1)
    seed: int = 0
    checkpoint_seconds: float = Field(default=60.0, gt=0)

    @model_validator(mode="after")
    def _stages_fit_the_system(self) -> GlpftRecipe:
        needs_global = self.system != "multi-one-stage" and self.stage_1 is None
        if needs_global and self.global_stage is None:
            raise ValueError(
                f"system {self.system!r} needs 'global_stage' (or 'stage_1', the directory of a run that has one)"
            )
        if self.system in ("umi", "multi-one-stage") and self.local_stage is None:
            raise ValueError(f"system {self.system!r} needs 'local_stage'")
        if self.system in ("single", "single-multitask") and self.local_stage is not None:
            raise ValueError(f"system {self.system!r} has one stage: remove 'local_stage'")
        if self.system == "multi-one-stage" and self.global_stage is not None:
            raise ValueError("system 'multi-one-stage' starts from the backbone itself: remove 'global_stage'")
        if self.stage_1 is not None and self.system != "umi":
            raise ValueError(f"'stage_1' is for the system 'umi', not for {self.system!r}")
        if self.stage_1 is not None and self.global_stage is not None:
            raise ValueError("'stage_1' takes the global stage of another run: remove 'global_stage' (or 'stage_1')")
        if self.local_stage is not None and self.stage_1 is None and set(self.local_stage.roles) != set(ROLES):
            raise ValueError("'local_stage.roles' leaves out a role: give 'stage_1', the run to take it from")
        return self


Recipe = Annotated[PretrainRecipe | GlpftRecipe, Field(discriminator="task")]
_ADAPTER: TypeAdapter[PretrainRecipe | GlpftRecipe] = TypeAdapter(Recipe)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> PretrainRecipe | GlpftRecipe:
    """Reads a recipe and applies ``key=value`` overrides (``global_stage.minutes=5``).

    Raises:
        RecipeError: The file is missing or no YAML mapping, or a key or value is wrong.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"recipe {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"recipe {path}: a recipe is a mapping of keys to values")
    for override in overrides:
        _override(content, override)
    return parse_recipe(content, str(path))


def parse_recipe(content: dict[str, Any], name: str = "recipe") -> PretrainRecipe | GlpftRecipe:
    """Checks a recipe given as plain data; see `load_recipe`."""
    try:
        return _ADAPTER.validate_python(content)
    except ValidationError as error:
        raise RecipeError(f"{name}: " + "; ".join(_explain(problem) for problem in error.errors()[:3])) from error


def _override(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"an override looks like key=value, not {override!r}")
    *parents, last = key.split(".")
    for parent in parents:
        child = content.setdefault(parent, {})
        if not isinstance(child, dict):
            raise RecipeError(f"{override!r}: {parent!r} is not a section")
        content = child
    try:
        content[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"{override!r}: the value is not YAML") from error


_SECTIONS: dict[str, tuple[type[BaseModel], ...]] = {
    "pretrain": (PretrainRecipe, NanoShape, Optimization),
    "glpft": (GlpftRecipe, DataRecipe, LocalStageRecipe, AdapterRecipe, NanoShape, DeeperBackbone, Optimization),
}


_BRANCHES = ("pretrain", "glpft", "NanoShape", "DeeperBackbone", "str")
"""What pydantic names in a place that isn't a key."""


def _explain(problem: Any) -> str:
    """One pydantic complaint as: where, what is wrong, what was given, what was perhaps meant."""
    where = [str(part) for part in problem["loc"] if part not in _BRANCHES]
    if problem["type"] == "extra_forbidden":
        known = sorted({key for section in _SECTIONS[problem["loc"][0]] for key in section.model_fields})
        near = difflib.get_close_matches(where[-1], known, 1)
        return f"unknown key {'.'.join(where)!r}" + (
            f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(known)}"
        )
    if problem["type"].startswith("union_tag"):
        return "'task' must be 'pretrain' or 'glpft'"
    given = "" if problem["type"] in ("missing", "value_error") else f" (given: {problem['input']!r})"
    return f"{'.'.join(where) or 'recipe'}: {problem['msg'].removeprefix('Value error, ')}{given}"
