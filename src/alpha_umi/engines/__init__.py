"""What generates: the `Engine` protocol, the in-process transformers engine, and a scripted one for tests.

Import an engine from its own module (``alpha_umi.engines.local`` loads torch; this package does not).
"""

from alpha_umi.engines.base import Ending, Engine, Generation, Request, Sampling

__all__ = ["Ending", "Engine", "Generation", "Request", "Sampling"]
