"""Converts every public data set that holds trajectories and prints the table of docs/data.md.

    python benchmarks/public_data.py DATA_FOLDER

Every record is either converted or rejected with a reason; formats are recognised, not named. For formats that can be
written, a trajectory is written again and compared with the record it came from.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from alpha_umi.data import FORMATS, Options, Summary, convert_file, recognise
from alpha_umi.data.records import BrokenLine, RecordError, read_records

SETS = (
    "alpha-umi/raw_data_stage_1.json", "alpha-umi/raw_data_stage_2.json", "alpha-umi/test_out_of_domain_a.json",
    "toolbench/answer/G1_answer", "toolbench/answer/G2_answer", "toolbench/answer/G3_answer",
    "traject-bench/sequential", "traject-bench/parallel", "toolalpaca/eval_simulated.json",
    "tau-bench/gpt-4o-airline.json", "tau-bench/MockAirlineDomainEnv-few_shot.jsonl", "tooltalk/easy",
    "tooltalk/tooltalk", "toolrl/rlla_sft.json", "toolrl/rlla_4k_test.parquet", "api-bank/lv1_lv2_dialogues.jsonl",
    "api-bank/level-1-api_processed.json", "api-bank/level-2-api_processed.json", "seal-tools/dev.jsonl",
    "fireact/alpaca_format/multitask.json", "fireact/alpaca_format/multitask_multimethod.json", "gsm8k/train.jsonl",
    "gsm8k/test.jsonl", "tora/tora_corpus_examples.jsonl", "llamafactory-demo/glaive_toolcall_en_demo.json",
    "llamafactory-demo/reason_tool_use_demo_50.jsonl",
)  # fmt: skip


def _round_trip(path: Path, name: str) -> str:
    """How many records a written trajectory gives back exactly."""
    one = FORMATS[name]
    if one.write is None or one.read is None:
        return ""
    same = total = 0
    for file in one.files(path):
        records: list[Any] = [record for record in read_records(file) if not isinstance(record, BrokenLine)]
        context = one.context(file, Options())
        for number, record in enumerate(unit for element in records for unit in one.units(element, context)):
            total += 1
            try:
                same += one.write(one.convert_record(record, str(number), context)) == record
            except RecordError:
                continue
    return f"{same} of {total}"


def _counted(summary: Summary) -> str:
    """The records, and what they are of where that is something else: ``8 paths of 5 trees``."""
    elements, records = FORMATS[summary.from_format].words
    if elements == records:
        return f"{summary.read:,}"
    return f"{summary.read:,} {records} of {summary.elements:,} {elements}"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    print("| set | format | records | converted | rejected, by reason | written back exactly |")  # noqa: T201
    print("|---|---|---|---|---|---|")  # noqa: T201
    with tempfile.TemporaryDirectory() as out:
        for name in SETS:
            summary = convert_file(folder / name, recognise(folder / name), Path(out) / "out.jsonl")
            assert summary.read == summary.converted + sum(summary.rejected.values())
            reasons = "; ".join(f"{count}: {json.dumps(reason)[1:-1]}" for reason, count in summary.rejected.items())
            exact = _round_trip(folder / name, summary.from_format)
            print(  # noqa: T201
                f"| {name} | {summary.from_format} | {_counted(summary)} | {summary.converted:,} | {reasons} "
                f"| {exact} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
