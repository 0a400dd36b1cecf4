"""The static protocol: at every decided step of a gold trajectory, what would the system do?

The history is the gold history. The planner generates; if it says Caller, or nothing like a decision, the caller
continues from the *generated* rationale; if it says Summarizer, the summarizer does. One voice (``single``) does all of
it at once. Generation is greedy.

A trajectory's gold text is computed once a model; each of its steps begins as a fork of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from alpha_umi.agent.limits import MAX_NEW_TOKENS
from alpha_umi.engines.base import Conversation, Engine, Generation, Request, Sampling
from alpha_umi.evaluation.metrics import StepPrediction, StepReference
from alpha_umi.evaluation.strict import declared_parameters
from alpha_umi.trajectory import AssistantMessage, Decision, Trajectory
from alpha_umi.transcript import Transcript, Voice, parse_calls, parse_planner, parse_single

Scored = tuple[str, StepReference, StepPrediction]
_NOTHING = StepPrediction(Decision.CALL)


class StaticPredictions(list[Scored]):
    """(trajectory id, reference, prediction) of every scored step, in the order of the data.

    Attributes:
        too_long: Steps whose history leaves no room in the context; they count as a prediction of nothing.
        cut: Spans that were cut by a limit.
        prefill_tokens: Tokens that were computed of histories.
        generated_tokens: Tokens that the models wrote.
    """

    def __init__(self, steps: Iterable[Scored] = ()) -> None:
        super().__init__(steps)
        self.too_long = 0
        self.cut = 0
        self.prefill_tokens = 0
        self.generated_tokens = 0


@dataclass
class _Gold:
    """A trajectory to be scored."""

    number: int
    name: str
    transcript: Transcript
    steps: list[_Step]


@dataclass
class _Step:
    """A step to be scored: its history is the first ``length`` tokens of the gold transcript."""

    session: int
    parent: int
    gold: list[int]
    length: int
    reference: StepReference
    conversation: Conversation
    prediction: StepPrediction = _NOTHING
    written: tuple[int, ...] = ()

    @property
    def ids(self) -> list[int]:
        return [*self.gold[: self.length], *self.written]


def static_predictions(
    engine: Engine,
    trajectories: Sequence[Trajectory],
    *,
    batch_tokens: int = 1 << 16,
    max_new_tokens: Mapping[Voice, int] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> StaticPredictions:
    """Runs the protocol over trajectories.

    Args:
        engine: What generates; its sessions 0 and on are used and given up again.
        trajectories: Gold data; turns without a decision are history, but not scored.
        batch_tokens: History tokens of the steps that are computed together.
        max_new_tokens: Longest span of each voice.
        on_progress: Told (steps done, steps in all).
    """
    limits: dict[Voice, int] = {**MAX_NEW_TOKENS, **(max_new_tokens or {})}
    golds = list(_golds(engine, trajectories))
    total = sum(len(gold.steps) for gold in golds)
    run = StaticPredictions()
    done = 0
    # neighbours of like length need the least padding
    for batch in _batches(sorted(golds, key=lambda gold: len(gold.transcript.ids)), batch_tokens):
        _Batch(engine, batch, limits, run).run()
        done += sum(len(gold.steps) for gold in batch)
        if on_progress is not None:
            on_progress(done, total)
    run += [(gold.name, step.reference, step.prediction) for gold in golds for step in gold.steps]
    return run


def _golds(engine: Engine, trajectories: Sequence[Trajectory]) -> Iterator[_Gold]:
    session = len(trajectories)
    for number, trajectory in enumerate(trajectories):
        transcript = engine.renderer.render(trajectory)
        starts: dict[int, int] = {}
        for segment in transcript.segments:
            starts.setdefault(segment.message, segment.start)
        names = tuple(tool.name for tool in trajectory.tools)
        declared = declared_parameters(trajectory.tools)
        steps: list[_Step] = []
        for at, message in enumerate(trajectory.messages):
            if isinstance(message, AssistantMessage) and message.decision is not None:
                reference = StepReference(names, message.decision, message.tool_calls, message.content, declared)
                so_far = Conversation(trajectory.tools, trajectory.messages[:at])
                steps.append(_Step(session, number, transcript.ids, starts[at], reference, so_far))
                session += 1
        name = trajectory.id if trajectory.id is not None else str(number)
        yield _Gold(number, name, transcript, steps)


def _batches(golds: Iterable[_Gold], batch_tokens: int) -> Iterator[list[_Gold]]:
    batch: list[_Gold] = []
    size = 0
    for gold in golds:
        tokens = sum(step.length for step in gold.steps)
        if batch and size + tokens > batch_tokens:
            yield batch
            batch, size = [], 0
        batch.append(gold)
        size += tokens
    if batch:
        yield batch


class _Batch:
    """Trajectories whose steps are computed together."""

    def __init__(
        self, engine: Engine, golds: Sequence[_Gold], limits: Mapping[Voice, int], run: StaticPredictions
    ) -> None:
        self._engine = engine
        self._renderer = engine.renderer
        self._limits = limits
        self._run = run
        self._steps = [step for gold in golds for step in gold.steps]

    def run(self) -> None:
        """Predicts every step."""
        if self._renderer.voices == "single":
            self._single()
        else:
            self._roles()
        used = {step.session for step in self._steps} | {step.parent for step in self._steps}
        self._engine.forget(used)

    def _single(self) -> None:
        for step, made in self._generate("assistant", self._steps):
            turn = parse_single(self._renderer.decode(made.ids))
            decision = turn.decision or Decision.CALL
            step.prediction = StepPrediction(decision, turn.tool_calls, turn.content, turn.reasoning_content or "")

    def _roles(self) -> None:
        callers: list[_Step] = []
        summarizers: list[_Step] = []
        for step, made in self._generate("planner", self._steps):
            text = self._renderer.decode(made.ids)
            rationale, decision = parse_planner(text)
            step.conversation = replace(step.conversation, planner_text=text)
            piece = self._renderer.written("planner", made.ids)
            step.written = (*piece.header, *piece.span, *piece.tail)
            step.prediction = StepPrediction(decision or Decision.CALL, rationale=rationale)
            if step.prediction.decision is Decision.CALL:
                callers.append(step)
            elif decision is Decision.FINISH:
                summarizers.append(step)
        for step, made in self._generate("caller", callers):
            calls = parse_calls(self._renderer.decode(made.ids))
            step.prediction = StepPrediction(Decision.CALL, calls, rationale=step.prediction.rationale)
        for step, made in self._generate("summarizer", summarizers):
            answer = self._renderer.decode(made.ids)
            step.prediction = StepPrediction(Decision.FINISH, (), answer, step.prediction.rationale)

    def _generate(self, voice: Voice, steps: Sequence[_Step]) -> Iterator[tuple[_Step, Generation]]:
        """What a voice writes at these steps; those that don't fit the context are counted and left out."""
        fitting = [step for step in steps if self._room(voice, step) > 0]
        self._run.too_long += len(steps) - len(fitting)
        if not fitting:
            return
        longest: dict[int, _Step] = {}
        for step in fitting:
            if step.parent not in longest or longest[step.parent].length < step.length:
                longest[step.parent] = step
        parents = [Request(step.parent, voice, step.gold[: step.length]) for step in longest.values()]
        self._run.prefill_tokens += sum(self._engine.prefill(parents))
        for step in fitting:
            self._engine.fork(step.parent, step.session, step.length)
        most = self._limits[voice]
        requests = [Request(step.session, voice, step.ids, most, step.conversation) for step in fitting]
        for step, made in zip(fitting, self._engine.generate(requests, Sampling()), strict=True):
            self._run.prefill_tokens += made.prefill_tokens
            self._run.generated_tokens += len(made.ids)
            self._run.cut += not made.finished
            yield step, made

    def _room(self, voice: Voice, step: _Step) -> int:
        used = step.length + len(step.written) + len(self._renderer.header(voice))
        return self._engine.context - used
