"""An engine for a run directory, the paper's checkpoints or a ToolLLaMA, in the precision that is fastest here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from alpha_umi.compute import device, probe_precision
from alpha_umi.data.format import Wording, wording_of
from alpha_umi.data.records import reason
from alpha_umi.engines.base import Engine
from alpha_umi.engines.local import LocalEngine
from alpha_umi.engines.openai_config import OpenAIRun, load_openai_run
from alpha_umi.errors import RunDirectoryError, UserError
from alpha_umi.run_directory import load_run
from alpha_umi.transcript import ROLES, Renderer, Role

if TYPE_CHECKING:
    import torch

    from alpha_umi.engines.checkpoint import Checkpoint

Speaker = Literal["assistant", "planner"]
PAPER_FILE = "paper.json"
"""Makes a directory a run of the paper's checkpoints: a `PaperRun`."""

_OBSERVATION_TOKENS = 4096


class PaperRun(BaseModel):
    """The paper's checkpoints and how they are prompted.

    Attributes:
        planner: Directory or hub id, as ``caller`` and ``summarizer``.
        wording: Of the prompts.
        planner_speaker: How the planner's turn of a step is headed for the caller and the summarizer; None is as the
            paper does it: ``planner`` in static inference, ``assistant`` otherwise.
    """

    model_config = ConfigDict(extra="forbid")

    planner: str
    caller: str
    summarizer: str
    wording: Wording = "toolbench"
    planner_speaker: Speaker | None = None


@dataclass(frozen=True)
class ToolLlamaRun:
    """A ToolLLaMA-style checkpoint: a directory or hub id."""

    model: str


Source = Path | PaperRun | ToolLlamaRun | OpenAIRun
"""What generates, as chosen on a command line."""


@contextmanager
def open_engine(
    source: str | Source,
    threads: int | None = None,
    context: int | None = None,
    *,
    constrain: bool = True,
    variant: str | None = None,
) -> Iterator[Engine]:
    """Loads a run's models into this process, or speaks to endpoints.

    Args:
        source: The run directory (with a ``paper.json``: of the paper's checkpoints), these checkpoints, a
            ToolLLaMA-style one, or endpoints.
        threads: CPU threads; None keeps what is set.
        context: Longest transcript; None takes what the models can. Endpoints have their own.
        constrain: Hold calls and decisions to what is legal (checkpoints of others never are; endpoints are, where
            their file says so).
        variant: ``full``, ``lora`` or ``alora``, of a run that has several; None takes the first of its recipe.

    Raises:
        RunDirectoryError: It isn't a finished run, another renderer made it, or it has no such variant.
        UserError: A checkpoint can't be loaded, or has no variants and one is wanted.
    """
    if isinstance(source, OpenAIRun):
        if variant is not None:
            raise UserError(f"--variant {variant}: an engine file names its models, one by one")
        from alpha_umi.engines.openai import open_openai

        with open_openai(source, constrain) as engine:
            yield engine
        return
    import torch

    dtype = torch.bfloat16 if probe_precision() == "bf16" else torch.float32
    if isinstance(source, ToolLlamaRun):
        if variant is not None:
            raise UserError(f"--variant {variant}: a ToolLLaMA checkpoint is a whole model and has no variants")
        yield _toolllama_engine(source, dtype, threads)
        return
    if not isinstance(source, PaperRun):
        described = read_paper_run(Path(source))
        if described is None:
            run = load_run(source, variant)
            yield LocalEngine(
                run.models, run.renderer, dtype, device(), threads, context=context or run.context, constrain=constrain,
                adapters=run.adapters, variant=run.variant,
            )  # fmt: skip
            return
        source = described
    if variant is not None:
        raise UserError(f"--variant {variant}: the paper's checkpoints are whole models and have no variants")
    yield _paper_engine(source, dtype, threads)


