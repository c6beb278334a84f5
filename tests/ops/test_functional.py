"""`mmiln.functional` against its oracle, and its independence of memory layout, threads and state."""

import multiprocessing
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmiln import functional as F
from reference import functional as oracle
from support.functional_cases import (
    OPS,
    RAGGED,
    TINY,
    Case,
    Draw,
    Op,
    assert_near,
    gradients,
    same_bits,
    threads,
)
from support.functional_checks import (
    BATCH_OF_32,
    DROPOUT,
    DTYPES,
    EACH_OP,
    OF_LENGTHS,
    OF_WIDTHS,
    OVER_A_BATCH,
    OVER_TIME,
    PLACES,
    TOLERANCE,
    check_adam,
    check_neighbours,
    check_strides,
    check_ulgm_labels,
    check_values_and_gradients,
    kept,
    kept_in_attention,
    kept_in_norm,
    noisy,
)
from support.waiting import HANG_S


@EACH_OP
@DTYPES
@OF_LENGTHS
@OF_WIDTHS
def test_values_and_gradients(name: str, width: int, lengths: tuple[int, ...], dtype: torch.dtype) -> None:
    check_values_and_gradients(name, Case(width, lengths), dtype)


@DTYPES
@pytest.mark.parametrize(("width", "heads"), [(50, 5), (40, 2), (128, 2), (100, 1), (200, 1)])
def test_attention_of_heads_of_all_widths(width: int, heads: int, dtype: torch.dtype) -> None:
    queries, keys = (40, 3, 33), (9, 50, 1)

    def inputs(draw: Draw, case: Case) -> dict[str, Tensor]:
        frames = {"query": sum(queries), "key": sum(keys), "value": sum(keys)}
        return {name: draw(count, case.width) for name, count in frames.items()}

    op = Op(inputs, lambda f, t, _: f.attention(*t.values(), queries, keys, num_heads=heads))
    case = Case(width, queries)
    found = gradients(op, F, op.draw(case, dtype), case)
    for actual, right in zip(found, gradients(op, oracle, op.draw(case), case), strict=True):
        assert_near(actual, right, TOLERANCE[dtype])


@DTYPES
@pytest.mark.parametrize("name", OVER_A_BATCH)
def test_a_batch_of_32(name: str, dtype: torch.dtype) -> None:
    check_values_and_gradients(name, BATCH_OF_32, dtype)


@DTYPES
@pytest.mark.parametrize("name", ["linear", "linear relu", "linear sigmoid", "linear gelu"])
def test_wide_maps(name: str, dtype: torch.dtype) -> None:
    """Maps of BERT's width; inference mode and autocast (meant for torch's operations) change no bit."""
    case = Case(200, (3, 1, 40))
    check_values_and_gradients(name, case, dtype)
    inputs = OPS[name].draw(case, dtype)
    results, found = gradients(OPS[name], F, inputs, case)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(OPS[name].run(F, inputs, case)[0], results["0"])
    with torch.autocast("cpu", torch.bfloat16):
        assert same_bits(gradients(OPS[name], F, inputs, case)[1], found)
    alone = OPS[name].variables(inputs)[1:]
    assert same_bits(gradients(OPS[name], F, inputs, case, alone)[1], {key: found[key] for key in alone})


@pytest.mark.parametrize("name", OVER_TIME)
def test_an_utterance_is_read_by_itself(name: str) -> None:
    check_neighbours(name)


@EACH_OP
@DTYPES
def test_strides_change_no_bit(name: str, dtype: torch.dtype) -> None:
    check_strides(name, dtype)


@EACH_OP
@DTYPES
def test_threads_and_repetition_change_no_bit(name: str, dtype: torch.dtype) -> None:
    op, case = OPS[name], noisy(name, Case(64, RAGGED))
    inputs = op.draw(case, dtype)
    right = gradients(op, F, inputs, case)
    for count in (1, 2, 2):
        with threads(count):
            again = gradients(op, F, inputs, case)
        assert all(same_bits(a, b) for a, b in zip(again, right, strict=True))


