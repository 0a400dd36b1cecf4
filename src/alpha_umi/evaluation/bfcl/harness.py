"""Runs in the harness's own environment: makes our model known there, then hands over to its command line.

`python harness.py MODEL NAME generate|evaluate …`: the model's name at the endpoint, its name in the harness, and the
rest as of the `bfcl` command. The model is called at ``OPENAI_BASE_URL``, by the harness's handler for OpenAI's
function calling.
"""

from __future__ import annotations

import builtins
import json
import sys
from typing import Any

from bfcl_eval.__main__ import cli  # pyright: ignore[reportMissingImports]
from bfcl_eval.constants.model_config import (  # pyright: ignore[reportMissingImports]
    MODEL_CONFIG_MAPPING,
    ModelConfig,
)
from bfcl_eval.model_handler.api_inference.openai_completion import (  # pyright: ignore[reportMissingImports]
    OpenAICompletionsHandler,
)


class Handler(OpenAICompletionsHandler):
    """The harness's own, less a danger: it runs the calls of a conversation as Python, in the words of the model."""

    def decode_execute(self, result: Any, has_tool_call_tag: bool) -> Any:
        """The calls as the harness runs them.

        Raises:
            ValueError: A name that is no plain one, or Python's own; no tool of the benchmark has such a name.
        """
        for call in result:
            for name, arguments in call.items():
                keys = json.loads(arguments)
                if hasattr(builtins, name) or not all(map(str.isidentifier, (name, *keys))):
                    raise ValueError(f"{name!r} with {list(keys)} is no call of a tool")
        return super().decode_execute(result, has_tool_call_tag)


def main() -> None:
    """Registers the model that the first two arguments name, and runs the harness with the others."""
    _, model, name, *sys.argv[1:] = sys.argv
    MODEL_CONFIG_MAPPING[name] = ModelConfig(
        model_name=model,
        display_name=name,
        url="",
        org="",
        license="",
        model_handler=Handler,
        is_fc_model=True,
        underscore_to_dot=True,
    )
    cli()


if __name__ == "__main__":
    main()
