"""The agent: planner, caller and summarizer at work on one transcript."""

from alpha_umi.agent.limits import Limits, StopReason
from alpha_umi.agent.loop import Episode, EpisodeOutcome, Event, run_episodes, run_one

__all__ = ["Episode", "EpisodeOutcome", "Event", "Limits", "StopReason", "run_episodes", "run_one"]
