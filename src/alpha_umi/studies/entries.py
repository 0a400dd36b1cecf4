"""What a study consists of: one entry a system, size and seed, and what each is made from.

The systems of the paper's Table 1 are trained at equal data: every stage sees the same trajectories once (in a local
stage: every role does). Beside them stand the controls that tell what made a difference: compute, parameters, tokens
written, the roles themselves, their rationales, how stage 2 is done, and how large each role is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from alpha_umi.errors import UserError
from alpha_umi.studies.scales import Scale
from alpha_umi.transcript import Role


@dataclass(frozen=True)
class Train:
    """A run of its own.

    Attributes:
        recipe: Without ``out`` and ``stage_1``.
        stage_1: The entry whose global stage it starts from.
        flops_of: The entry whose training FLOPs its global stage spends too, in place of the recipe's budget.
    """

    recipe: Mapping[str, Any]
    stage_1: str | None = None
    flops_of: str | None = None


@dataclass(frozen=True)
class Compose:
    """A run put together from others' roles: by role, the entry and which of its roles plays it."""

    parts: Mapping[Role, tuple[str, Role]]


@dataclass(frozen=True)
class Search:
    """Another entry's run under another strategy; live only, as static steps know no strategy.

    Attributes:
        run: The entry.
        strategy: As typed; ``{n}`` is what makes it write about as much an episode as ``tokens_of``.
        tokens_of: The entry whose generated tokens an episode are to be matched.
    """

    run: str
    strategy: str
    tokens_of: str | None = None


@dataclass(frozen=True)
class Entry:
    """One system at one size with one seed.

    Attributes:
        system: Its name in tables.
        size: Of the backbone.
        seed: Of data, order and weights.
        about: What it is, in a line.
        plan: How it is made.
    """

    system: str
    size: str
    seed: int
    about: str
    plan: Train | Compose | Search

    @property
    def name(self) -> str:
        """Unique in a study."""
        return entry_name(self.system, self.size, self.seed)

    @property
    def needs(self) -> tuple[str, ...]:
        """Entries that must be there before."""
        match self.plan:
            case Train(_, stage_1, flops_of):
                return tuple(name for name in (stage_1, flops_of) if name)
            case Compose(parts):
                return tuple(dict.fromkeys(name for name, _ in parts.values()))
            case Search(run, _, tokens_of):
                return tuple(dict.fromkeys(name for name in (run, tokens_of) if name))

    def described(self) -> dict[str, Any]:
        """Everything that decides its result, as plain data."""
        return asdict(self) | {"plan": {"how": type(self.plan).__name__, **asdict(self.plan)}}


def entry_name(system: str, size: str, seed: int) -> str:
    """The name of an entry."""
    return f"{system}-{size}-seed{seed}"


PAPER = ("single", "single-multitask", "multi-one-stage", "umi-no-reuse", "umi")
"""The systems of the paper's Table 1."""

BOTH_SIZES = ("single", "multi-one-stage", "umi")


