"""The loop: batches, losses, and going on after an interruption as if there had been none."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from alpha_umi.errors import RunDirectoryError, UserError
from alpha_umi.training.batch import GROUPS, Batch, Row, collate
from alpha_umi.training.loop import StepReport, Trainer
from alpha_umi.training.nano import new_model
from alpha_umi.training.objective import RowObjective, TokenLosses
from alpha_umi.training.optimizer import Optimization
from alpha_umi.training.recipe import NanoShape
from alpha_umi.transcript import IGNORED

VOCABULARY = 300
SHAPE = NanoShape(hidden=32, layers=2, heads=2, kv_heads=1, intermediate=48, positions=256)
SETTINGS = {
    "muon": Optimization(optimizer="muon", learning_rate=1e-2, other_learning_rate=3e-3),
    "adamw": Optimization(optimizer="adamw", learning_rate=3e-3, weight_decay=0.1),
}


def model(seed: int = 0) -> PreTrainedModel:
    return new_model(SHAPE, VOCABULARY, seed)


def row(seed: int, length: int, group: str = "planner") -> Row:
    """A row whose first third is not in the loss."""
    rng = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, VOCABULARY, (length,), generator=rng).tolist()
    labels = [IGNORED if at < length // 3 else token for at, token in enumerate(ids)]
    return Row(ids, labels, [GROUPS.index(group)] * length)


def batches(step: int) -> Batch:
    groups = ("planner", "caller", "summarizer")
    return collate([row(10 * step + n, 20 + 3 * n + step, groups[n]) for n in range(3)])


# ---- batches


def test_labels_are_the_next_tokens():
    one = Row([5, 6, 7, 8], [IGNORED, IGNORED, 7, 8], [0, 0, 1, 2])
    batch = collate([one])
    assert batch.select[0].nonzero().flatten().tolist() == [1, 2]
    assert (batch.targets.tolist(), batch.group.tolist()) == ([7, 8], [1, 2])


def test_the_first_token_is_never_a_target():
    assert collate([Row([5, 6], [5, 6], [0, 0])]).targets.tolist() == [6]


@pytest.mark.parametrize(("lengths", "width"), [([1, 64], 64), ([65], 128), ([3, 129, 70], 192)])
def test_rows_are_padded_on_the_right_to_a_multiple_of_64(lengths: list[int], width: int):
    rows = [row(n, length) for n, length in enumerate(lengths)]
    batch = collate(rows)
    assert batch.ids.shape == (len(lengths), width)
    assert batch.tokens == len(lengths) * width
    for one, ids, select in zip(rows, batch.ids, batch.select, strict=True):
        assert ids[: len(one.ids)].tolist() == list(one.ids)
        assert not select[len(one.ids) - 1 :].any()


def test_weights_go_with_their_tokens():
    batch = collate([Row([5, 6, 7], [IGNORED, 6, 7], [0, 1, 2], [9.0, 0.5, 2.0]), row(0, 6)])
    assert batch.weight[:2].tolist() == [0.5, 2.0]
    assert set(batch.weight[2:].tolist()) == {1.0}


# ---- losses


def test_the_loss_of_a_batch_is_the_one_transformers_computes():
    rows = [row(n, length) for n, length in enumerate((40, 64, 23))]
    batch, net = collate(rows), model()
    labels = torch.full_like(batch.ids, IGNORED)
    for b, one in enumerate(rows):
        labels[b, : len(one.labels)] = torch.tensor(one.labels)
    with torch.no_grad():
        expected = net(input_ids=batch.ids, labels=labels).loss
        losses = TokenLosses(net)(batch.ids, batch.select, batch.targets)
    assert losses.shape == batch.targets.shape
    assert losses.mean() == pytest.approx(expected.item(), rel=1e-5)


def test_padding_changes_no_loss():
    one, net = row(1, 50), model()
    alone, together = collate([one]), collate([one, row(2, 190)])
    with torch.no_grad():
        a = TokenLosses(net)(alone.ids, alone.select, alone.targets)
        b = TokenLosses(net)(together.ids, together.select, together.targets)
    torch.testing.assert_close(a, b[: len(a)], rtol=1e-4, atol=1e-5)


def test_logits_of_loss_tokens_alone_give_the_same_losses_and_gradients():
    batch, found = batches(0), []
    for plain in (True, False):
        net = model()
        losses = TokenLosses(net)
        assert losses.plain, "a Llama's head is a plain one"
        losses.plain = plain
        values = losses(batch.ids, batch.select, batch.targets)
        values.mean().backward()
        found.append((values.detach(), [p.grad for p in net.parameters()]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_an_architecture_that_scales_its_logits_takes_the_long_way():
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, final_logit_softcapping=2.0)  # fmt: skip
    net, batch = Gemma2ForCausalLM(config).eval(), batches(0)
    losses = TokenLosses(net)
    assert not losses.plain
    with torch.no_grad():
        expected = F.cross_entropy(net(batch.ids).logits[batch.select].float(), batch.targets, reduction="none")
        torch.testing.assert_close(losses(batch.ids, batch.select, batch.targets), expected)


def test_a_step_reports_the_mean_loss_of_each_voice(tmp_path: Path):
    net, batch = model(), batches(0)
    with torch.no_grad():
        losses = TokenLosses(net)(batch.ids, batch.select, batch.targets)
    reports: list[StepReport] = []
    trainer(net, "adamw", 1, tmp_path).train(reports.append)
    assert set(reports[0].losses) == {"planner", "caller", "summarizer"}
    for name, value in reports[0].losses.items():
        assert value == pytest.approx(losses[batch.group == GROUPS.index(name)].mean().item(), rel=1e-5)
    assert reports[0].loss == pytest.approx(losses.mean().item(), rel=1e-5)
    assert (reports[0].tokens, reports[0].loss_tokens) == (batch.tokens, len(batch.targets))


def test_a_heavier_token_counts_more(tmp_path: Path):
    from dataclasses import replace

    batch = collate([row(1, 30)])
    weight = torch.ones(len(batch.targets))
    weight[0] = 1e6
    net = model()
    with torch.no_grad():
        first = TokenLosses(net)(batch.ids, batch.select, batch.targets)[0].item()
    reports: list[StepReport] = []
    Trainer(RowObjective(net, lambda step: replace(batch, weight=weight)), SETTINGS["adamw"], 1, tmp_path).train(
        reports.append
    )
    assert reports[0].loss == pytest.approx(first, rel=1e-3)


def test_training_makes_the_loss_fall(tmp_path: Path):
    reports: list[StepReport] = []
    Trainer(RowObjective(model(), lambda step: batches(0)), SETTINGS["muon"], 30, tmp_path).train(reports.append)
    assert reports[-1].loss < 0.7 * reports[0].loss


def test_no_steps_is_no_training(tmp_path: Path):
    with pytest.raises(UserError, match="at least one step, not 0"):
        trainer(model(), "adamw", 0, tmp_path)


# ---- checkpoints


def trainer(net: PreTrainedModel, optimizer: str, steps: int, folder: Path, every: float = 1e9) -> Trainer:
    return Trainer(RowObjective(net, batches), SETTINGS[optimizer], steps, folder, checkpoint_seconds=every)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_going_on_from_a_checkpoint_is_the_same_bit_for_bit(tmp_path: Path, optimizer: str):
    whole: list[StepReport] = []
    straight = trainer(model(), optimizer, 9, tmp_path / "straight")
    straight.train(whole.append)

    parts: list[StepReport] = []
    for stop, seed in (
        (3, 0),
        (7, 1),
        (9, 2),
    ):  # a new process would start from other weights: none of them may survive
        part = trainer(model(seed), optimizer, 9, tmp_path / "parts")
        part.train(parts.append, stop_at=stop)
        part.save()
    assert [(r.step, r.loss, r.losses) for r in parts] == [(r.step, r.loss, r.losses) for r in whole]
    for (name, a), b in zip(straight.model.named_parameters(), part.model.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert (part.counts.tokens, part.counts.loss_tokens, part.counts.flops) == (
        straight.counts.tokens, straight.counts.loss_tokens, straight.counts.flops,
    )  # fmt: skip


def test_what_was_done_after_the_last_checkpoint_is_done_again(tmp_path: Path):
    first = trainer(model(), "muon", 8, tmp_path)
    first.train(stop_at=3)
    first.save()
    lost: list[StepReport] = []
    first.train(lost.append, stop_at=6)
    again: list[StepReport] = []
    trainer(model(1), "muon", 8, tmp_path).train(again.append, stop_at=6)
    assert [(r.step, r.loss) for r in again] == [(r.step, r.loss) for r in lost]


def test_checkpoints_are_made_as_time_goes_by_and_one_is_kept(tmp_path: Path):
    trainer(model(), "adamw", 5, tmp_path / "c", every=0.0).train()
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["checkpoint-0000004"]


def test_a_checkpoint_holds_no_pickle(tmp_path: Path):
    one = trainer(model(), "muon", 4, tmp_path)
    one.train(stop_at=2)
    one.save()
    files = {path.name for path in (tmp_path / "checkpoint-0000002").iterdir()}
    assert files == {"model.safetensors", "optimizer.safetensors", "state.json"}


def test_a_torn_checkpoint_is_passed_over_and_replaced(tmp_path: Path):
    one = trainer(model(), "muon", 8, tmp_path)
    one.train(stop_at=3)
    one.save()
    shutil.copytree(tmp_path / "checkpoint-0000003", tmp_path / ".partial")
    (tmp_path / ".partial" / "model.safetensors").write_bytes(b"torn")
    again = trainer(model(1), "muon", 8, tmp_path)
    again.train(stop_at=4)
    assert again.step == 4
    again.save()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-0000004"]


def test_the_old_checkpoint_stays_until_the_new_one_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    one = trainer(model(), "adamw", 8, tmp_path)
    one.train(stop_at=2)
    one.save()
    one.train(stop_at=3)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("alpha_umi.training.checkpoint.write_json", full)
    with pytest.raises(UserError, match=r"can't write a checkpoint to .*No space left"):
        one.save()
    monkeypatch.undo()
    again = trainer(model(1), "adamw", 8, tmp_path)
    again.train(stop_at=3)
    assert again.step == 3


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def _other_shape(path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"model.norm.weight": torch.zeros(3)}, path)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("state.json", lambda path: path.write_text("{")),
        ("state.json", lambda path: path.write_text("{}")),
        ("state.json", Path.unlink),
        ("model.safetensors", _cut),
        ("model.safetensors", Path.unlink),
        ("model.safetensors", _other_shape),
        ("optimizer.safetensors", _cut),
        ("optimizer.safetensors", _other_shape),
        ("optimizer.safetensors", lambda path: path.write_bytes(b"")),
    ],
)
def test_a_damaged_checkpoint_is_named(tmp_path: Path, name: str, damage: Callable[[Path], object]):
    one = trainer(model(), "muon", 8, tmp_path)
    one.train(stop_at=2)
    one.save()
    damage(tmp_path / "checkpoint-0000002" / name)
    with pytest.raises(RunDirectoryError, match=r"checkpoint-0000002 can't be read .*remove it"):
        trainer(model(), "muon", 8, tmp_path).train()


def test_checkpoints_go_when_they_are_no_longer_needed(tmp_path: Path):
    one = trainer(model(), "adamw", 3, tmp_path / "c", every=0.0)
    one.train()
    one.discard_checkpoints()
    assert not (tmp_path / "c").exists()
