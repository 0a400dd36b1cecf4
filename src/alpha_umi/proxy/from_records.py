"""`umi data from-records`: recorded exchanges become trajectories, one a conversation.

The history is that of the conversation's last request. What the client lost of earlier replies (rationales, the text
beside calls, the spelling of arguments) is put back from their own records; the tools are those of all requests
together. Each trajectory's ``extra`` says under ``alpha_umi`` which models answered and what tokens they used.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from alpha_umi.data.openai_messages import FORMAT
from alpha_umi.data.records import RecordError, Rejected, reason, source_files
from alpha_umi.errors import DataError
from alpha_umi.proxy.conversations import Place, Reply, chains, message_of, replies, tidied
from alpha_umi.proxy.records import REASONING, Record, calls_of, states
from alpha_umi.trajectory import OURS, Trajectory, atomic_write

_Reject = Callable[[Rejected], None]


@dataclass(frozen=True)
class Conversation:
    """A trajectory that was made, in a line.

    Attributes:
        id: Of the trajectory.
        models: That answered, each once, in the order in which they first did.
        requests: That it was recorded in.
        turns: Of the assistant, those included that were in the history already.
        calls: Of tools.
        usage: Tokens that the responses say they used, all requests together; what none says isn't there.
    """

    id: str
    models: tuple[str, ...]
    requests: int
    turns: int
    calls: int
    usage: Mapping[str, int]


@dataclass(frozen=True)
class FromRecords:
    """What was converted.

    Attributes:
        records: Lines read.
        trajectories: Written.
        rejected: How many records, replies and conversations each reason kept out.
        rejected_path: Where these are, or None if there are none.
    """

    records: int
    trajectories: int
    rejected: Mapping[str, int]
    rejected_path: Path | None


def convert_records(
    src: str | Path,
    out: str | Path,
    *,
    change: Callable[[Trajectory], Trajectory] = lambda trajectory: trajectory,
    on_progress: Callable[[int], None] | None = None,
    on_conversation: Callable[[Conversation], None] | None = None,
) -> FromRecords:
    """Converts the records of a folder (or file) to ``out``, and what it rejects to ``out`` + ``.rejected.jsonl``.

    Both files appear together at the end or not at all. Memory grows by digests, not with the bodies. The folder may
    be one that a proxy still writes to.

    Args:
        src: What ``umi proxy --record`` wrote.
        out: JSONL of trajectories.
        change: Applied to every trajectory.
        on_progress: Called after each record with the number read so far.
        on_conversation: Called for each trajectory.

    Raises:
        DataError: There are no records, or a file can't be read.
        UserError: ``out`` can't be written.
    """
    rejected_path = Path(f"{out}.rejected.jsonl")
    reasons: Counter[str] = Counter()
    files = source_files(src)
    with ExitStack() as stack:
        good = stack.enter_context(atomic_write(out))
        bad: list[IO[Any]] = []

        def reject(one: Rejected) -> None:
            if not bad:
                bad.append(stack.enter_context(atomic_write(rejected_path)))
            bad[0].write(one.to_json() + "\n")
            reasons[one.reason] += 1

        index = _Index(files, reject, on_progress)
        count = 0
        for trajectory, told in _trajectories(chains(index.replies()), reject):
            good.write(change(trajectory).to_json() + "\n")
            count += 1
            if on_conversation is not None:
                on_conversation(told)
    if not reasons:
        rejected_path.unlink(missing_ok=True)
    return FromRecords(index.read, count, dict(reasons.most_common()), rejected_path if reasons else None)


class _Index:
    """Reads all records once."""

    def __init__(self, files: Sequence[Path], reject: _Reject, on_progress: Callable[[int], None] | None) -> None:
        self._files, self._reject, self._on_progress = files, reject, on_progress
        self.read = 0

    def replies(self) -> Iterator[Reply]:
        """The usable replies; whatever else is found is rejected."""
        for file in self._files:
            for place, line in _lines(file):
                self.read += 1
                yield from self._of(place, line)
                if self._on_progress is not None:
                    self._on_progress(self.read)

    def _of(self, place: Place, line: bytes) -> Iterator[Reply]:
        try:
            record = _record(line)
            found = list(replies(record, place))
        except (RecordError, RecursionError) as error:
            why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            self._reject(Rejected(place.index, why, line.decode("utf-8", "replace"), place.file.name))
            return
        for one in found:
            if isinstance(one, Reply):
                yield one
            else:
                self._reject(Rejected(place.index, str(one), record.model_dump(), place.file.name))


def _lines(file: Path) -> Iterator[tuple[Place, bytes]]:
    try:
        with open(file, "rb") as opened:
            offset = 0
            for index, line in enumerate(opened):
                if line.strip():
                    yield Place(file, offset, index), line
                offset += len(line)
    except OSError as error:
        raise DataError(file, f"can't be read: {error.strerror}") from error


def _record(line: bytes) -> Record:
    """The record of a line.

    Raises:
        RecordError: It is none.
    """
    try:
        record = Record.model_validate(json.loads(line))
    except ValidationError as error:
        raise RecordError(f"not a record of the proxy: {reason(error)}") from error
    except ValueError as error:
        raise RecordError("not JSON") from error
    if not isinstance(record.request.get("messages"), list):
        raise RecordError("not a record of the proxy: its request has no messages")
    return record


def _trajectories(
    conversations: Iterator[tuple[Reply, ...]], reject: _Reject
) -> Iterator[tuple[Trajectory, Conversation]]:  # fmt: skip
    for chain in conversations:
        last = chain[-1]
        steps = [(reply, _reread(reply.place)) for reply in chain]
        name = steps[-1][1].id + (f"-{last.choice}" if last.choice else "")
        merged = {"tools": _tools(record for _, record in steps), "messages": _messages(steps)}
        try:
            trajectory = FORMAT.convert_record(merged, name)
        except RecordError as error:
            reject(Rejected(last.place.index, str(error), merged, last.place.file.name))
            continue
        told = _told(name, [record for _, record in steps], trajectory)
        note = {"models": list(told.models), "requests": told.requests, "usage": dict(told.usage)}
        yield replace(trajectory, id=name, extra={**trajectory.extra, OURS: note}), told


def _reread(place: Place) -> Record:
    with open(place.file, "rb") as opened:
        opened.seek(place.offset)
        return _record(opened.readline())


def _tools(records: Iterator[Record]) -> list[Any]:
    """The tools that any of the requests offers; of one name the latest."""
    tools: dict[str, Any] = {}
    for record in records:
        offered = record.request.get("tools") or [
            {"type": "function", "function": function} for function in record.request.get("functions") or ()
        ]
        for number, tool in enumerate(offered if isinstance(offered, list) else [offered]):
            function = tool.get("function") if isinstance(tool, dict) else None
            name = function.get("name") if isinstance(function, dict) else None
            tools[name if isinstance(name, str) else f"\0{number}"] = tool
    return list(tools.values())


def _messages(steps: Sequence[tuple[Reply, Record]]) -> list[Any]:
    """The history of the last request, with what clients lose put back, and the last reply."""
    last = steps[-1][1]
    messages = [
        tidied(one) if isinstance(one, dict) and one.get("role") == "assistant" else one
        for one in last.request["messages"]
    ]
    places = [place for place, _ in states(messages)]
    for reply, record in steps[:-1]:
        place = places[len(reply.history)]
        messages[place] = _restored(messages[place], _message(reply, record))
    return [*messages, _message(*steps[-1])]


def _message(reply: Reply, record: Record) -> dict[str, Any]:
    return message_of(record.response["choices"][reply.choice])


def _restored(sent: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A reply as a client sent it back, with what it lost. Ids stay the client's: observations have the same."""
    restored = dict(sent) | {key: own[key] for key in REASONING if own.get(key)}
    if own.get("refusal"):
        return restored | {"content": None, "refusal": own["refusal"]}
    if not sent.get("content") and own.get("content"):
        restored["content"] = own["content"]
    calls = zip(calls_of(sent), calls_of(own), strict=True)
    spelled = [{**call, "arguments": was.get("arguments")} for call, was in calls]
    if restored.get("tool_calls"):
        pairs = zip(restored["tool_calls"], spelled, strict=False)
        restored["tool_calls"] = [{**call, "function": function} for call, function in pairs]
    return restored


def _told(name: str, records: Sequence[Record], trajectory: Trajectory) -> Conversation:
    models = [record.response.get("model") or record.request.get("model") for record in records]
    usage: Counter[str] = Counter()
    for record in records:
        used = record.response.get("usage")
        for key, value in used.items() if isinstance(used, dict) else ():
            if isinstance(value, int) and not isinstance(value, bool):
                usage[key] += value
    turns = [message for message in trajectory.messages if message.role == "assistant"]
    calls = sum(len(turn.tool_calls) for turn in turns)
    return Conversation(name, tuple(dict.fromkeys(map(str, models))), len(records), len(turns), calls, dict(usage))
