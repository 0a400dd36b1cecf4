"""Worlds that agents are evaluated in: a virtual API server, sets of queries, recorded calls that answer again."""
