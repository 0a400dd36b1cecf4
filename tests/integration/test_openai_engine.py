"""Models behind chat APIs: what is sent, what is made of the replies, and what happens when a server fails."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from alpha_umi.agent import Episode, EpisodeOutcome, Limits, chosen_strategy, run_one
from alpha_umi.agent.limits import StopReason
from alpha_umi.cli import app
from alpha_umi.engines import Ending, Generation, Request, Sampling
from alpha_umi.engines.base import Conversation
from alpha_umi.engines.openai import open_openai
from alpha_umi.engines.openai_config import OpenAIRun
from alpha_umi.engines.openai_wire import FILTERED
from alpha_umi.errors import UserError
from alpha_umi.evaluation.static import static_predictions
from alpha_umi.trajectory import (
    AssistantMessage,
    Decision,
    SystemMessage,
    Tool,
    ToolCall,
    ToolMessage,
    Trajectory,
    UserMessage,
    write_jsonl,
)
from alpha_umi.transcript import ROLES, Voice, parse_single
from tests.agent.conftest import KEY, ReversibleShelf, Shelf
from tests.integration.provider import Answer, Body, Provider, chat, failure, providing

ASKED = UserMessage("What is the value of a?")
LOOK_UP = ("look_up", '{"key": "a"}')
SAMPLING = Sampling(max_new_tokens=64)


def run_of(base_url: str, voices: tuple[str, ...] = ("agent",), **options: Any) -> OpenAIRun:
    endpoint = {"base_url": base_url, "model": "m", "timeout": 20, **options}
    return OpenAIRun.model_validate(dict.fromkeys(voices, endpoint))


def request(voice: Voice = "assistant", session: int = 0, **conversation: Any) -> Request:
    so_far = {"tools": Shelf.tools, "messages": (ASKED,), **conversation}
    return Request(session, voice, (), None, Conversation(**so_far))


def one(answer: Body, wanted: Request | None = None, **options: Any) -> tuple[Generation, str, Body]:
    """What the engine makes of one answer: the span, its text, and what was sent."""
    with providing(lambda body: answer) as provider, open_openai(run_of(provider.base_url, **options)) as engine:
        (made,) = engine.generate([wanted or request()], SAMPLING)
        return made, engine.renderer.decode(made.ids), provider.bodies[0]


def play(answer: Answer, episode: Episode | None = None, **options: Any) -> tuple[EpisodeOutcome, Provider]:
    """An episode on the shelf, answered by the provider."""
    with providing(answer) as provider, open_openai(run_of(provider.base_url, **options)) as engine:
        return run_one(engine, episode or Episode(0, Shelf(), [ASKED]), Limits(steps=3)), provider


def by_turn(*answers: Body) -> Answer:
    """Answers by how many turns the assistant has had."""
    return lambda body: answers[sum(message["role"] == "assistant" for message in body["messages"])]


# ---- an agent at work


def test_an_agent_calls_reads_and_answers():
    outcome, provider = play(by_turn(chat("I look it up.", LOOK_UP), chat("It is the value of a.")))
    assert (outcome.stop_reason, outcome.answer) == (StopReason.ANSWERED, "It is the value of a.")
    first, second = provider.bodies
    assert [tool["function"]["name"] for tool in first["tools"]] == ["look_up", "put"]
    assert second["messages"] == [
        {"role": "user", "content": ASKED.content},
        {
            "role": "assistant", "content": "I look it up.",
            "tool_calls": [
                {"id": "call_0", "type": "function", "function": {"name": "look_up", "arguments": '{"key": "a"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "call_0", "content": "the value of a"},
    ]  # fmt: skip
    assert (outcome.prefill_tokens, provider.headers[0]["authorization"]) == (40, "Bearer unused")


def test_several_calls_of_a_turn_are_made_in_their_order():
    calls = [("look_up", json.dumps({"key": key})) for key in "cab"]
    outcome, _ = play(by_turn(chat(None, *calls), chat("Done.")))
    assert [call.call.parsed() for call in outcome.calls] == [{"key": key} for key in "cab"]
    observations = [m.content for m in outcome.trajectory.messages if isinstance(m, ToolMessage)]
    assert observations == [f"the value of {key}" for key in "cab"]


def test_malformed_arguments_become_an_observation_and_are_sent_on_as_a_legal_object():
    outcome, provider = play(by_turn(chat(None, ("look_up", '{"key": "a')), chat(None, LOOK_UP), chat("Done.")))
    assert [call.error for call in outcome.calls] == ["malformed_call", None]
    assert outcome.calls[0].call.name == "look_up"
    sent = provider.bodies[1]["messages"][1]["tool_calls"][0]["function"]
    assert (sent["name"], list(json.loads(sent["arguments"]))) == ("look_up", ["unreadable"])
    assert outcome.answer == "Done."


def test_giving_up_is_a_refusal_or_a_content_that_says_so():
    for answer in (chat(refusal="I can't."), chat("Give up: I can't.")):
        outcome, _ = play(by_turn(answer))
        assert (outcome.stop_reason, outcome.refusal) == (StopReason.GAVE_UP, "I can't.")


def test_a_reply_of_nothing_decides_nothing_and_the_run_goes_on():
    outcome, _ = play(by_turn(chat(None), chat("Done.")))
    assert (outcome.undecided, outcome.answer) == (1, "Done.")


def test_a_search_shows_the_agent_what_was_tried():
    with (
        providing(lambda body: chat("It is 3.") if hinted(body) else chat(refusal="No.")) as provider,
        open_openai(run_of(provider.base_url)) as engine,
    ):
        chosen = chosen_strategy("dfsdt:back=1", prompt=True)
        outcome = run_one(engine, Episode(0, ReversibleShelf(), [ASKED]), chosen.limits, strategy=chosen.strategy)
    assert outcome.stop_reason is StopReason.ANSWERED and outcome.branches == 1


def hinted(body: Body) -> bool:
    return sum(message["role"] == "user" for message in body["messages"]) > 1


# ---- what a reply says


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (chat("Think.", LOOK_UP), 'Think.\nCall: {"name": "look_up", "arguments": {"key": "a"}}'),
        (chat("So.", LOOK_UP, reasoning="Hm."), 'Hm.\n\nSo.\nCall: {"name": "look_up", "arguments": {"key": "a"}}'),
        (chat(None, LOOK_UP, reasoning_content="Hm.", reasoning="Hm."), f'Hm.\nCall: {{"name": "{LOOK_UP[0]}", '
         '"arguments": {"key": "a"}}'),
        (chat("It is 3.", reasoning_content="Hm."), "Hm.\nAnswer: It is 3."),
        (chat("It is 3.", reasoning="Answer: 4?"), " Answer: 4?\nAnswer: It is 3."),
        (chat([{"type": "text", "text": "It is "}, {"type": "text", "text": "3."}]), "Answer: It is 3."),
        (chat(None, ("look_up", {"key": "a"})), 'Call: {"name": "look_up", "arguments": {"key": "a"}}'),
        (chat(None, ("look_up", "")), 'Call: {"name": "look_up", "arguments": {}}'),
        (chat(None, function_call={"name": "put", "arguments": "{}"}), 'Call: {"name": "put", "arguments": {}}'),
        (chat("", finish="content_filter"), "Give up: The provider's content filter withheld the answer."),
    ],
    ids=range(10),
)  # fmt: skip
def test_a_reply_is_worded_as_a_turn_of_our_transcript(answer: Body, text: str):
    made, said, _ = one(answer)
    assert (said, made.ended) == (text, Ending.END)
    assert (made.prefill_tokens, made.cached_tokens) == (20, 30)


def test_a_reply_that_was_cut_is_a_span_that_was_cut():
    made, said, _ = one(chat("It is", finish="length"))
    assert (said, made.ended, made.finished) == ("Answer: It is", Ending.LENGTH, False)


def test_names_that_servers_refuse_are_replaced_and_put_back():
    tools = (Tool.of("a b", "", KEY), Tool.of("a_b", "", KEY))
    messages = (ASKED, AssistantMessage(None, (ToolCall("x", "a b", "{}"),)), ToolMessage("x", "1"))
    _, said, body = one(chat(None, ("a_b_2", "{}")), request(tools=tools, messages=messages))
    assert [tool["function"]["name"] for tool in body["tools"]] == ["a_b_2", "a_b"]
    assert body["messages"][1]["tool_calls"][0]["function"]["name"] == "a_b_2"
    assert said == 'Call: {"name": "a b", "arguments": {}}'


@pytest.mark.parametrize(
    ("rationale", "sent"),
    [("content", {"content": "So."}), ("reasoning_content", {"reasoning_content": "So."}), ("drop", {})],
)
def test_a_rationale_goes_where_the_file_says(rationale: str, sent: Body):
    turn = AssistantMessage("So.", (ToolCall("x", *LOOK_UP),))
    messages = (ASKED, turn, ToolMessage("x", "1"), AssistantMessage("Hm.", content="Done."), ASKED)
    _, _, body = one(chat("x"), request(messages=messages), rationale=rationale)
    told = {key: value for key, value in body["messages"][1].items() if key not in ("role", "tool_calls")}
    assert told == {"content": None, **sent}
    assert ("reasoning_content" in body["messages"][3]) == (rationale == "reasoning_content")


def test_shots_and_a_system_text_come_before_the_conversation(tmp_path: Path):
    shot = Trajectory(
        Shelf.tools, (SystemMessage("Not this."), UserMessage("b?"), AssistantMessage(None, (ToolCall("z", *LOOK_UP),)),
                      ToolMessage("z", "2"), AssistantMessage(content="2.")),
    )  # fmt: skip
    write_jsonl(tmp_path / "shots.jsonl", [shot, shot])
    messages = (SystemMessage("Mine."), ASKED)
    shots = {"file": str(tmp_path / "shots.jsonl"), "count": 1}
    _, _, body = one(chat("x"), request(messages=messages), shots=shots, system="Be brief.", extra_body={"top_k": 5})
    assert [(m["role"], m.get("content")) for m in body["messages"]] == [
        ("system", "Be brief.\n\nMine."), ("user", "b?"), ("assistant", None), ("tool", "2"), ("assistant", "2."),
        ("user", ASKED.content),
    ]  # fmt: skip
    assert body["top_k"] == 5
    with pytest.raises(UserError, match="has 2 trajectories, 3 are wanted"):
        one(chat("x"), shots={**shots, "count": 3})


def test_lengths_and_sampling_are_sent_as_the_file_says():
    _, _, body = one(chat("x"))
    assert (body["max_tokens"], body["temperature"], body.get("seed")) == (64, 0, None)
    _, _, body = one(chat("x"), sampling=False, max_tokens=999, max_tokens_field="max_completion_tokens")
    assert body["max_completion_tokens"] == 999
    assert not {"temperature", "max_tokens"} & body.keys()
    with providing(lambda body: chat("x")) as provider, open_openai(run_of(provider.base_url)) as engine:
        for seed, session in ((1, 0), (1, 0), (2, 0), (1, 1)):
            engine.generate([request(session=session)], Sampling(temperature=0.5, top_p=0.9, seed=seed))
    seeds = [body["seed"] for body in provider.bodies]
    assert seeds[0] == seeds[1] and len(set(seeds)) == 3
    assert (provider.bodies[0]["temperature"], provider.bodies[0]["top_p"]) == (0.5, 0.9)


# ---- many at a time


def test_requests_run_side_by_side_up_to_the_limit_and_keep_their_order():
    together = threading.Barrier(3, timeout=20)

    def answer(body: Body) -> Body:
        together.wait()
        return chat(body["messages"][0]["content"])

    wanted = [request(session=n, messages=(UserMessage(f"say {n}"),)) for n in range(6)]
    with providing(answer) as provider, open_openai(run_of(provider.base_url, concurrency=3)) as engine:
        said = [engine.renderer.decode(made.ids) for made in engine.generate(wanted, SAMPLING)]
        assert (engine.usage.requests, engine.usage.completion_tokens) == (6, 42)
    assert said == [f"Answer: say {n}" for n in range(6)]
    assert provider.most == 3


def test_a_span_that_is_there_does_not_wait_for_a_slow_one():
    late = threading.Event()

    def answer(body: Body) -> Body:
        if body["messages"][0]["content"] == "slow":
            late.wait(20)
        return chat("x")

    wanted = [request(session=n, messages=(UserMessage(text),)) for n, text in enumerate(("slow", "fast", "slow"))]
    with providing(answer) as provider, open_openai(run_of(provider.base_url)) as engine:
        slow, fast, dropped = engine.begin(wanted, SAMPLING)
        assert list(engine.advance()) == [fast]
        assert engine.advance(lambda: True) == {}
        engine.forget([2])
        late.set()
        assert list(engine.advance()) == [slow]
        assert engine.advance() == {} and dropped == 2


# ---- servers that fail


def test_where_one_request_fails_the_others_are_given_up():
    late, finished = threading.Event(), list[str]()

    def answer(body: Body) -> Any:
        text = body["messages"][0]["content"]
        if text == "bad":
            return failure(400, "no")
        late.wait(20)
        finished.append(text)
        return chat("x")

    wanted = [request(session=n, messages=(UserMessage(text),)) for n, text in enumerate(("bad", "slow", "slow"))]
    with providing(answer) as provider:
        with pytest.raises(UserError, match="status 400, no"), open_openai(run_of(provider.base_url)) as engine:
            engine.generate(wanted, SAMPLING)
        assert not finished
        late.set()


def failing_once(refusal: Callable[[], Any]) -> Answer:
    failed = threading.Event()

    def answer(body: Body) -> Any:
        if failed.is_set():
            return chat("It is 3.")
        failed.set()
        return refusal()

    return answer


@pytest.mark.parametrize(
    "refusal",
    [
        lambda: failure(429, "slow down", "rate_limit_exceeded", Retry_After="0.01"),
        lambda: failure(500, "oops", retry_after_ms="1"),
        lambda: failure(503, "loading", retry_after_ms="1"),
    ],
    ids=["429", "500", "503"],
)
def test_what_passes_is_tried_again(refusal: Callable[[], Any]):
    outcome, provider = play(failing_once(refusal))
    assert (outcome.answer, len(provider.bodies)) == ("It is 3.", 2)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda: failure(401, "Incorrect API key: s3cret"), r"\(m\): status 401, Incorrect API key: \*\*\*; check"),
        (lambda: failure(404, "no such model"), "status 404, no such model; check base_url"),
        (lambda: failure(429, "quota", Retry_After="0.001"), "status 429, quota; lower its concurrency"),
        (lambda: failure(400, "bad tool\nschema"), "status 400, bad tool schema"),
        (lambda: {"error": {"message": "upstream is down"}}, "has no choices: upstream is down; check base_url"),
        (lambda: {"choices": []}, "the answer has no choices; check base_url"),
    ],
    ids=["key", "model", "quota", "request", "error with 200", "nothing"],
)  # fmt: skip
def test_what_stays_is_said_in_a_sentence_without_the_key(
    answer: Callable[[], Any], said: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MY_KEY", "s3cret")
    with pytest.raises(UserError, match=said) as caught:
        play(lambda body: answer(), api_key_env="MY_KEY", max_retries=1)
    assert "s3cret" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_server_that_does_not_answer_in_time_or_at_all_is_named():
    late = threading.Event()

    def never(body: Body) -> Body:
        late.wait(20)
        return chat("x")

    with providing(never) as provider:
        run = run_of(provider.base_url, timeout=0.1, max_retries=0)
        with pytest.raises(UserError, match=r"no answer within 0\.1 s after 1 attempt;"), open_openai(run) as engine:
            engine.generate([request()], SAMPLING)
        late.set()
    with pytest.raises(UserError, match="can't be reached after 1 attempt;"), open_openai(run) as engine:
        engine.generate([request()], SAMPLING)


def test_a_key_is_sent_to_the_endpoint_that_names_it_and_to_no_other(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "not for you")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "nor this")
    monkeypatch.setenv("MY_KEY", "s3cret")
    for variable, sent in ((None, "Bearer unused"), ("MY_KEY", "Bearer s3cret")):
        _, provider = play(lambda body: chat("x"), api_key_env=variable)
        assert [headers["authorization"] for headers in provider.headers] == [sent]
        assert not [text for text in provider.headers[0].values() if "not for you" in text or "nor this" in text]


@pytest.mark.parametrize(
    "refusal",
    [
        failure(400, "too long", "context_length_exceeded"),
        failure(400, "This model's maximum context length is 512 tokens. However, you requested 600."),
        failure(400, "the request exceeds the available context size, try increasing it"),
    ],
    ids=["OpenAI", "vLLM", "llama.cpp"],
)
def test_a_conversation_that_is_too_long_ends_the_run_by_that_name(refusal: Any):
    with providing(lambda body: refusal) as provider, open_openai(run_of(provider.base_url)) as engine:
        assert engine.generate([request()], SAMPLING) == [Generation((), Ending.CONTEXT)]
        assert run_one(engine, Episode(0, Shelf(), [ASKED])).stop_reason is StopReason.CONTEXT_LIMIT
        gold = Trajectory(Shelf.tools, (ASKED, AssistantMessage(content="3")))
        ((_, _, prediction),) = static_predictions(engine, [gold])
    assert (prediction.decision, prediction.calls) == (Decision.CALL, ())


def test_a_prompt_that_is_filtered_ends_in_giving_up():
    outcome, _ = play(lambda body: failure(400, "filtered", "content_filter"))
    assert outcome.stop_reason is StopReason.GAVE_UP


# ---- chat models in the parts of the roles


def test_a_chat_model_plays_every_role():
    seen: list[tuple[str, list[Body]]] = []

    def answer(body: Body) -> Body:
        role = next(role for role in ROLES if f"the {role} of" in body["messages"][0]["content"])
        seen.append((role, body["messages"][1:]))
        if role == "caller":
            return chat('```json\n[{"name": "look_up", "arguments": {"key": "a"}}]\n```')
        if role == "summarizer":
            return chat(" It is that. ")
        return chat(
            "I know.\n\n**Next: summarizer**\n" if "[tool]" in str(body) else "I must look.\nNext: Caller.\nBye"
        )

    with providing(answer) as provider, open_openai(run_of(provider.base_url, ROLES)) as engine:
        outcome = run_one(engine, Episode(0, Shelf(), [ASKED]), Limits(steps=3))
    assert (outcome.stop_reason, outcome.answer, outcome.undecided) == (StopReason.ANSWERED, "It is that.", 0)
    assert [role for role, _ in seen] == ["planner", "caller", "planner", "summarizer"]
    assert seen[1][1] == [
        {"role": "user", "content": f"[user] {ASKED.content}\n\n[planner] I must look.\nNext: Caller"}
    ]
    assert seen[2][1] == [
        {"role": "user", "content": f"[user] {ASKED.content}"},
        {"role": "assistant", "content": "I must look.\nNext: Caller"},
        {"role": "user", "content": '[caller] {"name": "look_up", "arguments": {"key": "a"}}\n\n[tool] the value of a'},
    ]


@pytest.mark.parametrize("answer", [chat(None, finish="content_filter"), failure(400, "no", "content_filter")])
def test_a_filtered_role_gives_up_or_calls_nothing(answer: Any):
    wanted = [request(role, number) for number, role in enumerate(ROLES)]
    with providing(lambda body: answer) as provider, open_openai(run_of(provider.base_url, ROLES)) as engine:
        said = [engine.renderer.decode(made.ids) for made in engine.generate(wanted, SAMPLING)]
    assert said == [f"{FILTERED}\nNext: Give up", FILTERED, FILTERED]


# ---- the command line


GOLD = Trajectory(
    Shelf.tools,
    (ASKED, AssistantMessage("So.", (ToolCall("call_0", *LOOK_UP),)), ToolMessage("call_0", "3"),
     AssistantMessage("Known.", content="It is 3.")),
    "gold",
)  # fmt: skip


def engine_file(folder: Path, base_url: str) -> str:
    path = folder / "model.yaml"
    path.write_text(f"agent: {{base_url: {base_url}, model: m, timeout: 20}}\n")
    return str(path)


@pytest.mark.parametrize("right", [True, False])
def test_a_model_behind_an_endpoint_is_scored_on_a_file(tmp_path: Path, right: bool):
    write_jsonl(tmp_path / "test.jsonl", [GOLD])
    key = "a" if right else "b"
    answers = by_turn(chat("I look.", ("look_up", json.dumps({"key": key}))), chat("It is 3."))
    with providing(answers) as provider:
        arguments = ["eval", "static", "--engine", engine_file(tmp_path, provider.base_url)]
        arguments += ["--data", str(tmp_path / "test.jsonl"), "--json", str(tmp_path / "out.json")]
        result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    paper = json.loads((tmp_path / "out.json").read_text())["paper"]
    figures = [paper[name] for name in ("plan_acc", "act_em", "hallu", "rouge_l", "arg_f1")]
    assert figures == pytest.approx([1, 1, 0, 1, 1 if right else 0.5])


def test_a_model_behind_an_endpoint_runs_on_tools_and_on_a_world(tmp_path: Path):
    (tmp_path / "mine.py").write_text('def twice(n: int) -> int:\n    """Doubles."""\n    return 2 * n\n')
    with providing(by_turn(chat(None, ("twice", '{"n": 4}')), chat("8"))) as provider:
        arguments = ["run", "Twice 4?", "--engine", engine_file(tmp_path, provider.base_url), "--json"]
        result = CliRunner().invoke(app, [*arguments, "--tools", str(tmp_path / "mine.py")])
    assert result.exit_code == 0, result.output
    outcome = json.loads(result.output)
    assert (outcome["answer"], outcome["calls"][0]["arguments"]) == ("8", {"n": 4})

    with providing(lambda body: chat("No idea.")) as provider:
        arguments = ["eval", "live", "--engine", engine_file(tmp_path, provider.base_url), "--world", "toolworld"]
        arguments += ["--split", "I1-Inst", "--instructions", "2", "--json", str(tmp_path / "live.json")]
        result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "live.json").read_text())["splits"]["I1-Inst"]["stop_reasons"] == {"answered": 2}


@pytest.mark.parametrize("more", [["--model", "runs/x"], ["--renderer", "paper"], ["--planner", "x"]])
def test_an_engine_file_stands_alone(tmp_path: Path, more: list[str]):
    arguments = ["eval", "static", "--data", "toolworld", "--engine", engine_file(tmp_path, "http://127.0.0.1:1/v1")]
    result = CliRunner().invoke(app, [*arguments, *more])
    assert isinstance(result.exception, UserError) and "leave out --model" in str(result.exception)
    result = CliRunner().invoke(app, [*arguments, "--variant", "lora"])
    assert isinstance(result.exception, UserError) and "--variant lora" in str(result.exception)


def test_what_is_written_reads_back():
    _, said, _ = one(chat("Think\nCall: no\nNow.", LOOK_UP, ("put", '{"key": "b"}')))
    turn = parse_single(said)
    assert [(call.name, call.arguments) for call in turn.tool_calls] == [LOOK_UP, ("put", '{"key": "b"}')]
    assert turn.reasoning_content == "Think\n Call: no\nNow."
