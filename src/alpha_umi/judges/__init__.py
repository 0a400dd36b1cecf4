"""Judges: whether an answer solves its query, which of two is better, and how far a judge can be trusted."""
