"""A run's models behind a completions API that takes token ids: the same tokens as in this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from llguidance import LLMatcher
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from alpha_umi.agent import Episode, Limits, run_one
from alpha_umi.engines import Ending, Engine, Generation, Request, Sampling
from alpha_umi.engines.base import Conversation
from alpha_umi.engines.grammars import grammar
from alpha_umi.engines.local import LocalEngine
from alpha_umi.engines.openai import OpenAIEngine, open_openai
from alpha_umi.engines.openai_config import OpenAIRun
from alpha_umi.engines.openai_dialects import call_schema
from alpha_umi.errors import RunDirectoryError, UserError
from alpha_umi.evaluation.static import static_predictions
from alpha_umi.run_directory import BACKBONE, RendererInfo, RunInfo, load_tokenizer, save_model
from alpha_umi.tools import ToolWorldSource
from alpha_umi.toolworld import World, make_tasks
from alpha_umi.trajectory import AssistantMessage, Tool, ToolCall, ToolMessage, Trajectory, UserMessage
from alpha_umi.transcript import ROLES, Renderer, Voice, Voices
from tests.agent.conftest import KEY, Shelf
from tests.integration.provider import Body, Provider, completion, failure, providing
from tests.tokenizers import nano

Answer = Callable[[Body], Any]
GREEDY = Sampling(max_new_tokens=12)


def make_run(folder: Path, voices: Voices = "roles", tokenizer: PreTrainedTokenizerFast | None = None) -> Renderer:
    """A run directory with a random model, as far as it takes to prompt it from outside."""
    tokenizer = tokenizer or nano()
    shape: dict[str, Any] = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "max_position_embeddings": 4096, "vocab_size": len(tokenizer),
    }  # fmt: skip
    save_model(LlamaForCausalLM(LlamaConfig(**shape)), tokenizer, folder / BACKBONE)
    renderer = Renderer(load_tokenizer(str(folder / BACKBONE)), voices, 256)
    info = RendererInfo(voices=voices, observation_tokens=256, fingerprint=renderer.fingerprint)
    RunInfo(system="umi", recipe={}, renderer=info, data="", max_length=4096, precision="fp32").save(folder)
    return renderer


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    make_run(folder)
    return folder


@pytest.fixture(scope="module")
def local(run: Path) -> LocalEngine:
    """The three roles in this process: models of random weights, large ones, so that no two tokens tie."""
    from alpha_umi.run_directory import load_model, load_renderer

    models: dict[Voice, Any] = {}
    for number, role in enumerate(ROLES):
        torch.manual_seed(number)
        models[role] = load_model(str(run / BACKBONE))
        for parameter in models[role].parameters():
            torch.nn.init.normal_(parameter, std=0.3 if parameter.ndim == 2 else 1.0)
    return LocalEngine(models, load_renderer(run, 0), constrain=False)


@contextmanager
def served(run: Path, answer: Answer, **options: Any) -> Iterator[tuple[OpenAIEngine, Provider]]:
    constrain = options.pop("constrain", True)
    with providing(answer) as provider:
        endpoint = {"base_url": provider.base_url, "timeout": 60, **options}
        roles = {role: {**endpoint, "model": role} for role in ROLES}
        with open_openai(OpenAIRun.model_validate({"run": str(run), **roles}), constrain) as engine:
            yield engine, provider


def as_server(local: LocalEngine) -> Answer:
    """Completes token ids with the models of an engine, as vLLM does."""
    lock = threading.Lock()
    sessions = iter(range(1 << 20))

    def answer(body: Body) -> Body:
        role, prompt = body["model"], body["prompt"]
        header = local.renderer.header(role)
        assert tuple(prompt[-len(header) :]) == header
        with lock:
            asked = Request(next(sessions), role, prompt[: -len(header)], body["max_tokens"])
            (made,) = local.generate([asked], Sampling(body["temperature"]))
        return completion(local.renderer.decode(made.ids), list(made.ids), "stop" if made.finished else "length")

    return answer


def asked(voice: Voice = "caller", ids: tuple[int, ...] = (1, 2, 3)) -> Request:
    return Request(0, voice, ids, None, Conversation(Shelf.tools, (UserMessage("a?"),)))


def one(run: Path, answer: Any, request: Request | None = None, **options: Any) -> tuple[Generation, Body, Renderer]:
    sampling = options.pop("sampling_of_request", GREEDY)
    with served(run, lambda body: answer, **options) as (engine, provider):
        (made,) = engine.generate([request or asked()], sampling)
        return made, provider.bodies[0] if provider.bodies else {}, engine.renderer


# ---- the same tokens


def test_an_episode_has_the_same_tokens_as_in_this_process(run: Path, local: LocalEngine):
    task = next(make_tasks("I1-Inst", 1, seed=0))

    def transcript(engine: Engine) -> list[int]:
        episode = Episode(0, ToolWorldSource(World(task)), [UserMessage(task.instruction)], task.tools[:2])
        return run_one(engine, episode, Limits(steps=3, max_new_tokens=dict.fromkeys(ROLES, 24))).transcript.ids

    with served(run, as_server(local)) as (engine, provider):
        assert transcript(engine) == transcript(local)
    assert {body["model"] for body in provider.bodies} == {"planner", "caller"}
    assert provider.bodies[0]["stop_token_ids"] == [local.renderer.markers.end]


def test_static_predictions_are_the_same_as_in_this_process(run: Path, local: LocalEngine):
    called = AssistantMessage("So.", (ToolCall("call_0", "look_up", '{"key": "a"}'),))
    messages = (UserMessage("a?"), called, ToolMessage("call_0", "3"), AssistantMessage("Known.", content="It is 3."))
    gold = [Trajectory(Shelf.tools, messages)]
    with served(run, as_server(local)) as (engine, _):
        remote = static_predictions(engine, gold, max_new_tokens=dict.fromkeys(ROLES, 8))
    here = static_predictions(local, gold, max_new_tokens=dict.fromkeys(ROLES, 8))
    assert list(remote) == list(here) and remote.generated_tokens == here.generated_tokens > 0


# ---- what a completion says


@pytest.mark.parametrize(
    ("given", "finish", "wanted"),
    [([7, 8, -1], "stop", (7, 8, -1)), ([7, 8], "stop", (7, 8, -1)), ([7, 8], "length", (7, 8)),
     ([7, -1, 8], "length", (7, -1))],
)  # fmt: skip
def test_a_span_ends_with_its_end_token_whether_or_not_the_server_gives_it(
    run: Path, local: LocalEngine, given: list[int], finish: str, wanted: tuple[int, ...]
):
    """-1 stands for the end token."""
    end = local.renderer.markers.end
    made, _, _ = one(run, completion("", [end if token < 0 else token for token in given], finish))
    assert made.ids == tuple(end if token < 0 else token for token in wanted)
    assert (made.ended, made.prefill_tokens) == (Ending.END if -1 in wanted else Ending.LENGTH, 9)


def test_a_span_that_repeats_itself_ends_where_it_would_in_this_process(run: Path):
    made, _, _ = one(run, completion("", [9, *range(20, 28), *range(20, 28), *range(20, 28), *range(20, 30)], "length"))
    assert (made.ids, made.ended) == ((9, *range(20, 28), *range(20, 28), *range(20, 28)), Ending.REPETITION)


def test_the_tokenizers_own_end_of_text_is_no_part_of_a_span(tmp_path: Path):
    tokenizer = nano()
    tokenizer.eos_token = "<|pad|>"
    renderer = make_run(tmp_path, tokenizer=tokenizer)
    assert renderer.tokenizer.eos_token_id != renderer.markers.end
    made, _, _ = one(tmp_path, completion("", [7, 8, tokenizer.get_vocab()["<|pad|>"]], "stop"))
    assert made.ids == (7, 8, renderer.markers.end)


def test_a_text_without_token_ids_is_encoded_anew(run: Path):
    for text in ("I look.\nNext: Caller", "I look.\nNext: Caller<|end|>"):
        made, _, renderer = one(run, completion(text, None, "stop"))
        assert made.ids == (*renderer.encode("I look.\nNext: Caller"), renderer.markers.end)


def test_probabilities_are_asked_for_and_added_up(run: Path):
    answer = completion("", [7, 8], "length", logprobs={"token_logprobs": [-1.5, -0.25], "tokens": ["a", "b"]})
    made, body, _ = one(run, answer, sampling_of_request=Sampling(max_new_tokens=4, logprobs=True))
    assert (made.logprob, body["logprobs"]) == (-1.75, 1)
    made, body, _ = one(run, answer)
    assert "logprobs" not in body


def test_a_transcript_that_fills_the_context_is_not_sent(run: Path):
    made, body, _ = one(run, completion("", [7], "length"), asked(ids=(1,) * 4096))
    assert (made, body) == (Generation((), Ending.CONTEXT), {})
    made, body, _ = one(run, completion("", [7], "length"), asked(ids=(1,) * 4090))
    assert body["max_tokens"] == 4096 - 4090 - 1
    made, _, _ = one(run, failure(400, "maximum context length is 99 tokens"))
    assert made == Generation((), Ending.CONTEXT)


# ---- structured outputs


def test_a_caller_is_held_to_the_schema_of_a_call_if_the_file_says_so(run: Path):
    _, body, _ = one(run, completion("", [7], "stop"), structured_outputs="vllm")
    schema = body["structured_outputs"]["json"]
    for name, arguments, legal in (("put", {"key": "a"}, True), ("put", {"key": 1}, False), ("get", {}, False)):
        call = {"name": name, "arguments": arguments}
        assert jsonschema.Draft202012Validator(schema).is_valid(call) == legal
    for kind, constrain in (("vllm", False), ("off", True)):
        _, body, _ = one(run, completion("", [7], "stop"), structured_outputs=kind, constrain=constrain)
        assert "structured_outputs" not in body
    planner = one(run, completion("", [7], "stop"), asked("planner"), structured_outputs="vllm")[1]
    assert "structured_outputs" not in planner and not any(key.startswith("guided") for key in planner)


def test_every_role_is_held_to_its_own_grammar_if_the_file_says_so(run: Path):
    for voice in ("planner", "caller"):
        _, body, _ = one(run, completion("", [7], "stop"), asked(voice), structured_outputs="vllm-grammar")
        text = body["structured_outputs"]["grammar"]
        assert text == grammar(voice, Shelf.tools)
        assert not LLMatcher.validate_grammar(text)
    _, body, _ = one(run, completion("", [7], "stop"), asked("summarizer"), structured_outputs="vllm-grammar")
    assert "structured_outputs" not in body
    brought = replace(asked("summarizer"), grammar='start: "x"')
    _, body, _ = one(run, completion("", [7], "stop"), brought, structured_outputs="vllm-grammar")
    assert body["structured_outputs"] == {"grammar": 'start: "x"'}


def test_a_schema_with_references_leaves_its_arguments_free():
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "integer"}}}
    made = call_schema([Tool.of("f", "", schema), Tool.of("g", "", KEY)])
    assert [one["properties"]["arguments"] for one in made["anyOf"]] == [
        {"type": "object"}, {**KEY, "additionalProperties": False},
    ]  # fmt: skip
    json.dumps(made)


# ---- the run


def test_a_run_of_one_voice_has_an_agent_and_one_of_roles_has_roles(run: Path, tmp_path: Path):
    make_run(tmp_path, "single")
    endpoint = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}
    wrong: list[tuple[Path, tuple[str, ...]]] = [(run, ("agent",)), (tmp_path, ROLES)]
    for folder, voices in wrong:
        source = OpenAIRun.model_validate({"run": str(folder), **dict.fromkeys(voices, endpoint)})
        with pytest.raises(UserError, match="is a run of other voices"), open_openai(source):
            pass
    with open_openai(OpenAIRun.model_validate({"run": str(tmp_path), "agent": endpoint})) as engine:
        assert (engine.context, engine.renderer.voices) == (4096, "single")
    source = OpenAIRun.model_validate({"run": str(tmp_path / "none"), "agent": endpoint})
    with pytest.raises(RunDirectoryError), open_openai(source):
        pass
