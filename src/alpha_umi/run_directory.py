"""The run directory: what training leaves behind and everything else takes.

run.json          system, recipe, fingerprints of data and renderer, step budgets, costs, versions
backbone/         the global stage's weights, config and tokenizer (safetensors)
planner/ …        one model a role (variant ``full``); a one-model system has ``backbone/`` only
lora/planner/ …   one adapter a role, as PEFT writes it, active on the whole sequence (variant ``lora``)
alora/planner/ …  one activated adapter a role (variant ``alora``)
metrics.jsonl     one line a training step
README.md         the model card
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alpha_umi.errors import RunDirectoryError, UserError
from alpha_umi.trajectory import write_json
from alpha_umi.transcript import ROLES, Renderer, Role, Voice, Voices, add_markers, find_markers

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from alpha_umi.adapters import RoleAdapters

BACKBONE = "backbone"
_INFO = "run.json"
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_T = TypeVar("_T")


class RendererInfo(BaseModel):
    """What a run's transcripts are made with."""

    model_config = ConfigDict(extra="forbid")

    voices: Voices
    observation_tokens: int
    fingerprint: str


class RunInfo(BaseModel):
    """The contents of ``run.json``.

    Attributes:
        recipe: The recipe as it was run.
        max_length: Longest transcript the run was trained on, and the context it is used with.
        budget: Steps of each stage, once they are known.
        done: Stages that are complete: ``global``, ``local/planner`` …
        costs: Per stage: tokens forwarded, loss tokens, FLOPs, seconds, trajectories.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    system: str
    recipe: dict[str, Any]
    renderer: RendererInfo
    data: str
    max_length: int
    precision: Literal["bf16", "fp32"]
    budget: dict[str, int] = {}
    done: list[str] = []
    costs: dict[str, dict[str, float]] = {}
    losses: dict[str, dict[str, float]] = {}
    versions: dict[str, str] = {}

    def save(self, directory: Path) -> None:
        """Writes ``run.json`` atomically."""
        write_json(directory / _INFO, self.model_dump())


def read_info(directory: Path) -> RunInfo | None:
    """Reads ``run.json``; None if there is none.

    Raises:
        RunDirectoryError: It is damaged, or of another version.
    """
    try:
        return RunInfo.model_validate(json.loads((directory / _INFO).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, ValidationError, OSError) as error:
        raise RunDirectoryError(f"{directory / _INFO} can't be read: {error}") from error


def role_folder(directory: Path, variant: str, role: Role) -> Path:
    """Where a role's model or adapter lies in a run directory."""
    return directory / role if variant == "full" else directory / variant / role


Variant = Literal["lora", "alora"]


class AdapterShape(BaseModel):
    """The shape of a role's adapter; part of a recipe.

    Attributes:
        rank: R.
        alpha: The adapter's output is scaled by ``alpha / rank``.
        targets: Names of the linear layers that get one, as they end; ``all-linear`` takes every one but the head.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(default=32, ge=1)
    alpha: float = Field(default=64.0, gt=0)
    targets: list[str] | Literal["all-linear"] = "all-linear"


class AdapterIdentity(BaseModel):
    """What an adapter belongs to; lies beside it as ``alpha_umi.json``."""

    model_config = ConfigDict(extra="forbid")

    role: Role
    variant: Variant
    backbone: str
    renderer: str


@dataclass(frozen=True)
class Run:
    """A loaded run.

    Attributes:
        models: The model of each voice; voices may share one.
        renderer: Makes the transcripts it was trained on.
        context: Tokens it can be used with.
        adapters: The roles' adapters on their one model, if it is adapters.
        variant: Of the adapters.
    """

    directory: Path
    info: RunInfo
    models: dict[Voice, PreTrainedModel]
    renderer: Renderer
    context: int
    adapters: RoleAdapters | None = None
    variant: Variant | None = None


def load_run(directory: str | Path, variant: str | None = None) -> Run:
    """Loads a finished run.

    Args:
        directory: Of the run.
        variant: ``full``, ``lora`` or ``alora``, of a run that has several; None takes the first of its recipe.

    Raises:
        RunDirectoryError: It isn't one, isn't finished, was made by another renderer, or has no such variant.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise RunDirectoryError(f"{directory}: no such run directory; `umi train` and `umi quickstart` make one")
    info = read_info(directory)
    if info is None:
        raise RunDirectoryError(f"{directory} has no {_INFO}: not a run directory")
    if info.system in ("umi", "multi-one-stage"):
        return _load_roles(directory, info, _variant(directory, info, variant))
    if variant is not None:
        raise RunDirectoryError(f"{directory} is a run of one model ({info.system}): it has no variant {variant!r}")
    _refuse_unfinished(directory, [] if "global" in info.done else ["global"])
    renderer = _renderer(directory, info)
    model = load_model(str(directory / BACKBONE))
    voices: tuple[Voice, ...] = ("assistant",) if info.renderer.voices == "single" else ROLES
    return Run(directory, info, dict.fromkeys(voices, model), renderer, _positions(model))


