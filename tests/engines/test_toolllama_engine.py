"""One ToolLLaMA-style model: prompted as its training data is worded, read back into the single voice."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from alpha_umi.agent import Episode, run_one
from alpha_umi.agent.limits import Limits, StopReason
from alpha_umi.cli import app
from alpha_umi.data import toolllama
from alpha_umi.data.function_chains import GIVE_UP_TEXT
from alpha_umi.engines import Request, Sampling
from alpha_umi.engines.base import Conversation, Ending
from alpha_umi.engines.checkpoint import Checkpoint, Continuation
from alpha_umi.engines.load import ToolLlamaRun, chosen_source, open_engine
from alpha_umi.engines.toolllama import ToolLlamaEngine, single_voice
from alpha_umi.errors import UserError
from alpha_umi.evaluation.static import static_predictions
from alpha_umi.run_directory import load_tokenizer, shipped_base
from alpha_umi.trajectory import (
    AssistantMessage,
    Message,
    SystemMessage,
    Tool,
    ToolCall,
    ToolMessage,
    Trajectory,
    UserMessage,
    write_jsonl,
)
from alpha_umi.transcript import Renderer, parse_single
from tests.checkpoints import random_checkpoint, save_checkpoint

TOOL = Tool.of("find", "Finds.", {"type": "object", "properties": {"q": {"type": "string"}}})
CALL = 'Thought: I look.\nAction: find\nAction Input: {\n  "q": "x"\n}'
ANSWER = 'Thought: Done.\nAction: Finish\nAction Input: {"return_type": "give_answer", "final_answer": "42"}'
GIVE_UP = 'Thought: \nAction: Finish\nAction Input: {"return_type": "give_up_and_restart"}'


@pytest.fixture(scope="module")
def books() -> Renderer:
    return Renderer(load_tokenizer(str(shipped_base())), "single", 4096)


@pytest.fixture(scope="module")
def tiny(books: Renderer) -> ToolLlamaEngine:
    return ToolLlamaEngine(random_checkpoint(0), books, max_new_tokens=16)


class Scripted(Checkpoint):
    """Writes what it is told to, one text a prompt, and remembers the prompts."""

    def __init__(self, texts: Sequence[str]) -> None:
        made = random_checkpoint(0)
        super().__init__(made.model, made.tokenizer)
        object.__setattr__(self, "texts", list(texts))
        object.__setattr__(self, "prompts", [])

    texts: list[str]
    prompts: list[str]

    def continuations(
        self, prompts: Sequence[str], sampling: Sampling, max_input: int, max_new_tokens: int, attempt: int = 0
    ) -> list[Continuation]:
        self.prompts.extend(prompts)
        return [Continuation(self.texts.pop(0), Ending.END, len(prompt)) for prompt in prompts]


class Finder:
    """Always finds the same."""

    tools = (TOOL,)
    writes: frozenset[str] = frozenset()

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        return "found"


def prompt_of(engine: ToolLlamaEngine, *messages: Message) -> str:
    return engine.prompt(Request(0, "assistant", (), None, Conversation((TOOL,), messages)))


# ---- prompts


def test_a_prompt_is_the_training_conversation_up_to_where_the_assistant_speaks(tiny: ToolLlamaEngine):
    trajectory = Trajectory((TOOL,), (
        UserMessage("Find it."), AssistantMessage("I look.", (ToolCall("c", "find", '{"q": "x"}'),)),
        ToolMessage("c", "seen"), AssistantMessage("Done.", content="42"),
    ))  # fmt: skip
    system, user, call, seen, _ = (turn["value"] for turn in toolllama.write(trajectory)["conversations"])
    assert prompt_of(tiny, *trajectory.messages[:-1]) == (
        f"System: {system}\nUser: {user}\nAssistant: {call}</s>Function: {seen}\nAssistant:\n"
    )
    assert user == "\nFind it.\nBegin!\n"
    assert call == '\nThought: I look.\nAction: find\nAction Input: {"q": "x"}'
    assert "'name': 'find'" in system and "'name': 'Finish'" in system


def test_the_system_turn_is_the_published_prompt(tiny: ToolLlamaEngine, real_data: Path):
    published: str = json.loads((real_data / "alpha-umi" / "prompts.json").read_text())["toolbench_toolllama"]
    head = published.partition("{tool_doc}")[0]
    assert prompt_of(tiny, UserMessage("x")).startswith(f"System: {head}1.find: ")


def test_what_the_format_has_not_is_worded_all_the_same(tiny: ToolLlamaEngine):
    calls = (ToolCall("a", "find", "{}"), ToolCall("b", "find", '{"q": "y"}'))
    made = prompt_of(
        tiny, SystemMessage("Be kind."), UserMessage("Hi."), AssistantMessage(None, calls), ToolMessage("a", "1"),
        ToolMessage("b", "2"), AssistantMessage(), SystemMessage("And short."),
    )  # fmt: skip
    assert "subfunctions' names.\nBe kind.\nYou have access of the following tools:\n1.find: " in made
    assert made.endswith(
        "Assistant: \nThought: \nAction: find\nAction Input: {}</s>Function: 1\n"
        'Assistant: \nThought: \nAction: find\nAction Input: {"q": "y"}</s>Function: 2\nUser: And short.\nAssistant:\n'
    )


def test_a_long_prompt_loses_its_beginning_and_leaves_room_to_write(books: Renderer):
    engine = ToolLlamaEngine(random_checkpoint(0, max_position_embeddings=256), books, max_new_tokens=16)
    request = Request(0, "assistant", (), None, Conversation((), (UserMessage("x" * 500),)))
    assert engine.generate([request], Sampling())[0].prefill_tokens == 256 - 16 - 8
    assert ToolLlamaEngine(random_checkpoint(0), books).max_input == 8192 - 512 - 8


# ---- reading back


@pytest.mark.parametrize(
    ("text", "span"),
    [
        (CALL, 'I look.\nCall: {"name": "find", "arguments": {\n  "q": "x"\n}}'),
        ("\n" + CALL + "\n", 'I look.\nCall: {"name": "find", "arguments": {\n  "q": "x"\n}}'),
        ("Hm.\nAction: find\nAction Input: {}", 'Hm.\nCall: {"name": "find", "arguments": {}}'),
        ("Action: find\nAction Input:\n{}", 'Call: {"name": "find", "arguments": {}}'),
        (ANSWER, "Done.\nAnswer: 42"),
        (GIVE_UP, f"Give up: {GIVE_UP_TEXT}"),
        ('Action: Finish\nAction Input: {"return_type": "give_answer", "final_answer": "cut', "Answer: cut"),
        ("Thought: Hm", "Call: Thought: Hm"),
        ("", "Call: "),
        (
            "Thought: a\nAnswer: b\nAction: find\nAction Input: {}",
            'a\n Answer: b\nCall: {"name": "find", "arguments": {}}',
        ),
    ],
)
def test_a_text_is_read_into_the_single_voice(text: str, span: str):
    assert single_voice(text) == span


def test_a_call_that_is_no_json_keeps_its_name_and_is_malformed():
    turn = parse_single(single_voice("Thought: a\nAction: find\nAction Input: {oops"))
    assert turn.reasoning_content == "a"
    assert [(call.name, call.malformed) for call in turn.tool_calls] == [("find", True)]


def test_only_the_first_action_counts_and_all_that_follows_is_its_input():
    turn = parse_single(single_voice(f"{CALL}\n{ANSWER}"))
    assert [(call.name, call.malformed) for call in turn.tool_calls] == [("find", True)]


PIECES = st.sampled_from(
    ["Thought: ", "\nAction: ", "\nAction Input: ", "find", "Finish", "{}", "\n", "Call: ", "é", '"']
)


@given(st.lists(PIECES | st.text(max_size=4), max_size=8).map("".join))
def test_whatever_is_written_decides(text: str):
    assert parse_single(single_voice(text)).decision is not None


# ---- at work


def scripted(books: Renderer, *texts: str) -> tuple[ToolLlamaEngine, Scripted]:
    checkpoint = Scripted(texts)
    return ToolLlamaEngine(checkpoint, books), checkpoint


def test_the_agent_calls_observes_and_answers(books: Renderer):
    engine, checkpoint = scripted(books, CALL, ANSWER)
    outcome = run_one(engine, Episode(0, Finder(), [UserMessage("Find it.")]), Limits())
    assert (outcome.stop_reason, outcome.answer) == (StopReason.ANSWERED, "42")
    assert [(call.call.name, call.error) for call in outcome.calls] == [("find", None)]
    assert checkpoint.prompts[1] == checkpoint.prompts[0].removesuffix("Assistant:\n") + (
        f"Assistant: \n{CALL}</s>Function: found\nAssistant:\n"
    )


def test_giving_up_ends_a_run(books: Renderer):
    outcome = run_one(scripted(books, GIVE_UP)[0], Episode(0, Finder(), [UserMessage("Find it.")]), Limits())
    assert (outcome.stop_reason, outcome.refusal) == (StopReason.GAVE_UP, GIVE_UP_TEXT)


@pytest.mark.parametrize("text", ["Thought: I wonder", "Thought: a\nAction:  find\nAction Input: {oops"])
def test_a_turn_that_cannot_be_read_is_observed_and_stands_as_it_was_written(books: Renderer, text: str):
    engine, checkpoint = scripted(books, text, ANSWER)
    outcome = run_one(engine, Episode(0, Finder(), [UserMessage("Find it.")]), Limits())
    assert outcome.answer == "42"
    assert [call.error for call in outcome.calls] == ["malformed_call"]
    assert f"Assistant: \n{text}</s>Function: " in checkpoint.prompts[1]


def test_a_batch_writes_what_each_request_writes_alone(tiny: ToolLlamaEngine):
    said = ("Hi.", "A much longer instruction than the other one.")
    requests = [Request(n, "assistant", (), 99, Conversation((), (UserMessage(text),))) for n, text in enumerate(said)]
    together = [made.ids for made in tiny.generate(requests, Sampling())]
    assert together == [tiny.generate([request], Sampling())[0].ids for request in requests]
    assert tiny.prefill(requests) == [0, 0]
    tiny.fork(0, 1, 0)
    tiny.forget([0, 1, 7])


def test_the_static_protocol_scores_one_voice(books: Renderer):
    gold = Trajectory((TOOL,), (
        UserMessage("x"), AssistantMessage("Go.", (ToolCall("c", "find", "{}"),)), ToolMessage("c", "1"),
        AssistantMessage("So.", content="Done."),
    ), "gold")  # fmt: skip
    (_, _, called), (_, _, answered) = static_predictions(scripted(books, CALL, ANSWER)[0], [gold])
    assert (called.calls[0].name, called.rationale) == ("find", "I look.")
    assert (answered.answer, answered.rationale) == ("42", "Done.")


# ---- where it comes from


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_checkpoint(0, tmp_path_factory.mktemp("toolllama") / "model")


def test_a_checkpoint_is_chosen_by_its_name_and_renderer(saved: str):
    source = chosen_source(Path(saved), None, None, None, "toolllama")
    assert source == ToolLlamaRun(saved)
    assert chosen_source(Path("ToolBench/ToolLLaMA-2-7b-v2"), None, None, None, "toolllama") == ToolLlamaRun(
        "ToolBench/ToolLLaMA-2-7b-v2"
    )
    with open_engine(source) as engine:
        assert isinstance(engine, ToolLlamaEngine) and engine.renderer.voices == "single"


@pytest.mark.parametrize("given", [(None, None), (Path("m"), "p")])
def test_it_is_one_checkpoint_and_no_other(given: tuple[Path | None, str | None]):
    with pytest.raises(UserError, match="for one checkpoint: give it as --model ID"):
        chosen_source(given[0], given[1], None, None, "toolllama")


def test_a_variant_or_a_missing_checkpoint_is_refused(saved: str, tmp_path: Path):
    with pytest.raises(UserError, match="has no variants"), open_engine(ToolLlamaRun(saved), variant="lora"):
        pass
    with pytest.raises(UserError, match="no model can be loaded"), open_engine(ToolLlamaRun(str(tmp_path / "no"))):
        pass


@pytest.fixture
def umi(saved: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a command with the saved checkpoint, whose spans are kept short."""
    init = ToolLlamaEngine.__init__
    monkeypatch.setattr(ToolLlamaEngine, "__init__", lambda self, *given: init(self, *given, max_new_tokens=8))
    monkeypatch.setattr("alpha_umi.compute.use_all_cores", lambda: None)

    def run(*arguments: object) -> str:
        result = CliRunner().invoke(app, [*map(str, arguments), "--model", saved, "--renderer", "toolllama"])
        assert result.exit_code == 0, result.output
        return result.output

    return run


def test_the_command_line_runs_it(umi: Callable[..., str]):
    outcome = json.loads(umi("run", "Find it.", "--tools", "toolworld:1", "--strategy", "react:steps=2", "--json"))
    assert outcome["stop_reason"] == "step_limit"
    assert [call["error"] for call in outcome["calls"]] == ["malformed_call"] * 2


def test_the_command_line_evaluates_it(umi: Callable[..., str], tmp_path: Path):
    gold = Trajectory((TOOL,), (UserMessage("x"), AssistantMessage("So.", content="Done.")), "gold")
    write_jsonl(tmp_path / "gold.jsonl", [gold])
    umi("eval", "static", "--data", tmp_path / "gold.jsonl", "--json", tmp_path / "static.json")
    assert json.loads((tmp_path / "static.json").read_text())["paper"]["plan_acc"] == 0.0
    umi(
        "eval", "live", "--world", "toolworld", "--split", "I1-Inst", "--instructions", 2,
        "--strategy", "react:steps=1", "--json", tmp_path / "live.json",
    )  # fmt: skip
    assert json.loads((tmp_path / "live.json").read_text())["splits"]["I1-Inst"]["pass_rate"] == 0.0
