"""What a run starts from: its ``run.json``, its backbone, and the stages and roles it takes from another run."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError

from alpha_umi.compute import probe_precision
from alpha_umi.errors import RecipeError, RunDirectoryError
from alpha_umi.run_directory import (
    BACKBONE,
    RendererInfo,
    RunInfo,
    load_model,
    read_info,
    role_folder,
    save_model,
    shipped_base,
)
from alpha_umi.training.deepen import deepened
from alpha_umi.training.nano import new_model
from alpha_umi.training.objective import embedding_matrix
from alpha_umi.training.recipe import NANO_BASE, DeeperBackbone, GlpftRecipe, LocalVariant, NanoShape
from alpha_umi.training.targets import Source
from alpha_umi.transcript import Renderer, Role

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_MAY_CHANGE = frozenset({"out", "threads", "checkpoint_seconds", "gradient_checkpointing"})
"""Recipe keys that change nothing about the result: a run may be moved and go on elsewhere."""


def open_run(recipe: GlpftRecipe, out: Path, renderer: Renderer, source: Source) -> RunInfo:
    """The run's ``run.json``, made or found; refuses a directory that holds another run."""
    content = recipe.model_dump(mode="json")
    info = read_info(out)
    if info is not None:
        before = _completed(info.recipe)
        changed = sorted(key for key in content if key not in _MAY_CHANGE and content[key] != before.get(key))
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


def _completed(recipe: dict[str, Any]) -> dict[str, Any]:
    """A stored recipe with the keys that have come since, at their defaults; one that no longer fits as it is."""
    try:
        return GlpftRecipe.model_validate(recipe).model_dump(mode="json")
    except ValidationError:
        return recipe


def _versions() -> dict[str, str]:
    packages = ("alpha-umi", "torch", "transformers", "tokenizers")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def tokenizer_name(recipe: GlpftRecipe) -> str:
    """Directory or hub id of the tokenizer a run uses."""
    if recipe.stage_1 is not None:
        return str(Path(recipe.stage_1) / BACKBONE)
    base = recipe.backbone.base if isinstance(recipe.backbone, DeeperBackbone) else recipe.backbone
    return str(shipped_base()) if base == NANO_BASE or isinstance(base, NanoShape) else base


def load_backbone(recipe: GlpftRecipe, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The model the first stage starts from, with one embedding a token of the tokenizer at least."""
    if isinstance(recipe.backbone, NanoShape):
        return new_model(recipe.backbone, len(tokenizer), recipe.seed)
    if recipe.stage_1 is not None:
        return load_model(str(Path(recipe.stage_1) / BACKBONE))
    model = load_model(tokenizer_name(recipe))
    if isinstance(recipe.backbone, DeeperBackbone):
        model = deepened(model, recipe.backbone.layers)
    if len(tokenizer) > embedding_matrix(model).shape[0]:
        torch.manual_seed(recipe.seed)  # new embeddings are drawn around the mean of the old ones
        model.resize_token_embeddings(len(tokenizer))
    return model


def start_from_base(recipe: GlpftRecipe, out: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """``multi-one-stage``: the roles start from the base model itself."""
    if not (out / BACKBONE).exists():
        save_model(load_backbone(recipe, tokenizer), tokenizer, out / BACKBONE)


def adopt_global_stage(stage_1: Path, out: Path, renderer: Renderer) -> None:
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


def adopt_roles(source: Path, out: Path, variant: LocalVariant, roles: Sequence[Role]) -> None:
    """Copies the models of roles that aren't trained again from another run, byte for byte."""
    for role in roles:
        theirs, ours = role_folder(source, variant, role), role_folder(out, variant, role)
        if not theirs.is_dir():
            raise RunDirectoryError(f"stage_1: {source} has no {variant} {role} to take; train it too ('roles')")
        if not ours.exists():
            partial = ours.with_name(f".{ours.name}.partial")
            shutil.copytree(theirs, partial, dirs_exist_ok=True)
            partial.rename(ours)
