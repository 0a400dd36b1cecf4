"""TRAJECT-Bench: executed trajectories over RapidAPI tools, sequential (one call a turn) and parallel (all in one).

``sequential/<Domain>.json.xz`` and ``parallel/<Domain>_{simple,hard}_ver.json.xz`` hold the records,
``tools/<Domain>_tool.json.xz`` beside these folders the tool documents. A record lists the tools it used, not the ones
it could have used, so distractors are drawn from the same domain, seeded by the record itself: the same record gets the
same list wherever it stands in whatever file. Failed steps stay, with their error text as the observation.

The benchmark was made for evaluation: say so where something is trained on it.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alpha_umi.data.format import Format, Options
from alpha_umi.data.records import RecordError, read_records, reason
from alpha_umi.errors import DataError
from alpha_umi.trajectory import AssistantMessage, Message, Tool, ToolCall, ToolMessage, Trajectory, UserMessage

NAMESPACE = "traject-bench"
LIST_SIZE = 6
"""How many tools a list has at least: the used ones, filled up with distractors of the same domain."""
NAME_LIMIT = 64

_FILE = re.compile(r"(?P<domain>.+?)(?:_(?P<version>simple|hard)_ver)?\.jsonl?(?:\.xz)?\Z")
_ILLEGAL = re.compile(r"[^a-zA-Z0-9-]+")
_FAILED_ANSWER = "Final-answer generation failed"
_TYPES: Mapping[str, dict[str, str]] = {
    "string": {"type": "string"},
    "enum": {"type": "string"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "date (yyyy-mm-dd)": {"type": "string", "format": "date"},
}


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class _Parameter(_Strict):
    name: str = Field(min_length=1)
    type: str = ""
    description: str = ""
    default: Any = ""


class _Document(_Strict):
    name: str = Field(alias="tool name", min_length=1)
    description: str = Field("", alias="tool description")
    required: list[_Parameter] = Field([], alias="required_parameters")
    optional: list[_Parameter] = Field([], alias="optional_parameters")

    def declared(self) -> set[str]:
        """Names of all parameters."""
        return {parameter.name for parameter in (*self.required, *self.optional)}


class _Argument(_Strict):
    name: str = Field(min_length=1)
    value: Any


class _Sequence(_Strict):
    description: str = ""


class _Step(_Strict):
    name: str = Field(alias="tool name", min_length=1)
    description: str = Field("", alias="tool description")
    required: list[_Argument] = Field([], alias="required parameters")
    optional: list[_Argument] = Field([], alias="optional parameters")
    output: str = Field(alias="executed_output")
    status: str = Field("", alias="execution_status")
    sequence_step: _Sequence = _Sequence()
    adapt_reason: str = ""

    def arguments(self) -> dict[str, Any]:
        """The recorded arguments, required ones first."""
        return {argument.name: argument.value for argument in (*self.required, *self.optional)}


class _Answer(_Strict):
    answer: str
    reason: str = ""


class _Record(_Strict):
    query: str = Field(min_length=1)
    steps: list[_Step] = Field(alias="tool list", min_length=1)
    final_answer: str | _Answer
    sequence_name: str | None = None
    trajectory_type: str = "sequential"


@dataclass(frozen=True)
class Domain:
    """The tool documents of one domain, by name with white space normalised (a few names have several documents)."""

    name: str
    documents: Mapping[str, Sequence[_Document]]

    @classmethod
    def read(cls, path: Path, name: str) -> Domain:
        """Reads a domain's tool documents.

        Raises:
            DataError: The file can't be read, or an entry is no tool document.
        """
        documents: dict[str, list[_Document]] = {}
        for number, entry in enumerate(read_records(path)):
            try:
                document = _Document.model_validate(entry)
            except ValidationError as error:
                raise DataError(path, f"tool document {number}: {reason(error)}") from error
            documents.setdefault(_key(document.name), []).append(document)
        return cls(name, documents)

    def document(self, name: str, arguments: Iterable[str]) -> _Document | None:
        """The document of this name that declares most of the arguments; None if the domain has none of this name."""
        wanted = set(arguments)
        found = self.documents.get(_key(name), ())
        return min(found, key=lambda document: len(wanted - document.declared()), default=None)


def read(record: Any, name: str, domain: Domain) -> Trajectory:
    """Makes a trajectory of one record, with the tool documents of its domain."""
    parsed = _Record.model_validate(record)
    tools, names = _tools(parsed, domain)
    messages = (UserMessage(parsed.query), *_steps(parsed, names), _answer(parsed))
    origin = {"domain": domain.name, "trajectory_type": parsed.trajectory_type}
    if parsed.sequence_name is not None:
        origin["sequence_name"] = parsed.sequence_name
    return Trajectory(tools, messages, name, {NAMESPACE: origin})


def looks_like(record: Any) -> bool:
    """Whether it has a query and a ``tool list``."""
    return isinstance(record, dict) and {"query", "tool list", "final_answer"} <= record.keys()


def _domain_of(file: Path, options: Options) -> Domain:
    named = _FILE.match(file.name)
    if named is None:
        raise DataError(file, "its name must be <Domain>.json.xz or <Domain>_simple_ver.json.xz (or _hard_ver)")
    return Domain.read(options.tools or _documents_beside(file, named["domain"]), named["domain"])


def _steps(record: _Record, names: Mapping[str, str]) -> Iterator[Message]:
    calls = [
        ToolCall(f"call_{number}", names[_key(step.name)], json.dumps(step.arguments(), ensure_ascii=False))
        for number, step in enumerate(record.steps, 1)
    ]
    observations = [_observation(call, step) for call, step in zip(calls, record.steps, strict=True)]
    if record.trajectory_type == "parallel":
        yield AssistantMessage(_parallel_rationale([call.name for call in calls]), tuple(calls))
        yield from observations
        return
    for step, call, observation in zip(record.steps, calls, observations, strict=True):
        yield AssistantMessage(_rationale(step, call.name), (call,))
        yield observation


def _observation(call: ToolCall, step: _Step) -> ToolMessage:
    failed = step.status not in ("", "success")
    return ToolMessage(call.id, step.output, {NAMESPACE: {"execution_status": step.status}} if failed else {})


def _rationale(step: _Step, name: str) -> str:
    """Why this call: what the step is for, then why these values were taken from what came before."""
    words = [text.strip() for text in (step.sequence_step.description, step.adapt_reason) if text.strip()]
    return " ".join(words) or f"The next piece of information comes from {name}."


def _parallel_rationale(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"One call answers this: {names[0]}."
    listed = f"{', '.join(names[:-1])} and {names[-1]}"
    return f"None of the {len(names)} calls needs another's result, so they are made at once: {listed}."


def _answer(record: _Record) -> AssistantMessage:
    final = record.final_answer
    text, why = (final, "") if isinstance(final, str) else (final.answer, final.reason.strip())
    if not text.strip():
        raise RecordError("final_answer: empty")
    extra = {}
    if why.startswith(_FAILED_ANSWER):  # then the answer is one stock sentence, and the reason no rationale
        extra, why = {NAMESPACE: {"final_answer": why}}, ""
    replies = "The call has" if len(record.steps) == 1 else f"All {len(record.steps)} calls have"
    why = why or f"{replies} been answered; the final answer can be written from that."
    return AssistantMessage(why, content=text, extra=extra)


def _tools(record: _Record, domain: Domain) -> tuple[tuple[Tool, ...], dict[str, str]]:
    """The record's tool list, used tools and distractors shuffled, and the function name of each used tool."""
    by_tool: dict[str, list[_Step]] = {}
    for step in record.steps:
        by_tool.setdefault(_key(step.name), []).append(step)
    chance = random.Random(
        hashlib.sha256(f"{record.sequence_name}\n{record.query}".encode("utf-8", "surrogatepass")).digest()
    )
    others = [key for key in domain.documents if key not in by_tool]
    distractors = chance.sample(others, min(len(others), max(0, LIST_SIZE - len(by_tool))))
    names = function_names([*by_tool, *distractors])
    tools = [_used_tool(names[key], steps, domain) for key, steps in by_tool.items()]
    tools += [_documented(names[key], domain.documents[key][0]) for key in distractors]
    chance.shuffle(tools)
    return tuple(tools), names


