"""What is judged: one run's answer to one query, in ToolEval's form.

ToolEval's converted file is an object of query ids, each with ``query``, ``available_tools`` and ``answer``:
``method``, ``total_steps``, ``final_answer`` and ``answer_details``, a chain of nodes (``role``, ``message``, ``next``)
whose tool nodes hold ``name``, ``arguments`` and ``response``. Trajectories are put into the same form, so that both
ways are judged with the same words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from alpha_umi.errors import DataError, UserError
from alpha_umi.trajectory import OURS, AssistantMessage, Message, ToolMessage, Trajectory, read_jsonl

FINISH = "Finish"
GIVE_UP = "give_up_and_restart"
_EPISODES = re.compile(r"live-(.+)-episodes\.jsonl")
_NAME = re.compile(r"""\s*\{['"]name['"]:\s*['"]([^'"]*)['"]""")
_DEEPEST = 400  # nodes of a chain, of two levels each; Python's JSON gives up near a thousand levels


class _Answer(BaseModel):
    model_config = ConfigDict(extra="allow")
    final_answer: str
    answer_details: list[dict[str, Any]]


class _Record(BaseModel):
    query: str
    available_tools: list[dict[str, Any]] = []
    answer: _Answer


@dataclass(frozen=True)
class Answer:
    """One run's answer to one query.

    Attributes:
        query_id: The query's name.
        query: What the user asked.
        tools: The functions that could be called, as JSON objects.
        record: ToolEval's ``answer`` object, as it was read.
        solved: What a checker said when the run was made, if one did.
    """

    query_id: str
    query: str
    tools: tuple[Mapping[str, Any], ...]
    record: Mapping[str, Any]
    solved: bool | None = None

    @property
    def final_answer(self) -> str:
        """What was handed to ``Finish``, verbatim: mostly a JSON object with ``return_type`` and ``final_answer``."""
        return self.record["final_answer"]

    @property
    def nodes(self) -> list[Mapping[str, Any]]:
        """The chain of nodes, of a branching record its first branch."""
        found, level = [], self.record["answer_details"]
        while level:
            found.append(level[0])
            level = level[0].get("next") or []
        return found

    @property
    def calls(self) -> list[Any]:
        """The messages of the tool nodes, empty ones left out."""
        return [node["message"] for node in self.nodes if node.get("role") == "tool" and node.get("message")]

    @property
    def finished(self) -> bool:
        """Whether the last call is ``Finish``, by its name."""
        return bool(self.calls) and called(self.calls[-1]) == FINISH

    @property
    def text(self) -> str | None:
        """What the user is told; None if the run gave up or told nothing."""
        told = self._told
        if told is None:
            return self.final_answer if self.final_answer.strip() and not self.gave_up else None
        answer = told.get("final_answer")
        return None if self.gave_up or answer is None or not str(answer).strip() else str(answer)

    @property
    def gave_up(self) -> bool:
        """Whether the run said that it can't be done."""
        told = self._told
        return self.final_answer.strip() == GIVE_UP if told is None else told.get("return_type") == GIVE_UP

    @property
    def _told(self) -> dict[str, Any] | None:
        try:
            told = json.loads(self.final_answer, strict=False)
        except (ValueError, RecursionError):
            return None
        return told if isinstance(told, dict) else None


def called(message: Any) -> str | None:
    """The name in a tool node's message; ToolBench's first result files have messages as text, cut after a while."""
    if isinstance(message, Mapping):
        return message.get("name")
    found = _NAME.match(message) if isinstance(message, str) else None
    return found[1] if found else None


Answers = Mapping[str, Answer]
"""Answers of one system on one test set, by query id."""


def read_answers(path: Path) -> Answers:
    """Reads a file of ToolEval's converted answers (``.json``), or of trajectories (``.jsonl``).

    Raises:
        DataError: It is missing, or not what its name says; names the query and what is wrong there.
    """
    if path.suffix == ".jsonl":
        answers: dict[str, Answer] = {}
        for number, trajectory in enumerate(read_jsonl(path)):
            answer = answer_of(trajectory, trajectory.id or str(number))
            if answer.query_id in answers:
                raise DataError(path, f"the id {answer.query_id!r} is there twice; an answer needs an id of its own")
            answers[answer.query_id] = answer
        return answers
    return {name: _answer(path, name, value) for name, value in read_object(path).items()}


def read_sets(path: Path) -> dict[str, Answers]:
    """One system's answers by test set, of a file or a folder.

    Of a folder that `umi eval live --traces` left, the episodes of each split; of another, every ``.json`` and
    ``.jsonl`` in it.

    Raises:
        UserError: There is nothing to judge.
    """
    if not path.is_dir():
        return {path.stem: read_answers(path)}
    episodes = {file: found[1] for file in sorted(path.iterdir()) if (found := _EPISODES.fullmatch(file.name))}
    files = episodes or {file: file.stem for file in sorted(path.iterdir()) if file.suffix in (".json", ".jsonl")}
    if not files:
        raise UserError(f"{path}: no .json or .jsonl file with answers is in it")
    return {name: read_answers(file) for file, name in files.items()}


def read_object(path: Path) -> dict[str, Any]:
    """Reads a JSON file that is an object.

    Raises:
        DataError: It is missing, no JSON, or no object.
    """
    value = _json(path)
    if not isinstance(value, dict):
        raise DataError(path, "not a JSON object; it is keyed by query id")
    return value


def read_ids(path: Path) -> list[str]:
    """The query ids of a test set: the keys of a JSON object (as StableToolBench has them), or a JSON list.

    Raises:
        DataError: It is neither.
    """
    value = _json(path)
    if not isinstance(value, dict | list):
        raise DataError(path, "give an object with the query ids as keys, or a list of them")
    return list(dict.fromkeys(str(item) for item in value))


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(path, error.strerror or "can't be read") from error
    except (ValueError, RecursionError) as error:
        raise DataError(path, f"not JSON: {error}") from error


def answer_of(trajectory: Trajectory, query_id: str) -> Answer:
    """A trajectory in ToolEval's form: rationales as assistant nodes, calls with their observations as tool nodes."""
    chain = list(_chain(trajectory.messages))
    final = chain[-1]["message"]["arguments"] if chain and _is_finish(chain[-1]) else ""
    nested: list[dict[str, Any]] = []
    for node in reversed(_shortened(chain)):
        nested = [{**node, "next": nested}]
    record = {"total_steps": len(chain), "final_answer": final, "answer_details": nested}
    tools = tuple(tool.function for tool in trajectory.tools)
    return Answer(query_id, trajectory.instruction, tools, record, _recorded(trajectory.extra))


def _recorded(extra: Mapping[str, Any]) -> bool | None:
    """What `umi eval live` noted of a run."""
    noted = extra.get(OURS)
    verdict = noted.get("verdict") if isinstance(noted, Mapping) else None
    solved = verdict.get("solved") if isinstance(verdict, Mapping) else None
    return solved if isinstance(solved, bool) else None


def _shortened(chain: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The chain, of a very long one its first and last nodes."""
    half = _DEEPEST // 2
    return chain if len(chain) <= _DEEPEST else [*chain[:half], *chain[-half:]]


def _is_finish(node: Mapping[str, Any]) -> bool:
    return node["role"] == "tool" and node["message"]["name"] == FINISH


def _chain(messages: tuple[Message, ...]) -> Iterator[dict[str, Any]]:
    said = {message.tool_call_id: message.content for message in messages if isinstance(message, ToolMessage)}
    for message in messages:
        if not isinstance(message, AssistantMessage):
            continue
        if message.reasoning_content:
            yield {"role": "assistant", "message": message.reasoning_content}
        for call in message.tool_calls:
            yield _call(call.name, call.arguments, said.get(call.id, ""))
        if message.content is not None:
            yield _call(FINISH, _told(return_type="give_answer", final_answer=message.content))
        elif message.refusal is not None:
            yield _call(FINISH, _told(return_type=GIVE_UP, final_answer=message.refusal))


def _call(name: str, arguments: str, response: str = "") -> dict[str, Any]:
    return {"role": "tool", "message": {"name": name, "arguments": arguments, "response": response}}


def _told(**said: str) -> str:
    return json.dumps(said, ensure_ascii=False)


def _answer(path: Path, name: str, value: Any) -> Answer:
    try:
        read = _Record.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(path, f"query {name}: {where + ': ' if where else ''}{first['msg']}") from error
    return Answer(name, read.query, tuple(read.available_tools), value["answer"])
