"""ToolWorld."""

from alpha_umi.toolworld.catalogue import Catalogue, load_catalogue
from alpha_umi.toolworld.checker import Outcome, Verdict, check
from alpha_umi.toolworld.oracle import solve
from alpha_umi.toolworld.splits import SPLITS, make_tasks, split_trajectories
from alpha_umi.toolworld.tasks import KINDS, Fault, Task
from alpha_umi.toolworld.world import World, fault_text

__all__ = [
    "KINDS",
    "SPLITS",
    "Catalogue",
    "Fault",
    "Outcome",
    "Task",
    "Verdict",
    "World",
    "check",
    "fault_text",
    "load_catalogue",
    "make_tasks",
    "solve",
    "split_trajectories",
]
