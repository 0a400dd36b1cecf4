"""ToolBench's answer files: the tree of a search, with the path it chose and those it gave up on.

A file is ``{"tree": {"tree": NODE}, "answer_generation": {"query", "function": [...], "train_messages": [...]}}``:

* ``train_messages`` are growing chains (see `function_chains`), one a step; the last is the whole chosen path. The
  search's hints in it belong to its last steps: an earlier step's hint is in that step's own chain only. A search that
  kept no path has none, and the file's first record is rejected.
* a node has ``node_type`` (`Thought`, `Action`, `Action Input`), ``description`` (the thought, the name or the
  arguments), ``observation`` (of an `Action Input`) and ``children``. A thought and the call under it are one turn if
  one request made both, that is, unless the thought was expanded by a request of its own (``expand_num`` above 0).

A file gives the chosen path first, then every other path of its tree that ends in a `Finish` (an answer, or giving
up), with the chosen path's prompt and without hints, which the nodes don't hold. Paths that were cut off are no
records. A summary counts both: the trees, and the paths that came of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from alpha_umi.data.format import Format
from alpha_umi.data.function_chains import (
    FINISH,
    NAMESPACE,
    ChainMessage,
    Turn,
    read_chain,
    read_functions,
    turn_json,
    turns_of,
    wrap,
)
from alpha_umi.data.records import RecordError
from alpha_umi.trajectory import Trajectory


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class _Generation(_Lenient):
    query: str
    function: list[dict[str, Any]]
    train_messages: list[list[ChainMessage]] = []


class _Answer(_Lenient):
    answer_generation: _Generation
    path: Literal["chosen", "other", "unreadable"] = "chosen"


class _Node(_Lenient):
    node_type: Literal["Thought", "Action", "Action Input"]
    description: str
    observation: str = ""
    expand_num: int = 0
    children: list[_Node] = []


class _Tree(_Lenient):
    tree: _Node


def read(record: Any, name: str, context: None = None) -> Trajectory:
    """Makes a trajectory of the chosen path of a file, or of one of the records that `units` makes."""
    parsed = _Answer.model_validate(record)
    generation = parsed.answer_generation
    if parsed.path == "unreadable":
        raise RecordError("the tree's other paths can't be read")
    if not generation.train_messages:
        raise RecordError("the search chose no path")
    system, messages = read_chain(turns_of(generation.train_messages[-1]))
    extra = {NAMESPACE: {"system": system, "path": parsed.path}}
    return Trajectory(read_functions(generation.function), messages, name, extra)


def looks_like(record: Any) -> bool:
    """Whether it has an answer's generation, with the functions and the query."""
    generation = record.get("answer_generation") if isinstance(record, dict) else None
    return isinstance(generation, dict) and "function" in generation and "query" in generation


def units(record: Any, context: None = None) -> Iterator[Any]:
    """The file itself, for its chosen path, then a record like it for each other finished path of its tree.

    A tree that can't be read is a record of its own, which `read` rejects.
    """
    yield record
    try:
        generation = _Answer.model_validate(record).answer_generation
    except ValidationError:
        return  # the file itself is rejected for it
    if record.get("tree") is None:
        return
    try:
        yield from _others(generation, _Tree.model_validate(record["tree"]).tree)
    except (ValidationError, RecordError, RecursionError):
        yield {**record, "path": "unreadable"}


def _others(generation: _Generation, root: _Node) -> Iterator[dict[str, Any]]:
    chosen = turns_of(generation.train_messages[-1]) if generation.train_messages else []
    prompt = chosen[:1] if chosen and chosen[0].role == "system" else []
    given = [turn for turn in chosen if turn.role not in ("system", "user")]
    for path in _finished(root):
        turns = _turns(path)
        if turns == given:
            given = []  # once: another path of the same words is a path of its own
            continue
        chain = [turn_json(turn) for turn in (*prompt, Turn("user", wrap(generation.query)), *turns)]
        answer = {"query": generation.query, "function": generation.function, "train_messages": [chain]}
        yield {"answer_generation": answer, "path": "other"}


def _finished(root: _Node) -> Iterator[list[_Node]]:
    """The paths from the root's children to a `Finish`, in the order of the tree."""
    waiting: list[list[_Node]] = [[child] for child in reversed(root.children)]
    while waiting:
        path = waiting.pop()
        waiting += [[*path, child] for child in reversed(path[-1].children)]
        if not path[-1].children and len(path) > 1 and _is_call(path, len(path) - 2) and path[-2].description == FINISH:
            yield path


def _is_call(path: list[_Node], at: int) -> bool:
    """Whether the nodes here are the name and the arguments of a call."""
    return [node.node_type for node in path[at : at + 2]] == ["Action", "Action Input"]


def _turns(path: list[_Node]) -> list[Turn]:
    """The turns of a path; the observation of the `Finish` at its end is the search's own and is left out."""
    turns: list[Turn] = []
    thought: str | None = None
    at = 0
    while at < len(path):
        node = path[at]
        if node.node_type == "Thought":
            if node.expand_num > 0 or at + 1 == len(path) or not _is_call(path, at + 1):
                turns.append(Turn("assistant", node.description))
            else:
                thought = node.description
            at += 1
            continue
        if not _is_call(path, at):
            raise RecordError("a node of the tree is neither a thought nor a call")
        name, arguments = node.description, path[at + 1].description
        turns.append(Turn("assistant", thought, (name, arguments)))
        thought = None
        at += 2
        if at < len(path):
            turns.append(Turn("function", path[at - 1].observation, name=name))
    return turns


FORMAT = Format(
    "toolbench", "ToolBench's answer files, a search tree each: the chosen path and the others that finish",
    read, looks_like, units, ("trees", "paths"),
)  # fmt: skip
