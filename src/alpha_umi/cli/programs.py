"""`umi data run-programs`: the programs of recorded trajectories, run again in the sandbox."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alpha_umi.cli.options import terminal
from alpha_umi.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from alpha_umi.tools.rerun import Rerun


def run_programs(
    data: Annotated[Path, typer.Argument(help="A JSONL file of trajectories with calls of the tool `python`.")],
    out: Annotated[Path, typer.Option(help="The file to write: those whose programs give what is recorded.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Run the programs of trajectories again in a sandbox; those with other outputs go to OUT.rejected.jsonl."""
    from alpha_umi.display import bars
    from alpha_umi.trajectory import json_text, write_jsonl

    with bars(terminal(stderr=True)) as shown:
        found = asyncio.run(_rerun(data, lambda done: shown.count("trajectories", done)))
    programs = sum(one.programs for one in found)
    if programs == 0:
        raise UserError(f"{data}: no trajectory calls the tool python, so there is nothing to run")
    kept = write_jsonl(out, (one.trajectory for one in found if one.reason is None))
    rejected = Counter(one.reason for one in found if one.reason is not None)
    _write_rejected(Path(f"{out}.rejected.jsonl"), data.name, found)
    summary: dict[str, Any] = {
        "read": len(found), "programs": programs, "written": kept, "rejected": dict(rejected.most_common()),
    }  # fmt: skip
    if as_json:
        typer.echo(json_text(summary))
        return
    console = terminal()
    console.print(f"{programs} programs run; {kept} of {len(found)} trajectories written: {out}", highlight=False)
    for reason, count in rejected.most_common():
        console.print(f"  {count} rejected: {reason}", highlight=False, markup=False)


async def _rerun(data: Path, on_progress: Callable[[int], None]) -> list[Rerun]:
    from alpha_umi.tools.program import ProgramSource
    from alpha_umi.tools.rerun import PROGRAM_LIMITS, rerun_all
    from alpha_umi.tools.sandbox import open_sandbox
    from alpha_umi.trajectory import read_jsonl

    programs = ProgramSource(await open_sandbox(PROGRAM_LIMITS))
    found: list[Rerun] = []
    async for one in rerun_all(read_jsonl(data), programs):
        found.append(one)
        on_progress(len(found))
    return found


def _write_rejected(path: Path, source: str, found: list[Rerun]) -> None:
    from alpha_umi.data import Rejected
    from alpha_umi.trajectory import atomic_write

    differing = [(index, one.reason, one.trajectory) for index, one in enumerate(found) if one.reason is not None]
    if not differing:
        path.unlink(missing_ok=True)
        return
    with atomic_write(path) as file:
        for index, reason, trajectory in differing:
            file.write(Rejected(index, reason, json.loads(trajectory.to_json()), source).to_json() + "\n")