@dataclass(frozen=True)
class _Seed:
    """The entries of one seed."""

    scale: Scale
    seed: int
    entries: list[Entry] = field(default_factory=list)

    def name(self, system: str, size: str | None = None) -> str:
        return entry_name(system, size or self.scale.base, self.seed)

    def add(self, system: str, about: str, plan: Train | Compose | Search, size: str | None = None) -> None:
        self.entries.append(Entry(system, size or self.scale.base, self.seed, about, plan))

    def recipe(self, system: str, size: str | None = None, **more: Any) -> dict[str, Any]:
        """A recipe of the scale; keys in ``more`` replace its own, ``data`` is joined."""
        data = {"source": "toolworld", "seed": self.seed, **self.scale.data, **more.pop("data", {})}
        return {
            "task": "glpft", "system": system, "seed": self.seed, "data": data,
            "backbone": self.scale.backbones[size or self.scale.base], **self.scale.common, **more,
        }  # fmt: skip

    def stage(self, share: float = 1.0, first: float = 0.0) -> dict[str, Any]:
        """A stage from the base model, on a part of the trajectories."""
        n = self.scale.trajectories
        return {"trajectories": round(n * share), "first": round(n * first), "optimization": dict(self.scale.stage)}

    def local(self, share: float = 1.0, first: float = 0.0) -> dict[str, Any]:
        """A stage that goes on from a global one."""
        return self.stage(share, first) | {"optimization": dict(self.scale.local)}

    def paper(self, size: str | None, systems: tuple[str, ...]) -> None:
        """The systems of the paper's table."""
        whole, local = self.stage(), self.local()
        plans = {
            "single": ("one model, one voice", {"global_stage": whole}),
            "single-multitask": ("one model, three voices", {"global_stage": whole}),
            "multi-one-stage": ("three models, straight from the base", {"local_stage": whole}),
            "umi-no-reuse": (
                "GLPFT, the instructions split between the stages",
                {"global_stage": self.stage(0.5), "local_stage": self.local(0.5, 0.5)},
            ),
            "umi": ("GLPFT, both stages on the same instructions", {"global_stage": whole, "local_stage": local}),
        }
        for name in systems:
            about, stages = plans[name]
            self.add(name, about, Train(self.recipe(name.removesuffix("-no-reuse"), size, **stages)), size)

    def controls(self) -> None:
        """What else could have made the difference."""
        whole, umi, single = self.stage(), self.name("umi"), self.name("single")
        self.add(
            "single-compute", "one model, as many training FLOPs as umi",
            Train(self.recipe("single", global_stage=whole), flops_of=umi),
        )  # fmt: skip
        self.add(
            "single-tripled", "one model with about as many parameters as umi's three",
            Train(self.recipe("single", global_stage=whole, backbone=self.scale.tripled)),
        )  # fmt: skip
        self.add(
            "single-best-of-n", "single, as many generated tokens an episode as umi",
            Search(single, "best-of-n:n={n}", tokens_of=umi),
        )  # fmt: skip
        self.add(
            "umi-swapped", "umi's models, each in another role",
            Compose({"planner": (umi, "caller"), "caller": (umi, "summarizer"), "summarizer": (umi, "planner")}),
        )  # fmt: skip
        self.add(
            "umi-no-rationale", "umi, the planner writes its decision alone",
            Train(self.recipe("umi", data={"rationales": "drop"}, global_stage=whole, local_stage=self.local())),
        )  # fmt: skip
        for variant in ("lora", "alora"):
            adapted = {"trajectories": self.scale.trajectories, "variants": [variant]}
            adapted["adapter"] = {"optimization": dict(self.scale.adapters)}
            self.add(
                f"umi-{variant}", f"umi, stage 2 as {variant} adapters",
                Train(self.recipe("umi", local_stage=adapted), stage_1=umi),
            )  # fmt: skip
        for system in ("single", "umi"):
            self.add(f"{system}-dfsdt", f"{system} under DFSDT", Search(self.name(system), "dfsdt"))

    def mixed(self, larger: str) -> None:
        """A larger planner with a smaller caller and summarizer, and the other way round."""
        small, large = self.name("umi"), self.name("umi", larger)
        self.add(
            "umi-large-planner", f"umi, its planner from {larger}",
            Compose({"planner": (large, "planner"), "caller": (small, "caller"), "summarizer": (small, "summarizer")}),
        )  # fmt: skip
        self.add(
            "umi-large-caller", f"umi, its caller from {larger}",
            Compose({"planner": (small, "planner"), "caller": (large, "caller"), "summarizer": (small, "summarizer")}),
        )  # fmt: skip


def study_entries(scale: Scale, seeds: int) -> list[Entry]:
    """Every entry, in an order in which what is needed comes first; seed by seed, so that a first one is soon whole."""
    made = []
    for number in range(seeds):
        seed = _Seed(scale, number)
        seed.paper(None, PAPER)
        seed.controls()
        for size in list(scale.backbones)[1:]:
            seed.paper(size, BOTH_SIZES)
            seed.mixed(size)
        made += seed.entries
    return made


def chosen_entries(entries: list[Entry], only: list[str]) -> list[Entry]:
    """The entries of some systems, with those they need.

    Raises:
        UserError: There is no such system.
    """
    systems = dict.fromkeys(entry.system for entry in entries)
    unknown = [name for name in only if name not in systems]
    if unknown:
        raise UserError(f"--only {unknown[0]}: there is no such system; there are {', '.join(systems)}")
    named = {entry.name: entry for entry in entries}
    wanted = {name for entry in entries if entry.system in only for name in _with_needs(entry, named)}
    return [entry for entry in entries if entry.name in wanted]


def _with_needs(entry: Entry, named: Mapping[str, Entry]) -> Iterator[str]:
    yield entry.name
    for name in entry.needs:
        yield from _with_needs(named[name], named)
