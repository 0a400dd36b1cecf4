"""The paper's checkpoints: prompted as its code prompts them, read back into our transcript."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from alpha_umi.agent import Episode, run_one
from alpha_umi.agent.limits import Limits, StopReason
from alpha_umi.cli.options import strategy_for
from alpha_umi.data import alpha_umi, convert
from alpha_umi.data.format import Options
from alpha_umi.data.paper_rows import rows
from alpha_umi.engines import Request, Sampling
from alpha_umi.engines.base import Conversation
from alpha_umi.engines.checkpoint import Checkpoint, load_checkpoint
from alpha_umi.engines.load import PaperRun, chosen_source, open_engine
from alpha_umi.engines.paper import PaperEngine, our_planner, paper_planner
from alpha_umi.errors import RunDirectoryError, UserError
from alpha_umi.evaluation.static import static_predictions
from alpha_umi.run_directory import load_renderer
from alpha_umi.tools import ToolWorldSource
from alpha_umi.toolworld import World, make_tasks
from alpha_umi.trajectory import AssistantMessage, Trajectory, UserMessage
from alpha_umi.transcript import ROLES, Role
from tests.checkpoints import random_checkpoint, save_checkpoint


def make_engine(**more: Any) -> PaperEngine:
    named: dict[Role, Checkpoint] = {role: random_checkpoint(number) for number, role in enumerate(ROLES)}
    return PaperEngine(named, load_renderer(None, 4096), **{"max_new_tokens": 16, **more})


@pytest.fixture(scope="module")
def engine() -> PaperEngine:
    return make_engine()


def steps(trajectory: Trajectory) -> Iterator[tuple[Conversation, AssistantMessage]]:
    for at, message in enumerate(trajectory.messages):
        if isinstance(message, AssistantMessage) and message.decision is not None:
            yield Conversation(trajectory.tools, trajectory.messages[:at]), message


@pytest.mark.parametrize("role", ROLES)
def test_a_gold_step_is_prompted_as_the_papers_training_row(engine: PaperEngine, real_data: Path, role: Role):
    """Every step of the paper's examples, the byte-exact rows being the measure."""
    read = convert(real_data / "alpha-umi" / "raw_data_stage_2.json", "alpha-umi")
    trajectories = [item for item in read if isinstance(item, Trajectory)]
    wanted = [row["input"] for row in rows(trajectories, Options.of(role=role))]
    made: list[str] = []
    for so_far, message in (step for trajectory in trajectories for step in steps(trajectory)):
        if role != "planner":
            if (role == "caller") != bool(message.tool_calls) or message.refusal is not None:
                continue
            text = f"{message.reasoning_content}\nNext: {message.decision}"
            written = alpha_umi.planner_text(message)
            assert written is not None
            engine._written[0] = {paper_planner(text): written}
            so_far = Conversation(so_far.tools, so_far.messages, text)
        made.append(engine.prompt(Request(0, role, (), None, so_far)))
        engine.forget([0])
    assert made == wanted


@pytest.mark.parametrize(
    ("text", "span", "written"),
    [
        ("Look it up.\n Next: caller.", "Look it up.\nNext: Caller", "Look it up.\n Next: caller."),
        ("Done. Next: conclusion. And more", "Done.\nNext: Summarizer", "Done. Next: conclusion."),
        ("No way Next: give up", "No way\nNext: Give up", "No way Next: give up"),
        ("Just words", "Just words\nNext: Caller", "Just words Next: caller."),
        ("", "none\nNext: Caller", "none Next: caller."),
        (
            "I call. Next: caller. Or Next: give up. No",
            "I call. Next: caller. Or\nNext: Give up",
            "I call. Next: caller. Or Next: give up.",
        ),
        (
            "Next: caller. Then Next: conclusion. No",
            "Next: caller. Then\nNext: Summarizer",
            "Next: caller. Then Next: conclusion.",
        ),
    ],
)
def test_a_planners_text_is_cut_after_its_decision_and_calls_without_one(text: str, span: str, written: str):
    assert our_planner(text) == (span, written)


