"""The model card of a run: what was trained, from what, on what, at what cost."""

from __future__ import annotations

import json
from pathlib import Path

from alpha_umi.run_directory import RunInfo
from alpha_umi.trajectory import atomic_write


def card(info: RunInfo) -> str:
    """The card as Markdown."""
    backbone = info.recipe.get("backbone")
    rows = [
        f"| {stage} | {cost['steps']:.0f} | {cost['trajectories']:.0f} "
        f"| {cost['tokens_forwarded']:.0f} | {cost['loss_tokens']:.0f} | {cost['flops']:.3g} | {cost['seconds']:.0f} |"
        for stage, cost in info.costs.items()
    ]
    losses = [
        f"- {stage}: " + ", ".join(f"{k} {v:.3f}" for k, v in loss.items()) for stage, loss in info.losses.items()
    ]
    return "\n".join([
        "---", "library_name: alpha-umi", "tags: [tool-use, agent, alpha-umi]", "---", "",
        f"# α-UMi run: `{info.system}`", "",
        f"- backbone: `{backbone if isinstance(backbone, str) else json.dumps(backbone)}`",
        f"- data: `{info.data}`",
        f"- renderer: `{info.renderer.voices}`, fingerprint `{info.renderer.fingerprint}`, "
        f"{info.renderer.observation_tokens} tokens an observation",
        f"- forward passes in {info.precision}; transcripts up to {info.max_length} tokens",
        f"- versions: {', '.join(f'{name} {version}' for name, version in info.versions.items())}", "",
        "| stage | steps | trajectories | tokens forwarded | loss tokens | FLOPs | seconds |",
        "|---|---|---|---|---|---|---|", *rows, "",
        "Loss of the last step:", "", *losses, "",
        "Made for calling the tools it was trained on, or ones like them; not for anything where a wrong call does "
        "harm without a person looking at it.", "",
    ])  # fmt: skip


def write_card(directory: Path, info: RunInfo) -> None:
    """Writes the card as the run's ``README.md``."""
    with atomic_write(directory / "README.md") as file:
        file.write(card(info))
