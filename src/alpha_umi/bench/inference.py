"""``umi bench inference``: three roles on one backbone and one cache against the usual ways of running an agent.

The same episodes, with as many generated tokens, are run by four peers, each in a process of its own:

    ours        activated adapters of three roles in the role-switching engine
    single      one model with one voice, in the same engine, with its own cache
    pipeline    three models as the reference pipeline runs them: every prompt anew, by transformers' ``generate``, with
                as many episodes at a time as ours
    one         the same, one episode at a time

All generate in the precision that is fastest here. Latency is the mean time until an episode is over. The floors are
ratios of tokens computed, generated ones included: what they would be if nothing but tokens cost time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from alpha_umi.bench.episodes import EndlessRenderer, ReferenceEngine, Script, run_scripts, script
from alpha_umi.bench.process import Settings, answer, measure, random_backbone, spread
from alpha_umi.bench.shapes import ShapeName, rows
from alpha_umi.engines.base import Engine, Request, Sampling
from alpha_umi.transcript import ROLES, Renderer, Voice

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from alpha_umi.engines.local import LocalEngine

Peer = Literal["ours", "single", "pipeline", "one"]
PEERS: tuple[Peer, ...] = ("ours", "single", "pipeline", "one")
_ALONE = 2
"""Episodes a round of the peer that runs one at a time."""


@dataclass(frozen=True, kw_only=True)
class InferenceBench(Settings):
    """What is measured.

    Attributes:
        episodes: At one time, and in a round; the first round is not timed.
        scale: Of every length of the shapes; what is measured are ratios, and these stay much the same.
        context: Tokens of each of the episodes whose memory is measured.
        rank: Of every adapter.
    """

    episodes: int = 16
    scale: float = 0.25
    context: int = 2048
    rank: int = 32


def bench_inference(
    settings: InferenceBench, shapes: Sequence[ShapeName], on_peer: Callable[[str], None] = lambda name: None
) -> dict[str, Any]:
    """Measures every peer on every shape; ``runs`` has the seconds and the latency of a round.

    Raises:
        UserError: A peer failed, or the data don't suffice.
    """
    return measure(__name__, settings, shapes, PEERS, _ratios, on_peer)


def _ratios(found: dict[str, dict[str, float]]) -> dict[str, float]:
    ours, single, pipeline = found["ours"], found["single"], found["pipeline"]

    def computed(run: dict[str, float]) -> float:
        return (run["prefill"] + run["generated"]) / run["episodes"]

    each = {name: run["median_s"] / run["episodes"] for name, run in found.items()}
    ratios = {
        "prefill_per_transcript_token": ours["prefill"] / ours["tokens"],
        "prefill_per_transcript_token_three_models": ours["three_models"] / ours["tokens"],
        "prefill_per_transcript_token_every_step": pipeline["prefill"] / ours["tokens"],
        "episode_latency_vs_single": ours["median_latency_s"] / single["median_latency_s"],
        "episode_throughput_vs_reference_pipeline": each["pipeline"] / each["ours"],
        "episode_throughput_vs_reference_one_at_a_time": each["one"] / each["ours"],
        "memory_vs_single": ours["bytes"] / single["bytes"],
        "floor_episode_latency_vs_single": computed(ours) / computed(single),
        "floor_episode_throughput_vs_reference_pipeline": computed(pipeline) / computed(ours),
    }
    return {name: round(value, 3) for name, value in ratios.items()}


# ---- in the peer's process


def _measure(settings: InferenceBench, shape: ShapeName, peer: Peer) -> dict[str, float]:
    import torch

    from alpha_umi.engines.local import LocalEngine

    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    scripts = [script(row, settings.scale, peer == "single") for row in rows(settings, shape, settings.episodes)]
    concurrency = 1 if peer == "one" else settings.episodes
    scripts = scripts[: _ALONE if peer == "one" else settings.episodes]
    engine = _engine(settings, peer)
    held = _memory(settings, engine) if isinstance(engine, LocalEngine) else 0
    ran = [run_scripts(engine, scripts, concurrency) for _ in range(1 + settings.rounds)][1:]
    generated = sum(turn.new for one in scripts for turn in one.turns)
    out: dict[str, float] = {
        "episodes": len(scripts), "generated": generated, "prefill": ran[0].prefill, "tokens": ran[0].tokens,
        **spread("s", [one.seconds for one in ran]), **spread("latency_s", [one.latency for one in ran]),
    }  # fmt: skip
    if peer == "ours":
        out["three_models"] = sum(_read_by_three(one) for one in scripts)
    return out | ({"bytes": held} if held else {})


def _renderer(settings: InferenceBench) -> Renderer:
    from alpha_umi.run_directory import load_renderer

    return EndlessRenderer(load_renderer(None, 256), settings.vocabulary)


def _engine(settings: InferenceBench, peer: Peer) -> Engine:
    import torch

    from alpha_umi.adapters import RoleAdapters
    from alpha_umi.compute import device, probe_precision
    from alpha_umi.engines.local import LocalEngine
    from alpha_umi.run_directory import AdapterShape

    renderer = _renderer(settings)
    dtype = torch.bfloat16 if probe_precision() == "bf16" else torch.float32
    if peer in ("pipeline", "one"):
        models: dict[Voice, PreTrainedModel] = {role: random_backbone(settings) for role in ROLES}
        for model in models.values():
            torch.nn.Module.to(model, device=device(), dtype=dtype).eval()
        return ReferenceEngine(models, renderer, settings.episodes)
    model = random_backbone(settings)
    if peer == "single":
        return LocalEngine({"assistant": model}, renderer, dtype, device(), constrain=False)
    adapters = RoleAdapters(model, ROLES, AdapterShape(rank=settings.rank))
    return LocalEngine(
        dict.fromkeys(ROLES, model), renderer, dtype, device(), constrain=False, adapters=adapters, variant="alora"
    )


def _read_by_three(one: Script) -> int:
    """Tokens that three models with a cache each would compute other than by generating."""
    total, here = 0, len(one.prompt)
    read = dict.fromkeys(ROLES, 0)
    for turn in one.turns:
        assert turn.voice in ROLES
        total += here + 1 - read[turn.voice]
        here += 1 + turn.new
        read[turn.voice] = here - 1  # nothing followed the last token yet
        here += len(turn.after)
    return total


def _memory(settings: InferenceBench, engine: LocalEngine) -> int:
    """Bytes of weights, adapters and caches while as many episodes as run at one time are as long as ``context``."""
    import torch

    voice = next(iter(engine.voices))
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(settings.vocabulary, (settings.episodes, settings.context), generator=generator).tolist()
    engine.generate([Request(n, voice, row, 1) for n, row in enumerate(ids)], Sampling())
    held = engine.nbytes
    engine.forget(range(settings.episodes))
    return held


if __name__ == "__main__":
    answer(lambda settings, shape, peer: _measure(InferenceBench(**settings), shape, peer))