@pytest.mark.parametrize(
    ("text", "span", "written"),
    [
        ("Just words", "Just words\nNext: Caller", "Just wordsNext: caller."),
        ("", "none\nNext: Caller", "noneNext: caller."),
        (": \n Next: give up. No", "\nNext: Give up", "\n Next: give up."),
    ],
)
def test_static_inference_keeps_the_spaces_that_were_written_and_adds_none(text: str, span: str, written: str):
    assert our_planner(text, static=True) == (span, written)


@pytest.mark.parametrize(("speaker", "longest"), [("planner", 3750), ("assistant", 3576)])
def test_prompts_are_cut_as_the_static_and_the_live_inference_cut_them(speaker: str, longest: int):
    engine = make_engine(planner_speaker=speaker, max_new_tokens=1)
    request = Request(0, "planner", (), None, Conversation((), (UserMessage("x" * 4000),)))
    assert engine.generate([request], Sampling())[0].prefill_tokens == longest


def test_a_prompt_that_is_too_long_loses_its_beginning():
    engine = make_engine(max_input=64)
    request = Request(0, "planner", (), None, Conversation((), (UserMessage("x" * 500),)))
    (made,) = engine.generate([request], Sampling())
    assert made.prefill_tokens == 64


def test_a_batch_writes_what_each_request_writes_alone(engine: PaperEngine):
    said = ("Hi.", "A much longer instruction than the other one.", "And a third")
    requests = [Request(n, "planner", (), None, Conversation((), (UserMessage(text),))) for n, text in enumerate(said)]
    together = [made.ids for made in engine.generate(requests, Sampling())]
    assert together == [engine.generate([request], Sampling())[0].ids for request in requests]


def test_sampling_is_repeatable_and_differs_between_seeds(engine: PaperEngine):
    request = Request(0, "planner", (), None, Conversation((), (UserMessage("Hi."),)))
    made = [engine.generate([request], Sampling(temperature=0.9, seed=seed))[0].ids for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]


def test_one_voice_is_none_of_the_papers_three(engine: PaperEngine):
    with pytest.raises(UserError, match="none speaks as assistant"):
        engine.generate([Request(0, "assistant", (), None, Conversation((), ()))], Sampling())


def test_the_agent_and_the_static_protocol_run_with_it(engine: PaperEngine):
    task = next(make_tasks("I1-Inst", 1, seed=0))
    episode = Episode(0, ToolWorldSource(World(task)), [UserMessage(task.instruction)], task.tools)
    outcome = run_one(engine, episode, Limits(steps=2))
    assert outcome.stop_reason is StopReason.STEP_LIMIT, "random models never decide, which counts as a call"
    assert [call.error for call in outcome.calls] == ["malformed_call"] * 2
    turns = [m for m in outcome.trajectory.messages if isinstance(m, AssistantMessage)]
    assert all(turn.tool_calls[0].malformed for turn in turns)

    gold = Trajectory(task.tools, (UserMessage("x"), AssistantMessage("So.", content="Done.")), "gold")
    ((name, reference, prediction),) = static_predictions(engine, [gold])
    assert (name, reference.answer, prediction.answer) == ("gold", "Done.", None)
    assert prediction.calls[0].malformed


# ---- where they come from


@pytest.fixture
def saved(tmp_path: Path) -> dict[str, str]:
    return {role: save_checkpoint(number, tmp_path / role) for number, role in enumerate(ROLES)}


def test_checkpoints_are_loaded_by_name_or_through_a_directory_that_names_them(saved: dict[str, str], tmp_path: Path):
    named = chosen_source(None, saved["planner"], saved["caller"], saved["summarizer"], "paper", "planner")
    assert isinstance(named, PaperRun)
    (tmp_path / "paper.json").write_text(json.dumps(saved | {"wording": "toolalpaca"}))
    for source, speaker in ((named, "planner"), (tmp_path, "assistant")):
        with open_engine(source) as engine:
            assert isinstance(engine, PaperEngine)
            assert set(engine.models) == set(ROLES)
            assert engine.planner_speaker == speaker
            request = Request(0, "planner", (), None, Conversation((), (UserMessage("Hi."),)))
            assert engine.generate([request], Sampling())[0].ids


