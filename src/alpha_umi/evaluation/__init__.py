"""Scores and reports: static metrics, live pass rates, intervals, tables and plots."""
