"""The Berkeley Function-Calling Leaderboard, by its own harness (the package `bfcl-eval`) in its own environment."""
