"""Which function schemas of the public data sets can calls be held to, and are calls that are held so right?

    python benchmarks/constrain_coverage.py DATA_FOLDER [--calls 2]

Of every tool, calls are drawn at random from what its grammar allows, with the shipped tokenizer, and checked as the
agent checks them. A call that isn't at its end after 2,000 tokens is counted as cut.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from alpha_umi.data import FORMATS, Options, call_texts, recognise
from alpha_umi.data.records import BrokenLine, RecordError, read_records
from alpha_umi.data.seal_tools import Catalogue
from alpha_umi.data.seal_tools import read as read_seal
from alpha_umi.engines.base import Conversation, Request
from alpha_umi.engines.constrain import Constraint
from alpha_umi.engines.grammars import unconstrained
from alpha_umi.errors import ToolError
from alpha_umi.run_directory import load_renderer
from alpha_umi.tools.toolbench import read_toolbench
from alpha_umi.trajectory import Tool
from alpha_umi.transcript import Renderer, parse_calls
from alpha_umi.validation import check_call

LISTS = ("bfcl", "acebench")
"""Sets without trajectories whose records have a list ``function``, or are functions."""

TRAJECTORIES = (
    "traject-bench/sequential", "traject-bench/parallel", "alpha-umi/raw_data_stage_2.json",
    "alpha-umi/test_out_of_domain_a.json", "toolbench/answer/G1_answer", "toolbench/answer/G2_answer",
    "toolbench/answer/G3_answer", "toolalpaca/eval_simulated.json", "tau-bench/gpt-4o-airline.json",
    "tooltalk/tooltalk", "toolrl/rlla_sft.json", "api-bank/lv1_lv2_dialogues.jsonl",
    "llamafactory-demo/glaive_toolcall_en_demo.json",
)  # fmt: skip
DOCUMENTS = ("toolbench/instruction", "stabletoolbench/solvable_queries/test_instruction")
"""Folders of instructions, each with the ToolBench tools that it is given."""
_LONGEST = 2000


def _listed(folder: Path) -> Iterator[Tool | str]:
    """The tools of function lists, or why one can't be read."""
    for file in sorted(folder.rglob("*.json")):
        for record in read_records(file) if "possible_answer" not in file.parts else ():
            if isinstance(record, BrokenLine):
                continue
            for function in [record] if "parameters" in record else record.get("function") or []:
                try:
                    yield call_texts.read_tools([function], "coverage")[0][0]
                except RecordError as error:
                    yield str(error)


def _seal_tools(folder: Path) -> Iterator[Tool]:
    catalogue = Catalogue.read(folder / "tool.jsonl")
    for name in catalogue.documents:
        record = {"id": name, "query": name, "calling": [{"api": name}]}
        tools = read_seal(record, name, catalogue).tools
        yield next(tool for tool in tools if tool.extra["seal-tools"]["api_name"] == name)


def _shown(path: Path) -> Iterator[Tool]:
    """The tools that the trajectories of a set show."""
    one = FORMATS[recognise(path)]
    assert one.read is not None
    for file in one.files(path):
        context = one.context(file, Options())
        records = (record for record in read_records(file) if not isinstance(record, BrokenLine))
        for number, record in enumerate(unit for element in records for unit in one.units(element, context)):
            try:
                yield from one.convert_record(record, str(number), context).tools
            except RecordError:
                continue


def _documented(folder: Path) -> Iterator[Tool]:
    for file in sorted(folder.glob("G*.json")):
        yield from read_toolbench(file)


def _sources(folder: Path) -> Iterator[tuple[str, Iterator[Tool | str]]]:
    for name in LISTS:
        yield name, _listed(folder / name)
    yield "seal-tools", _seal_tools(folder / "seal-tools")
    for name in TRAJECTORIES:
        yield name, _shown(folder / name)
    for name in DOCUMENTS:
        yield name, _documented(folder / name)


class Drawer:
    """Draws calls at random among what a tool's grammar allows, and checks them."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._constraint = Constraint(renderer)
        size = len(renderer.tokenizer)
        # a string ends sooner or later, and a span as soon as it may
        self._ends = np.array([token == renderer.markers.end or '"' in renderer.show([token]) for token in range(size)])

    def check(self, tool: Tool, seed: int) -> str:
        """Whether a call is right, cut, or wrong and why."""
        text = self._draw(tool, random.Random(seed))
        if text is None:
            return "cut"
        try:
            for call in parse_calls(text):
                check_call(call, (tool,))
        except ToolError as error:
            return f"wrong: {error}: {text}"
        return "right"

    def _draw(self, tool: Tool, chance: random.Random) -> str | None:
        end = self._renderer.markers.end
        guide = self._constraint.guide(Request(0, "caller", (), None, Conversation((tool,), ())))
        assert guide is not None
        ids = guide.forced()
        while len(ids) < _LONGEST and ids[-1:] != [end]:
            legal = np.unpackbits(guide.allowed().view(np.uint8), bitorder="little")[: len(self._ends)].astype(bool)
            ending = legal & self._ends
            chosen = np.flatnonzero(ending if ending.any() and chance.random() < 0.3 else legal)
            token = int(chosen[chance.randrange(len(chosen))])
            guide.take(token)
            ids.append(token)
            ids += guide.forced() if token != end else []
        return self._renderer.decode(ids) if ids[-1] == end else None


def main() -> None:
    """Prints the table, then what was free and what was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--calls", type=int, default=2)
    given = parser.parse_args()
    drawer = Drawer(load_renderer(None, 256))
    seen: set[str] = set()
    table: dict[str, Any] = {}
    for name, tools in _sources(given.folder):
        counts: Counter[str] = Counter()
        for tool in tools:
            counts["tools"] += 1
            if isinstance(tool, str):
                counts[f"not read: {tool}"] += 1
            elif tool.schema not in seen:
                seen.add(tool.schema)
                counts["schemas, each once"] += 1
                reasons = unconstrained((tool,))
                counts.update(f"free: {reason}" for reason in reasons.values())
                if not reasons:
                    counts.update(drawer.check(tool, seed) for seed in range(given.calls))
        table[name] = dict(counts)
        print(name, json.dumps(table[name], ensure_ascii=False), flush=True)  # noqa: T201
    total: Counter[str] = Counter()
    for counts in table.values():
        total.update(counts)
    print("all", json.dumps(total, ensure_ascii=False, indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