@EACH_OP
def test_no_global_state_is_read_or_changed(name: str) -> None:
    op, case = OPS[name], noisy(name, TINY)
    inputs = op.draw(case, torch.float32)
    right = gradients(op, F, inputs, case)
    with torch.random.fork_rng():
        torch.manual_seed(12)
        state = torch.get_rng_state()
        with torch.autocast("cpu", torch.bfloat16):
            actual = gradients(op, F, inputs, case)
        assert torch.equal(torch.get_rng_state(), state)
    assert all(same_bits(a, b) for a, b in zip(actual, right, strict=True))
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        actual = op.run(F, inputs, case)
    finally:
        torch.set_default_dtype(default)
    assert same_bits({str(i): y for i, y in enumerate(actual)}, right[0])


def test_other_threads_of_python() -> None:
    case = Case(50, (40, 1, 17))
    names = ["conv1d of 3", "lstm", "bigru_control", "self attention", "feed_forward_norm"]
    inputs = {name: OPS[name].draw(case) for name in names}
    right = {name: gradients(OPS[name], F, inputs[name], case) for name in names}
    found: dict[str, Any] = {}

    def work(name: str) -> None:
        found[name] = gradients(OPS[name], F, inputs[name], case)

    workers = [threading.Thread(target=work, args=(name,), daemon=True) for name in names]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(HANG_S)
    assert found.keys() == right.keys()
    for name in names:
        assert all(same_bits(a, b) for a, b in zip(found[name], right[name], strict=True))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("name", ["linear relu", "bigru_control", "self attention"])
def test_a_forked_child(name: str) -> None:
    op, inputs = OPS[name], OPS[name].draw(TINY)
    large = Case(64, RAGGED)
    with threads(2):
        gradients(op, F, op.draw(large), large)
    right = op.run(F, inputs, TINY)[0]
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def child() -> None:
        sender.send(op.run(F, inputs, TINY)[0].tolist())

    process = context.Process(target=child, daemon=True)
    process.start()
    try:
        assert receiver.poll(HANG_S), "the child hangs, or has died"
        assert receiver.recv() == right.tolist()
    finally:
        process.kill()
        process.join()


def differing(a: Tensor, b: Tensor) -> float:
    return (a != b).double().mean().item()


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_is_by_seed(name: str, p: float) -> None:
    mask = kept(name, dropout=p, seed=1)
    assert mask.numel() > 6000
    assert mask.double().mean().item() == pytest.approx(1 - p, abs=0.025)
    assert differing(mask, kept(name, dropout=p, seed=1)) == 0
    assert differing(mask, kept(name, dropout=p, seed=1, dtype=torch.float32)) == 0
    independent = pytest.approx(2 * p * (1 - p), abs=0.03)
    for seed in (0, 2, 1 + 2**32):
        assert differing(mask, kept(name, dropout=p, seed=seed)) == independent
    # Utterances, heads and frames have masks of their own.
    assert len(mask.unique(dim=0)) == len(mask)
    assert differing(mask[1:], mask[:-1]) == independent


@DTYPES
def test_kept_probabilities_are_scaled(dtype: torch.dtype) -> None:
    factors = kept_in_attention(dropout=0.3, seed=1, dtype=dtype)
    ones = factors[factors > 0] * 0.7
    torch.testing.assert_close(ones, torch.ones_like(ones), rtol=1e-6, atol=0)
    assert factors.mean().item() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("name", DROPOUT)
@pytest.mark.parametrize(("p", "tolerance"), [(0.5, 1e-9), (0.3, 1e-6)])
def test_dropout_where_the_mask_says(name: str, p: float, tolerance: float) -> None:
    """Values and gradients are the oracle's under the mask that other inputs of the same sizes show."""
    noise = {"dropout": p, "seed": 3}
    if "attention" in name:
        case = Case(64, (16,) * 6)
        keep = kept_in_attention(heads=case.heads, **noise)
    else:
        case = Case(64, (48, 48))
        keep = kept_in_norm(name, **noise) / (1 - p)
    op, inputs = OPS[name], OPS[name].draw(case)
    results = gradients(op, F, inputs, Case(case.width, case.lengths, noise))
    right = gradients(op, oracle, inputs, Case(case.width, case.lengths, {"keep": keep}))
    for actual, masked in zip(results, right, strict=True):
        assert_near(actual, masked, tolerance)


