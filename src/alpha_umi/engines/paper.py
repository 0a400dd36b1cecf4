r"""The paper's released checkpoints: three models, each prompted with a text of its own, as its code does.

A request's conversation is worded anew for each role (`alpha_umi.data.paper_prompts`), and what a role writes is read
back into the words of our transcript, so that the agent and the evaluation work with it as with any engine. What the
reference inference does is kept: greedy or sampled generation of at most 512 new tokens up to ``</s>``, a planner's
text cut right after its ``Next: ...`` (giving up goes before a conclusion, that before a call), ``Next: caller.`` where
it has none, ``none`` for a planner's text that stays empty. Static inference cuts prompts from the left to 3,750
tokens, heads the planner's turn ``planner`` and keeps the spaces that the planner wrote. Live, prompt and span fit into
4,096 tokens, the turn is headed ``assistant``, and an added ``Next:`` stands after a space.
The transcript's tokens are book-keeping only; nothing is cached between requests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import cast

from alpha_umi.data import alpha_umi
from alpha_umi.data.format import Wording
from alpha_umi.data.paper_prompts import fill, history_item
from alpha_umi.data.paper_rows import one_call_a_step
from alpha_umi.engines.base import Conversation, Generation, Request, Sampling
from alpha_umi.engines.checkpoint import AsWritten, Checkpoint, Continuation
from alpha_umi.engines.load import Speaker
from alpha_umi.errors import UserError
from alpha_umi.trajectory import Decision, Trajectory
from alpha_umi.transcript import Renderer, Role, caller_text, parse_planner

_CONTEXT = 1 << 30  # of the transcript, which no model reads here
_STATIC_INPUT = 3750
_LIVE_INPUT = 4096 - 512 - 8
_RETRIES = 5
_NOTHING = ("", ".", ",")
_NEXT = tuple(re.compile(rf"Next:[ \t]*({word})\b\.?", re.IGNORECASE) for word in ("give up", "conclusion", "caller"))


class PaperEngine(AsWritten):
    """Speaks with the paper's checkpoints; an `alpha_umi.engines.base.Engine`.

    Args:
        models: The checkpoint of each role; on one device, in any precision.
        renderer: Keeps the books: any tokenizer that can encode every text.
        planner_speaker: How the planner's turn of this step is headed in the caller's and summarizer's history:
            ``assistant`` as in training and live inference, ``planner`` as in the reference's static inference, whose
            other habits it brings too.
        wording: Of the prompts.
        max_input: Tokens a prompt is cut to, from the left; None is as the reference inference does it.
        max_new_tokens: Longest span, whatever a request says.
    """

    context = _CONTEXT

    def __init__(
        self,
        models: Mapping[Role, Checkpoint],
        renderer: Renderer,
        planner_speaker: Speaker = "assistant",
        wording: Wording = "toolbench",
        max_input: int | None = None,
        max_new_tokens: int = 512,
    ) -> None:
        super().__init__()
        self.models = dict(models)
        self.renderer = renderer
        self.planner_speaker: Speaker = planner_speaker
        self.wording: Wording = wording
        self.max_input = max_input or (_STATIC_INPUT if planner_speaker == "planner" else _LIVE_INPUT)
        self.max_new_tokens = max_new_tokens

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Generation]:
        """Generates one span a request; those of one role run together."""
        made: dict[int, Generation] = {}
        for role in dict.fromkeys(request.voice for request in requests):
            if role not in self.models:
                raise UserError(
                    f"the paper's checkpoints are a planner, a caller and a summarizer; none speaks as {role}"
                )
            mine = [number for number, request in enumerate(requests) if request.voice == role]
            spans = self._spans(cast("Role", role), [requests[number] for number in mine], sampling)
            made |= dict(zip(mine, spans, strict=True))
        return [made[number] for number in range(len(requests))]

    def prompt(self, request: Request) -> str:
        """The text that the request's role is prompted with."""
        assert request.conversation is not None, "the paper's prompts are made of messages, not of tokens"
        return self._prompt(cast("Role", request.voice), request.session, request.conversation)

    def _prompt(self, role: Role, session: int, so_far: Conversation) -> str:
        trajectory = one_call_a_step(Trajectory(tuple(so_far.tools), tuple(so_far.messages)))
        record = alpha_umi.as_record(trajectory)
        written = self.written(session)
        turns: list[tuple[str, str]] = []
        for turn in record["conversations"]:
            text: str = turn["value"]
            turns.append((turn["from"], written.get(text, text)))
        thought = ""
        if so_far.planner_text is not None:
            thought = paper_planner(so_far.planner_text)
            thought = written.get(thought, thought)
            turns.append((self.planner_speaker, thought))
        history = "".join(history_item(speaker, text) for speaker, text in turns)
        return fill(role, record["tools"], history, thought, self.wording)

    def _spans(self, role: Role, requests: Sequence[Request], sampling: Sampling) -> list[Generation]:
        prompts = [self.prompt(request) for request in requests]
        texts = self._continue(role, prompts, sampling, 0)
        for attempt in range(1, _RETRIES + 1):
            empty = [n for n, made in enumerate(texts) if role == "planner" and made.text.strip() in _NOTHING]
            if not empty or sampling.temperature == 0:
                break
            again = self._continue(role, [prompts[n] for n in empty], sampling, attempt)
            for number, made in zip(empty, again, strict=True):
                texts[number] = made
        return [self._generation(role, *one) for one in zip(requests, texts, strict=True)]

    def _continue(self, role: Role, prompts: Sequence[str], sampling: Sampling, attempt: int) -> list[Continuation]:
        return self.models[role].continuations(prompts, sampling, self.max_input, self.max_new_tokens, attempt)

    def _generation(self, role: Role, request: Request, made: Continuation) -> Generation:
        text = made.text.strip().removeprefix(": ")
        if role == "planner":
            text, written = our_planner(made.text, static=self.planner_speaker == "planner")
            self.keep(request.session, paper_planner(text), written)
        elif role == "caller":
            text = caller_text([alpha_umi.read_call(text, "call_0")[0]])
        return Generation((*self.renderer.encode(text), self.renderer.markers.end), made.ended, made.read)


def paper_planner(text: str) -> str:
    """A planner span of our transcript as the paper's planner writes it."""
    rationale, decision = parse_planner(text)
    return rationale + (alpha_umi.MARKERS[decision] if decision is not None else "")


def our_planner(text: str, static: bool = False) -> tuple[str, str]:
    """A planner's text as a span of our transcript, and as it goes into the history: cut after its decision.

    ``static`` is the history of the reference's static inference, which keeps the spaces that were written and puts
    none of its own before an added ``Next: caller.``
    """
    text = (text if static else text.strip()).removeprefix(": ")
    text = "none" if text.strip() in _NOTHING else text
    found = next(filter(None, (marker.search(text) for marker in _NEXT)), None)
    if found is None:
        marker = alpha_umi.MARKERS[Decision.CALL]
        return f"{text.strip()}\nNext: {Decision.CALL.value}", text + (marker.lstrip() if static else marker)
    decision = alpha_umi.DECISIONS[found[1].lower()]
    return f"{text[: found.start()].strip()}\nNext: {decision.value}", text[: found.end()]