def _used_tool(name: str, steps: Sequence[_Step], domain: Domain) -> Tool:
    document = domain.document(steps[0].name, {argument for step in steps for argument in step.arguments()})
    return _documented(name, document) if document else _inferred(name, steps)


def _documented(name: str, document: _Document) -> Tool:
    parameters: dict[str, Any] = {"type": "object", "properties": {}}
    for parameter in (*document.required, *document.optional):
        schema: dict[str, Any] = dict(_TYPES.get(parameter.type.strip().lower(), {}))
        if parameter.description.strip():
            schema["description"] = parameter.description.strip()
        if parameter.default not in ("", None):
            schema["default"] = parameter.default
        parameters["properties"][parameter.name] = schema
    if document.required:
        parameters["required"] = [parameter.name for parameter in document.required]
    return Tool.of(name, document.description, parameters, {NAMESPACE: {"tool name": document.name}})


def _inferred(name: str, steps: Sequence[_Step]) -> Tool:
    """A tool without a document: its parameters are those the record gave it, their types those of the values."""
    properties = {argument: _type_of(value) for step in steps for argument, value in step.arguments().items()}
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    required = set.intersection(*({argument.name for argument in step.required} for step in steps))
    if required:
        parameters["required"] = [argument for argument in properties if argument in required]
    extra = {NAMESPACE: {"tool name": steps[0].name, "inferred": True}}
    return Tool.of(name, steps[0].description, parameters, extra)


def _type_of(value: Any) -> dict[str, str]:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    kind = kinds.get(type(value))
    return {"type": kind} if kind else {}


def function_names(originals: Sequence[str]) -> dict[str, str]:
    """Legal function names (``[a-zA-Z0-9_-]``, at most 64 characters), unique within the list.

    ``"TED Talks API: getTalks"`` becomes ``TED_Talks_API_getTalks``. A name that is taken gets ``_2``, ``_3``…, in the
    alphabetical order of the originals, so the order of the list doesn't matter.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for original in sorted(set(originals)):
        base = _ILLEGAL.sub("_", original).strip("_")[:NAME_LIMIT].rstrip("_") or "tool"
        name, number = base, 1
        while name in taken:
            number += 1
            suffix = f"_{number}"
            name = base[: NAME_LIMIT - len(suffix)] + suffix
        taken.add(name)
        names[original] = name
    return names


def _key(name: str) -> str:
    return " ".join(name.split())


def _documents_beside(file: Path, domain: str) -> Path:
    folder = file.resolve().parent.parent / "tools"
    candidates = [folder / f"{domain}_tool.json{end}" for end in (".xz", "")]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise DataError(file, f"the tool documents of its domain are missing: expected {candidates[0]}")


FORMAT = Format(
    "traject-bench", "TRAJECT-Bench, sequential or parallel, with the tools/ folder beside it", read, looks_like,
    context=_domain_of,
)  # fmt: skip
