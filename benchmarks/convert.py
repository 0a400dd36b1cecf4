"""How fast records are read, validated, converted and written, in MB of source a second of CPU time on one core.

    python benchmarks/convert.py [--data FILE] [--from alpha-umi] [--megabytes 60]

The source is repeated to the size that is asked for, as JSONL. Peak memory is measured at the full and at a quarter of
the size: streaming shows as the same figure. ``floor`` is what the same process needs to read the same lines with the
``json`` module and to write them again, and nothing else: on a busy machine the ratio tells more than the figure. Tools
are checked once each while they recur (the last 1,024): ``checks_of_schemas`` is how many JSON Schemas were looked at.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from alpha_umi.data import convert_file
from alpha_umi.data.records import read_records
from alpha_umi.trajectory import schema_problem

_MEGABYTE = 1_000_000


def _repeat(source: Path, out: Path, megabytes: float) -> None:
    lines = [json.dumps(record) + "\n" for record in read_records(source)]
    with out.open("w", encoding="utf-8") as file:
        while file.tell() < megabytes * _MEGABYTE:
            file.writelines(lines)


def _rewrite(source: Path, out: Path) -> None:
    """The floor: every line parsed and written again."""
    with source.open("rb") as lines, out.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(json.dumps(json.loads(line), ensure_ascii=False) + "\n")


def _measure(source: Path, from_format: str) -> dict[str, float]:
    """Converts in this process."""
    out = source.with_name("out.jsonl")
    times = [time.process_time()]
    summary = convert_file(source, from_format, out)
    times.append(time.process_time())
    _rewrite(source, out)
    times.append(time.process_time())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = source.stat().st_size / _MEGABYTE
    seconds, floor = times[1] - times[0], times[2] - times[1]
    return {
        "megabytes": round(size, 1), "records": summary.converted, "megabytes_a_second": round(size / seconds, 1),
        "floor_megabytes_a_second": round(size / floor, 1), "times_the_floor": round(seconds / floor, 2),
        "checks_of_schemas": schema_problem.cache_info().misses, "peak_memory_mib": round(peak),
    }  # fmt: skip


def main() -> None:
    """Measures both sizes, each in a process of its own, and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/alpha-umi/test_out_of_domain_a.json"))
    parser.add_argument("--from", dest="from_format", default="alpha-umi")
    parser.add_argument("--megabytes", type=float, default=60)
    parser.add_argument("--only", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only is not None:
        print(json.dumps(_measure(given.only, given.from_format)))  # noqa: T201
        return
    with tempfile.TemporaryDirectory() as folder:
        results = []
        for share in (0.25, 1.0):
            source = Path(folder) / "in.jsonl"
            _repeat(given.data, source, given.megabytes * share)
            run = [sys.executable, __file__, "--only", str(source), "--from", given.from_format]
            results.append(json.loads(subprocess.run(run, capture_output=True, text=True, check=True).stdout))
        print(json.dumps({"from": given.from_format, "runs": results}, indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
