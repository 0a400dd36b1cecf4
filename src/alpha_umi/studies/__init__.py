"""The paper's experiments: every system trained and evaluated alike, and what the differences are worth."""