def _variant(directory: Path, info: RunInfo, wanted: str | None) -> str:
    """The variant to load."""
    known: list[str] = (info.recipe.get("local_stage") or {}).get("variants", ["full"])
    if wanted is not None and wanted not in known:
        raise RunDirectoryError(f"{directory} has no variant {wanted!r}; it has {', '.join(known)}")
    return wanted or known[0]


def _refuse_unfinished(directory: Path, missing: Sequence[str]) -> None:
    if missing:
        raise RunDirectoryError(
            f"{directory} isn't finished ({', '.join(missing)} missing); run the same `umi train` again to go on"
        )


def _load_roles(directory: Path, info: RunInfo, variant: str) -> Run:
    """A run with a model or an adapter a role."""
    folders: dict[Role, Path] = {role: role_folder(directory, variant, role) for role in ROLES}
    missing = [folder for folder in folders.values() if not folder.is_dir()]
    _refuse_unfinished(directory, [folder.relative_to(directory).as_posix() for folder in missing])
    renderer = _renderer(directory, info)
    if variant not in get_args(Variant):
        models: dict[Voice, PreTrainedModel] = {}
        for role, folder in folders.items():
            models[role] = load_model(str(folder))
        return Run(directory, info, models, renderer, min(map(_positions, models.values())))
    from alpha_umi.adapters import load_adapters

    kind = cast("Variant", variant)
    model = load_model(str(directory / BACKBONE))
    adapters = load_adapters(model, folders, kind, directory / BACKBONE, renderer.fingerprint)
    return Run(directory, info, dict.fromkeys(ROLES, model), renderer, _positions(model), adapters, kind)


def _renderer(directory: Path, info: RunInfo) -> Renderer:
    tokenizer = load_tokenizer(str(directory / BACKBONE))
    renderer = Renderer(tokenizer, info.renderer.voices, info.renderer.observation_tokens)
    if renderer.fingerprint != info.renderer.fingerprint:
        raise RunDirectoryError(
            f"{directory} was trained with another renderer or tokenizer ({info.renderer.fingerprint}, here "
            f"{renderer.fingerprint}): train it again, or use the version of alpha-umi it was made with"
        )
    return renderer


def load_renderer(directory: Path | None, observation_tokens: int) -> Renderer:
    """A run's renderer; without a run, that of the shipped nano tokenizer with this observation budget."""
    if directory is None:
        return Renderer(load_tokenizer(str(shipped_base())), "roles", observation_tokens)
    info = read_info(directory)
    if info is None:
        raise RunDirectoryError(f"{directory} has no {_INFO}: not a run directory")
    return _renderer(directory, info)


def shipped_base() -> Path:
    """Where the pretrained nano backbone lies inside the package."""
    return Path(str(resources.files("alpha_umi") / "training" / "base"))


def _positions(model: PreTrainedModel) -> int:
    return int(getattr(model.config, "max_position_embeddings", 0) or 1 << 20)


def load_bare_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """A tokenizer by directory or hub id, as it is."""
    from transformers import AutoTokenizer

    return _from_pretrained(name, lambda: AutoTokenizer.from_pretrained(name, trust_remote_code=False))


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """A tokenizer by directory or hub id; one without chat markers is given ours."""
    tokenizer = load_bare_tokenizer(name)
    try:
        find_markers(tokenizer)
    except UserError:
        add_markers(tokenizer)
    return tokenizer


def load_model(name: str) -> PreTrainedModel:
    """A causal language model by directory or hub id, in float32, from safetensors only."""
    import torch
    from transformers import AutoModelForCausalLM

    return _from_pretrained(
        name,
        lambda: AutoModelForCausalLM.from_pretrained(
            name, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
        ),
    )


def _from_pretrained(name: str, load: Callable[[], _T]) -> _T:
    from safetensors import SafetensorError
    from transformers.utils import logging

    logging.disable_progress_bar()
    _refuse_missing_directory(name)
    try:
        return load()
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"no model can be loaded from {name!r}: give a directory with safetensors or a hub id ({first})"
        ) from error


def _refuse_missing_directory(name: str) -> None:
    """Says at once, without asking the hub, that a name which must be a directory's names none."""
    path = Path(name)
    hub_id = _HUB_ID.fullmatch(name) and not ("/" in name and path.parent.is_dir())
    if not path.is_dir() and not hub_id:
        raise UserError(
            f"no model can be loaded from {name!r}: there is no such directory, and a hub id is NAME or OWNER/NAME"
        )


def save_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, directory: Path, dtype: torch.dtype | None = None
) -> None:
    """Saves weights (bf16 above 50 M parameters, else float32) and tokenizer; complete or not there at all."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    large = sum(p.numel() for p in model.parameters()) > 50_000_000
    with replaced(directory) as partial:
        torch.nn.Module.to(model, dtype or (torch.bfloat16 if large else torch.float32))
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)


@contextmanager
def replaced(directory: Path) -> Iterator[Path]:
    """An empty directory to write into, which takes the place of ``directory`` once it is complete.

    Raises:
        UserError: The disk is full, or the place can't be written to.
    """
    partial = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        shutil.rmtree(directory, ignore_errors=True)
        partial.rename(directory)
    except OSError as error:
        raise UserError(
            f"can't write {directory}: {error.strerror or error}. Free some space or choose another place."
        ) from error
