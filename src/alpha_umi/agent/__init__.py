"""The agent: planner, caller and summarizer at work on one transcript, and how it searches for an answer."""

from alpha_umi.agent.best_of_n import BestOfN
from alpha_umi.agent.chosen import ChosenStrategy, chosen_strategy
from alpha_umi.agent.dfsdt import Dfsdt
from alpha_umi.agent.episode import Episode
from alpha_umi.agent.limits import Limits, StopReason
from alpha_umi.agent.loop import run_episodes, run_one
from alpha_umi.agent.outcome import EpisodeOutcome, Event, MadeCall, OnEvent
from alpha_umi.agent.strategies import React, Strategy
from alpha_umi.agent.trace import Trace, open_trace, read_trace

__all__ = [
    "BestOfN",
    "ChosenStrategy",
    "Dfsdt",
    "Episode",
    "EpisodeOutcome",
    "Event",
    "Limits",
    "MadeCall",
    "OnEvent",
    "React",
    "StopReason",
    "Strategy",
    "Trace",
    "chosen_strategy",
    "open_trace",
    "read_trace",
    "run_episodes",
    "run_one",
]