def _paper_engine(run: PaperRun, dtype: torch.dtype, threads: int | None) -> Engine:
    import torch

    from alpha_umi.engines.checkpoint import load_checkpoint
    from alpha_umi.engines.paper import PaperEngine
    from alpha_umi.run_directory import load_renderer

    if threads:
        torch.set_num_threads(threads)
    models: dict[Role, Checkpoint] = {role: load_checkpoint(getattr(run, role), dtype, device()) for role in ROLES}
    return PaperEngine(
        models, load_renderer(None, _OBSERVATION_TOKENS), run.planner_speaker or "assistant", run.wording
    )


def _toolllama_engine(run: ToolLlamaRun, dtype: torch.dtype, threads: int | None) -> Engine:
    import torch

    from alpha_umi.engines.checkpoint import load_checkpoint
    from alpha_umi.engines.toolllama import ToolLlamaEngine
    from alpha_umi.run_directory import load_tokenizer, shipped_base

    if threads:
        torch.set_num_threads(threads)
    books = Renderer(load_tokenizer(str(shipped_base())), "single", _OBSERVATION_TOKENS)
    return ToolLlamaEngine(load_checkpoint(run.model, dtype, device()), books)


def read_paper_run(directory: Path) -> PaperRun | None:
    """What a directory's ``paper.json`` says; None if it has none.

    Raises:
        RunDirectoryError: The file is not what it should be.
    """
    path = directory / PAPER_FILE
    if not path.is_file():
        return None
    try:
        return PaperRun.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise RunDirectoryError(f"{path} can't be read: {reason(error)}") from error
    except ValueError as error:
        raise RunDirectoryError(f"{path} can't be read: {error}") from error


def chosen_source(
    model: Path | None,
    planner: str | None,
    caller: str | None,
    summarizer: str | None,
    renderer: str | None,
    planner_speaker: str | None = None,
    engine: Path | None = None,
    wording: str | None = None,
) -> Source:
    """A run directory, three checkpoints with the paper's renderer, one with ToolLLaMA's, or an engine file, as typed.

    Raises:
        UserError: It is none of these, or more than one.
    """
    if engine is not None:
        if any(given is not None for given in (model, planner, caller, summarizer, renderer, planner_speaker, wording)):
            raise UserError("--engine says what speaks for every role: leave out --model, the checkpoints, --renderer")
        return load_openai_run(engine)
    run = _paper_run(model, planner, caller, summarizer, renderer)
    if run is not None:
        if planner_speaker is not None and planner_speaker not in get_args(Speaker):
            raise UserError(f"unknown speaker {planner_speaker!r}; known are {', '.join(get_args(Speaker))}")
        said = {"planner_speaker": planner_speaker, "wording": None if wording is None else wording_of(wording)}
        return run.model_copy(update={name: value for name, value in said.items() if value is not None})
    for option, value in (("--planner-speaker", planner_speaker), ("--wording", wording)):
        if value is not None:
            raise UserError(f"{option} {value}: only the paper's checkpoints are prompted in that way; leave it out")
    if renderer not in (None, "transcript", "paper", "toolllama"):
        raise UserError(f"unknown renderer {renderer!r}; known are transcript, paper and toolllama")
    if renderer == "toolllama":
        if model is None or planner or caller or summarizer:
            raise UserError("--renderer toolllama is for one checkpoint: give it as --model ID, and no other")
        return ToolLlamaRun(model.as_posix())
    if model is None and planner is None and caller is None and summarizer is None:
        raise UserError(
            "give --model RUN, or --planner ID --caller ID --summarizer ID --renderer paper, or --engine YAML"
        )
    if model is None or planner or caller or summarizer:
        raise UserError(
            "checkpoints of your own are given as --planner ID --caller ID --summarizer ID --renderer paper, "
            "all of them and without --model"
        )
    return model


def _paper_run(
    model: Path | None, planner: str | None, caller: str | None, summarizer: str | None, renderer: str | None
) -> PaperRun | None:
    """The paper's checkpoints, if it is these that were typed: all three, or a directory that names them."""
    if model is not None and renderer in (None, "paper") and not (planner or caller or summarizer):
        return read_paper_run(model)
    if model is None and renderer == "paper" and planner and caller and summarizer:
        return PaperRun(planner=planner, caller=caller, summarizer=summarizer)
    return None
