"""A checkpoint that continues texts: what engines that word their prompts themselves share.

Nothing is cached between calls. Prompts are tokenized whole, with whatever the tokenizer puts before a text, and cut
from the left; a special token that is written out in a prompt becomes that token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from alpha_umi.engines.base import Ending, Sampling, Uncached

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_BATCH = 8


class AsWritten(Uncached):
    """An engine that shows a model its earlier turns as it wrote them, not as they were read."""

    def __init__(self) -> None:
        self._written: dict[int, dict[str, str]] = {}

    def written(self, session: int) -> Mapping[str, str]:
        """A session's turns as they were written, by what was read of them."""
        return self._written.get(session, {})

    def keep(self, session: int, read: str, written: str) -> None:
        """Remembers how the turn was worded of which ``read`` was read."""
        self._written.setdefault(session, {})[read] = written

    def forget(self, sessions: Iterable[int]) -> None:
        """Forgets how the sessions' turns were worded."""
        for session in sessions:
            self._written.pop(session, None)


@dataclass(frozen=True)
class Continuation:
    """What followed a prompt.

    Attributes:
        text: Up to the end token, without it.
        ended: `Ending.END` if the end token came, `Ending.LENGTH` if not.
        read: Tokens of the prompt that were read.
    """

    text: str
    ended: Ending
    read: int


@dataclass(frozen=True)
class Checkpoint:
    """A causal language model and its tokenizer, whose end-of-text token ends what it writes."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def continuations(
        self, prompts: Sequence[str], sampling: Sampling, max_input: int, max_new_tokens: int, attempt: int = 0
    ) -> list[Continuation]:
        """What follows each prompt; several are generated together.

        Args:
            prompts: Of any length.
            sampling: Its temperature, ``top_p`` and seed; what is drawn depends on which prompts come together.
            max_input: Tokens a prompt is cut to, from the left.
            max_new_tokens: Longest continuation.
            attempt: Another one draws other tokens.
        """
        rows = [self._ids(prompt)[-max_input:] for prompt in prompts]
        made: list[Continuation] = []
        for at in range(0, len(rows), _BATCH):
            made += self._batch(rows[at : at + _BATCH], sampling, max_new_tokens, attempt)
        return made

    def _ids(self, text: str) -> list[int]:
        ids = self.tokenizer(text)["input_ids"]
        assert isinstance(ids, list)
        return ids

    def _batch(
        self, rows: Sequence[list[int]], sampling: Sampling, max_new_tokens: int, attempt: int
    ) -> Iterator[Continuation]:
        import torch

        width = max(map(len, rows))
        end = cast("int", self.tokenizer.eos_token_id)
        device = self.model.device
        ids = torch.tensor([[end] * (width - len(row)) + row for row in rows], device=device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
        chosen: dict[str, Any] = {"do_sample": False}
        if sampling.temperature > 0:
            chosen = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p}
            torch.manual_seed(sampling.seed + attempt)
        with torch.inference_mode():
            out = self.model.generate(  # pyright: ignore[reportCallIssue]
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=max_new_tokens,
                eos_token_id=end,
                pad_token_id=end,
                **chosen,
            )
        for row, written in zip(rows, out[:, width:].tolist(), strict=True):
            yield self._cut(written, end, len(row))

    def _cut(self, written: list[int], end: int, read: int) -> Continuation:
        finished = end in written
        text = self.tokenizer.decode(
            written[: written.index(end)] if finished else written, clean_up_tokenization_spaces=False
        )
        assert isinstance(text, str)
        return Continuation(text, Ending.END if finished else Ending.LENGTH, read)


def load_checkpoint(name: str, dtype: torch.dtype, device: torch.device) -> Checkpoint:
    """Loads a checkpoint by directory or hub id.

    Raises:
        UserError: It can't be loaded.
    """
    import torch

    from alpha_umi.run_directory import load_bare_tokenizer, load_model

    model = load_model(name)
    torch.nn.Module.to(model, device=device, dtype=dtype)
    return Checkpoint(model.eval(), load_bare_tokenizer(name))