def test_a_directory_that_names_them_can_be_told_how_to_prompt_them(tmp_path: Path):
    (tmp_path / "paper.json").write_text(json.dumps(dict.fromkeys(ROLES, "x") | {"wording": "toolalpaca"}))
    as_named = chosen_source(tmp_path, None, None, None, None)
    assert isinstance(as_named, PaperRun)
    assert (as_named.wording, as_named.planner_speaker) == ("toolalpaca", None)
    told = chosen_source(tmp_path, None, None, None, "paper", "planner", wording="toolbench")
    assert isinstance(told, PaperRun)
    assert (told.wording, told.planner_speaker) == ("toolbench", "planner")


def test_the_papers_checkpoints_are_sampled_as_its_code_does_and_others_are_not(tmp_path: Path):
    papers = PaperRun(planner="a", caller="b", summarizer="c")
    assert strategy_for("react", papers).sampling == Sampling(temperature=0.5)
    assert strategy_for("react", papers, 0.0).sampling == strategy_for("react", tmp_path).sampling == Sampling()
    assert strategy_for("dfsdt", tmp_path, 1.0).sampling == Sampling(temperature=1.0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": Path("x"), "wording": "toolalpaca"}, "only the paper's checkpoints"),
        ({"model": Path("x"), "planner_speaker": "planner"}, "only the paper's checkpoints"),
        (
            {**dict.fromkeys(get_args(Role), "a"), "renderer": "paper", "wording": "x"},
            "known are toolbench, toolalpaca",
        ),
        ({}, "give --model RUN, or --planner"),
        ({"planner": "a", "renderer": "paper"}, "all of them and without --model"),
        ({**dict.fromkeys(get_args(Role), "a"), "renderer": None}, "--renderer paper"),
        ({**dict.fromkeys(get_args(Role), "a"), "renderer": "paper", "model": Path("x")}, "without --model"),
        ({"renderer": "chatml"}, "known are transcript, paper and toolllama"),
    ],
)
def test_half_a_choice_of_models_is_refused(options: dict[str, Any], said: str):
    given = dict.fromkeys(("model", "planner", "caller", "summarizer", "renderer")) | options
    with pytest.raises(UserError, match=said):
        chosen_source(**given)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["./runs/typo", "/nowhere/at/all", "runs/paper/planner", "~/planner"])
def test_a_directory_that_is_not_there_is_refused_without_asking_the_hub(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *_, **__: pytest.fail("asked for"))
    with pytest.raises(UserError, match="there is no such directory, and a hub id is NAME or OWNER/NAME"):
        load_checkpoint(name, torch.float32, torch.device("cpu"))


def test_a_name_below_a_directory_that_is_there_is_no_hub_id(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="runs/typo': there is no such directory"):
        load_checkpoint("runs/typo", torch.float32, torch.device("cpu"))


@pytest.mark.parametrize("name", ["gpt2", "shenwzh3/alpha-umi-planner-7b", "ToolBench/ToolLLaMA-2-7b-v2", "a/b_c.d"])
def test_a_hub_id_is_asked_for(name: str, monkeypatch: pytest.MonkeyPatch):
    def load(asked: str) -> None:
        raise UserError(f"asked for {asked}")

    monkeypatch.setattr("alpha_umi.run_directory.load_model", load)
    with pytest.raises(UserError, match=f"asked for {name}"):
        load_checkpoint(name, torch.float32, torch.device("cpu"))


def test_a_damaged_description_is_refused(tmp_path: Path):
    (tmp_path / "paper.json").write_text('{"planner": "a"}')
    with pytest.raises(RunDirectoryError, match=r"paper\.json can't be read"), open_engine(tmp_path):
        pass
