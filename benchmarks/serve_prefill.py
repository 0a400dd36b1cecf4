"""How much of a conversation the server computes again with every turn, over recorded ToolWorld conversations.

    python benchmarks/serve_prefill.py [--model RUN] [--conversations 1000] [--json OUT]

The conversations are the oracle's, two instructions each. The engine is the in-process one with its caches, over the
model of a run (or a tiny random one); a grammar makes every voice write what is recorded. A client holds the
conversation over HTTP as clients do: it sends back what it was told, without the rationale, and the recorded replies
of the tools. Every turn is asked for whole, and once more as a stream.

A turn's **new tokens** are those of its prompt that the turn before neither read nor wrote: the observations, the next
question. What the planner has to compute of the prompt (``prompt_tokens - cached_tokens``) may exceed them by one
block (64 tokens: headers, and the turn's last token, which is chosen but never computed). Of the text of a stream, all
parts together have to be what the whole response says.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from alpha_umi.engines import Request, Sampling
from alpha_umi.engines.local import LocalEngine
from alpha_umi.run_directory import load_run, load_tokenizer, shipped_base
from alpha_umi.toolworld import make_conversations
from alpha_umi.trajectory import AssistantMessage, Message, Tool, Trajectory
from alpha_umi.transcript import ROLES, Renderer, Voice

BLOCK = 64
SPLIT, TASKS, SEED = "I1-Inst", 2, 5


def recorded(count: int) -> Iterable[Trajectory]:
    """The conversations, the same for whoever asks."""
    return make_conversations(SPLIT, count, SEED, tasks=TASKS)


def _key(tools: Sequence[Tool], messages: Sequence[Message]) -> tuple[object, ...]:
    return tuple(tool.name for tool in tools), *(one.content for one in messages if one.role in ("user", "tool"))


class RecordedEngine(LocalEngine):
    """Writes what is recorded, by the models' own forwards over the caches they have."""

    def learn(self, conversations: Iterable[Trajectory]) -> None:
        """Knows these conversations from now on."""
        self._texts: dict[tuple[object, ...], dict[Voice, str]] = {}
        for one in conversations:
            for number, message in enumerate(one.messages):
                if isinstance(message, AssistantMessage):
                    pieces = self.renderer.message(message)
                    texts: dict[Any, str] = {piece.kind: self.renderer.decode(piece.span) for piece in pieces}
                    self._texts[_key(one.tools, one.messages[:number])] = texts

    def begin(self, requests: Sequence[Request], sampling: Sampling) -> list[int]:
        """As any engine, with grammars of the recorded texts."""
        return super().begin([replace(one, grammar=self._grammar(one)) for one in requests], sampling)

    def _grammar(self, request: Request) -> str:
        assert request.conversation is not None
        text = self._texts[_key(request.conversation.tools, request.conversation.messages)][request.voice]
        return f"start: {json.dumps(text, ensure_ascii=False)}"


def open_recorded(model: Path | None) -> RecordedEngine:
    """Over a run's models, or over a random one."""
    if model is not None:
        run = load_run(model)
        return RecordedEngine(run.models, run.renderer)
    from transformers import LlamaConfig, LlamaForCausalLM

    renderer = Renderer(load_tokenizer(str(shipped_base())))
    size: Any = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(renderer.tokenizer), max_position_embeddings=4096, **size)
    return RecordedEngine(dict.fromkeys(ROLES, LlamaForCausalLM(config)), renderer)


def serve_recorded(model: Path | None, count: int, ready: Connection) -> None:
    """The server's process, until SIGTERM."""
    from alpha_umi.serving.app import create_app
    from alpha_umi.serving.server import bind, serve

    engine = open_recorded(model)
    engine.learn(recorded(count))
    with bind("127.0.0.1", 0) as bound:
        serve(create_app(engine, "umi"), bound, lambda: ready.send(bound.getsockname()[1]))


# ---- the client ---------------------------------------------------------------------------------------------------