@pytest.mark.parametrize("name", DROPOUT)
def test_without_dropout_the_seed_is_not_read(name: str) -> None:
    op, inputs = OPS[name], OPS[name].draw(TINY)
    seeded = Case(TINY.width, TINY.lengths, {"dropout": 0.0, "seed": 7})
    assert torch.equal(op.run(F, inputs, TINY)[0], op.run(F, inputs, seeded)[0])


@pytest.mark.parametrize(
    "form",
    [
        tuple,
        np.array,
        torch.tensor,
        lambda n: np.array(n, np.uint8),
        lambda n: torch.tensor(n, dtype=torch.int32),
        lambda n: [np.int64(length) for length in n],
        lambda n: list(torch.tensor(n)),
        lambda n: np.repeat(n, 2)[::2],
    ],
    ids=["tuple", "array", "tensor", "uint8", "int32", "numpy ints", "tensors", "strided"],
)
def test_forms_of_lengths(form: Callable[[list[int]], Any]) -> None:
    x = Draw(0)(6, 4)
    assert torch.equal(F.mean_pool(x, form([2, 1, 3])), F.mean_pool(x, [2, 1, 3]))


class Small(nn.Module):
    """Most of the ops in a row, a score for each utterance."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gru = nn.Conv1d(5, 8, 3), nn.GRU(8, 8, bidirectional=True)
        self.gate, self.source = nn.Linear(8, 8), nn.Linear(8, 8)
        self.inner, self.outer, self.head = nn.Linear(8, 32), nn.Linear(32, 8), nn.Linear(8, 1)
        self.norms = nn.ModuleList([nn.LayerNorm(8), nn.LayerNorm(8)])

    def forward(self, frames: Tensor, lengths: list[int], seed: int) -> Tensor:
        noise = {"dropout": 0.1 if self.training else 0.0, "seed": seed}
        x = F.conv1d(frames, self.conv.weight, self.conv.bias, lengths)
        control = F.bigru_control(x, self.gru.parameters(), lengths)
        gate = F.linear(control, self.gate.weight, self.gate.bias, "sigmoid")
        source, _ = F.source_gate(x, self.source.weight, self.source.bias)
        r = F.attention(x, source, source, lengths, num_heads=2, **noise)
        first, second = self.norms
        gates = {"compound": gate, "retain": gate}
        y = F.gated_norm(r, x, first.weight, first.bias, lengths, **gates, **noise)
        parameters = [*self.inner.parameters(), *self.outer.parameters(), *second.parameters()]
        y = F.mean_pool(F.feed_forward_norm(y, *parameters, **noise), lengths)
        return F.linear(y, self.head.weight, self.head.bias).squeeze(1)


def test_training_of_a_module() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Small()
    draw, lengths = Draw(0), [4, 1, 7, 2]
    frames, label = draw(14, 5), draw(4)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    start = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    losses = []
    for step in range(20):
        optimizer.zero_grad()
        loss = F.task_loss(model(frames, lengths, seed=step), label)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    assert all(not torch.equal(weight, start[name]) for name, weight in model.named_parameters())
    model.eval()
    with torch.inference_mode():
        assert torch.equal(model(frames, lengths, seed=0), model(frames, lengths, seed=1))


@DTYPES
@pytest.mark.parametrize("decoupled", [False, True], ids=["Adam", "AdamW"])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam_is_that_of_torch(decoupled: bool, decay: float, dtype: torch.dtype) -> None:
    check_adam(decoupled, decay, dtype)


@DTYPES
@pytest.mark.parametrize("epoch", [2, 3, 10])
@pytest.mark.parametrize("rows", [1, 33])
def test_ulgm_labels(rows: int, epoch: int, dtype: torch.dtype) -> None:
    check_ulgm_labels(rows, epoch, dtype)
