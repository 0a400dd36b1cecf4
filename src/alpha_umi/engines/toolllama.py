r"""A ToolLLaMA-style model: one LLM that writes ``Thought``, ``Action`` and ``Action Input``, and ends in `Finish`.

A request's conversation is worded as the model's training data has it (`alpha_umi.data.toolllama`): turns headed
``System: ``, ``User: ``, ``Assistant: `` and ``Function: ``, each ended by a line break, but the assistant's by
``</s>``; then ``Assistant:`` and a line break, after which the model writes. What it writes is read back into the words
of the single voice, so that the agent and the evaluation work with it as with any engine: `Finish` is an answer or
giving up, anything else a call; a text without an action is a call that can't be read. In later prompts a turn stands
as the model wrote it.

As in ToolBench's inference: at most 512 new tokens up to ``</s>``, and prompts cut from the left to what a window of
8,192 tokens (of a model with fewer positions: as many) leaves beside them, less 8. Not as there:

* ToolBench's code shows the model only the thoughts of its earlier turns, without their calls, each ended by a line
  break.
* It stretches the positions of its models to 8,192 when it loads them. Here ``config.json`` has to say so, with
  ``max_position_embeddings`` 8192 and ``rope_parameters``
  ``{"rope_type": "linear", "factor": F, "rope_theta": 10000.0}``, F being 4 for a model made of LLaMA (2,048 positions)
  and 2 for one made of LLaMA-2 (4,096).
* The system turn's list of collections has their functions' descriptions: the conversation doesn't carry their own.

The transcript's tokens are book-keeping only; nothing is cached between requests.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from alpha_umi.data import toolllama
from alpha_umi.data.function_chains import FINISH, finish
from alpha_umi.data.paper_prompts import END
from alpha_umi.data.paper_rows import one_call_a_step
from alpha_umi.engines.base import Generation, Request, Sampling
from alpha_umi.engines.checkpoint import AsWritten, Checkpoint, Continuation
from alpha_umi.trajectory import AssistantMessage, Message, SystemMessage, Tool, ToolCall, Trajectory, UserMessage
from alpha_umi.transcript import Renderer, parse_single, single_text, unmarked

_CONTEXT = 1 << 30  # of the transcript, which no model reads here
_WINDOW = 8192
_SPARE = 8
_OPENING = "Assistant:\n"
_ACTION = re.compile(r"^Action:[ \t]*([^\n]*)\nAction Input:", re.MULTILINE)


class ToolLlamaEngine(AsWritten):
    """Speaks with one ToolLLaMA-style checkpoint; an `alpha_umi.engines.base.Engine` with the one voice ``assistant``.

    Args:
        checkpoint: The model, in any precision.
        renderer: Keeps the books: single-voiced, with any tokenizer that can encode every text.
        max_new_tokens: Longest span, whatever a request says.
    """

    context = _CONTEXT

    def __init__(self, checkpoint: Checkpoint, renderer: Renderer, max_new_tokens: int = 512) -> None:
        assert renderer.voices == "single", "ToolLLaMA has one voice"
        super().__init__()
        self.checkpoint = checkpoint
        self.renderer = renderer
        self.max_new_tokens = max_new_tokens
        window = min(_WINDOW, getattr(checkpoint.model.config, "max_position_embeddings", _WINDOW))
        self.max_input = max(window - max_new_tokens - _SPARE, 1)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Generation]:
        """Generates one span a request."""
        prompts = [self.prompt(request) for request in requests]
        made = self.checkpoint.continuations(prompts, sampling, self.max_input, self.max_new_tokens)
        return [self._generation(*one) for one in zip(requests, made, strict=True)]

    def prompt(self, request: Request) -> str:
        """The text that the model is prompted with."""
        assert request.conversation is not None, "ToolLLaMA's prompts are made of messages, not of tokens"
        written = self.written(request.session)
        turns = _turns(request.conversation.tools, request.conversation.messages)
        return "".join(_item(speaker, text, written) for speaker, text in turns) + _OPENING

    def _generation(self, request: Request, made: Continuation) -> Generation:
        text = single_voice(made.text)
        _, _, *said = _turns((), (UserMessage(""), parse_single(text)))
        if len(said) == 1:
            self.keep(request.session, said[0][1], f"\n{made.text.strip()}")
        return Generation((*self.renderer.encode(text), self.renderer.markers.end), made.ended, made.read)


def single_voice(text: str) -> str:
    """What the model wrote, as a span of the single voice: the thought, then a call, an answer or giving up.

    The first action counts and everything after its ``Action Input:`` is its input, as in ToolBench's code.
    """
    found = _ACTION.search(text)
    if found is None:
        return f"Call: {text.strip()}"
    before = text[: found.start()]
    thought = (before.partition("Thought:")[2] or before).strip()
    rationale = unmarked(thought) or None
    name, arguments = found[1].strip(), text[found.end() :].strip()
    if name != FINISH:
        return single_text(AssistantMessage(rationale, (ToolCall("call_0", name, arguments),)))
    gave_up, words = finish(arguments, rationale)
    if gave_up:
        return single_text(AssistantMessage(rationale, refusal=words))
    return single_text(AssistantMessage(rationale, content=words))


def _item(speaker: str, text: str, written: Mapping[str, str]) -> str:
    if speaker == "assistant":
        return f"Assistant: {written.get(text, text)}{END}"
    return f"{speaker.capitalize()}: {text}\n"


def _turns(tools: Sequence[Tool], messages: Iterable[Message]) -> list[tuple[str, str]]:
    """Who says what in ToolLLaMA's words, the system first."""
    trajectory = one_call_a_step(Trajectory(tuple(tools), tuple(_sayable(messages))))
    return [(turn["from"], turn["value"]) for turn in toolllama.write(trajectory)["conversations"]]


def _sayable(messages: Iterable[Message]) -> Iterator[Message]:
    """The messages that the format has: a later system message is a user's, a turn that says nothing is left out."""
    for number, message in enumerate(messages):
        if isinstance(message, SystemMessage) and number > 0:
            yield UserMessage(message.content)
        elif not isinstance(message, AssistantMessage) or message != AssistantMessage(extra=message.extra):
            yield message
