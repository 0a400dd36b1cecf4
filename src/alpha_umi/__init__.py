"""α-UMi: a planner, a caller and a summarizer that share one backbone."""

__version__ = "0.1.0"