@dataclass
class Figures:
    """What was counted."""

    turns: int = 0
    later: int = 0
    beyond: list[int] = field(default_factory=list)
    computed: int = 0
    prompts: int = 0
    streams_that_differ: int = 0
    not_as_recorded: int = 0

    def report(self) -> dict[str, Any]:
        """As JSON."""
        over = Counter(n > BLOCK for n in self.beyond)
        return {
            "turns": self.turns, "later_turns": self.later, "prompt_tokens": self.prompts,
            "computed_tokens": self.computed, "more_than_new_and_a_block": over[True],
            "most_beyond_new": max(self.beyond, default=0), "streams_that_differ": self.streams_that_differ,
            "turns_not_as_recorded": self.not_as_recorded,
        }  # fmt: skip


class Client:
    """Asks one turn after the other, on one connection."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=300)

    def ask(self, messages: Sequence[Any], tools: Sequence[Tool], stream: bool) -> Any:
        """The response, or the events of the stream."""
        functions = [{"type": "function", "function": json.loads(tool.schema)} for tool in tools]
        body = {"model": "umi", "messages": messages, "tools": functions, "stream": stream}
        self._connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        text = response.read().decode()
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {text[:300]}")
        if not stream:
            return json.loads(text)
        lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
        return [json.loads(line) for line in lines if line != "[DONE]"]


def told(events: Sequence[Any]) -> dict[str, str]:
    """What the parts of a stream make up, without the calls' ids."""
    out: dict[str, str] = {}
    for delta in (choice["delta"] for event in events for choice in event["choices"]):
        for name in ("reasoning_content", "content", "refusal"):
            out[name] = out.get(name, "") + (delta.get(name) or "")
        for call in delta.get("tool_calls", ()):
            for name, text in call["function"].items():
                key = f"{call['index']} {name}"
                out[key] = out.get(key, "") + text
    return {name: text for name, text in out.items() if text}


def whole(message: Any) -> dict[str, str]:
    """The same of a whole response."""
    out = {name: message.get(name) or "" for name in ("reasoning_content", "content", "refusal")}
    for number, call in enumerate(message.get("tool_calls", ())):
        out |= {f"{number} {name}": text for name, text in call["function"].items()}
    return {name: text for name, text in out.items() if text}


def converse(client: Client, one: Trajectory, figures: Figures) -> None:
    """Holds one conversation."""
    messages, calls, known = list[Any](), list[str](), 0
    for recorded_message in one.messages:
        if recorded_message.role == "tool":
            messages.append({"role": "tool", "tool_call_id": calls.pop(0), "content": recorded_message.content})
        elif not isinstance(recorded_message, AssistantMessage):
            messages.append({"role": recorded_message.role, "content": recorded_message.content})
        else:
            made = client.ask(messages, one.tools, stream=False)
            message, usage = made["choices"][0]["message"], made["usage"]
            figures.streams_that_differ += told(client.ask(messages, one.tools, stream=True)) != whole(message)
            figures.not_as_recorded += message["content"] != recorded_message.content
            computed = usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"]
            figures.turns, figures.prompts = figures.turns + 1, figures.prompts + usage["prompt_tokens"]
            figures.computed += computed
            if known:
                figures.later += 1
                figures.beyond.append(computed - (usage["prompt_tokens"] - known))
            known = usage["prompt_tokens"] + usage["completion_tokens"]
            calls = [call["id"] for call in message.get("tool_calls", ())]
            messages.append({name: value for name, value in message.items() if name != "reasoning_content"})


def main() -> None:
    """Runs the server and the conversations, and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a run; a tiny random model if not given")
    parser.add_argument("--conversations", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=serve_recorded, args=(given.model, given.conversations, theirs)
    )
    process.start()
    client, figures, begun = Client(ours.recv()), Figures(), time.monotonic()
    for number, one in enumerate(recorded(given.conversations), 1):
        converse(client, one, figures)
        if number % 50 == 0 or number == given.conversations:
            report = {"conversations": number, "seconds": round(time.monotonic() - begun), **figures.report()}
            print(json.dumps(report), flush=True)  # noqa: T201
            if given.json is not None:
                given.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    process.terminate()
    process.join(60)


if __name__ == "__main__":
    main()
