"""`mmiln.functional` against its oracle, and what holds whatever memory, threads or state it is called in."""

import multiprocessing
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from functional_cases import (
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
from mmiln import functional as F
from reference import functional as oracle
from reference.ulgm import Ulgm

DOUBLE = torch.float64
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
EACH_OP = pytest.mark.parametrize("name", OPS)
DROPOUT = [name for name, op in OPS.items() if op.has_dropout]
NOISE = {"dropout": 0.3, "seed": 5}


def noisy(name: str, case: Case) -> Case:
    """The case, with dropout where the op has some."""
    return Case(case.width, case.lengths, NOISE if OPS[name].has_dropout else {})


@cache
def expected(name: str, case: Case) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return gradients(OPS[name], oracle, OPS[name].draw(case), case)


def check_values_and_gradients(name: str, case: Case, dtype: torch.dtype, device: str = "cpu") -> None:
    results, found = gradients(OPS[name], F, OPS[name].draw(case, dtype, device=device), case)
    for x in (*results.values(), *found.values()):
        assert x.dtype == dtype and x.device.type == device
    right = expected(name, case)
    assert_near(results, right[0], TOLERANCE[dtype])
    # LayerNorm of one channel: gradients of 0 are what is left of terms divided by the root of eps.
    floor = 1e-5**-0.5 if case.width == 1 and "norm" in name else 1e-2
    assert_near(found, right[1], TOLERANCE[dtype], floor)


OF_WIDTHS = pytest.mark.parametrize("width", [1, 7, 50, 64, 128])
OF_LENGTHS = pytest.mark.parametrize("lengths", [RAGGED, (1,)], ids=["ragged", "one frame"])
OVER_A_BATCH = ["cmd", "orthogonality", "orthogonality raw", "bigru_control", "mean_pool"]
BATCH_OF_32 = Case(50, tuple(1 + b % 5 for b in range(32)))


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
    """As wide as BERT's; the same bits in inference mode and under autocast, which is for others."""
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


OVER_TIME = ["conv1d of 5", "lstm", "bigru_control", "self attention", "gated_norm", "mean_pool"]


@pytest.mark.parametrize("name", OVER_TIME)
def test_an_utterance_is_read_by_itself(name: str) -> None:
    check_neighbours(name)


def check_neighbours(name: str, device: str = "cpu") -> None:
    """What lies before and after an utterance, NaN included, changes no bit of it."""
    op, case = OPS[name], Case(7, (4, 5, 3))
    inputs = op.draw(case, device=device)
    right = op.run(F, inputs, case)[0]
    poisoned = {k: x.clone() for k, x in inputs.items()}
    for x in poisoned.values():
        if len(x) == case.frames:
            x[:4], x[9:] = torch.nan, torch.nan
    actual = op.run(F, poisoned, case)[0]
    rows = slice(4, 9) if len(right) == case.frames else slice(1, 2)
    assert torch.equal(actual[rows], right[rows])


def transposed(x: Tensor) -> Tensor:
    axes = list(range(x.ndim))[::-1]
    return x.permute(axes).contiguous().permute(axes)


def strided(x: Tensor) -> Tensor:
    wide = x.new_full([2 * size for size in x.shape], torch.nan)
    view = wide[tuple(slice(1, None, 2) for _ in x.shape)]
    return view.copy_(x)


def unaligned(x: Tensor) -> Tensor:
    return torch.cat([x.new_full((1,), torch.nan), x.flatten()])[1:].view(x.shape)


@EACH_OP
@DTYPES
def test_strides_change_no_bit(name: str, dtype: torch.dtype) -> None:
    check_strides(name, dtype)


def check_strides(name: str, dtype: torch.dtype, device: str = "cpu") -> None:
    op, case = OPS[name], noisy(name, Case(50, (3, 1, 17)))
    inputs = op.draw(case, dtype, device=device)
    right = gradients(op, F, inputs, case)
    for layout in (transposed, strided, unaligned):
        given = {key: layout(x) for key, x in inputs.items()}
        before = {key: x.clone() for key, x in given.items()}
        for actual, contiguous in zip(gradients(op, F, given, case), right, strict=True):
            assert same_bits(actual, contiguous), layout.__name__
        assert same_bits(given, before)


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
        worker.join(timeout=60)
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
        assert receiver.poll(timeout=60), "the child hangs, or has died"
        assert receiver.recv() == right.tolist()
    finally:
        process.kill()
        process.join()


def kept_in_attention(heads: int = 4, frames: int = 16, batch: int = 6, **noise: Any) -> Tensor:
    """The factors on attention probabilities, (B, heads, T_q, T_k): each key's value names the key."""
    dtype = noise.pop("dtype", DOUBLE)
    query = torch.zeros(batch * frames, heads * frames, dtype=dtype)
    value = torch.eye(frames, dtype=dtype).repeat(batch, heads)
    mixed = F.attention(query, query, value, [frames] * batch, num_heads=heads, **noise)
    return mixed.view(batch, frames, heads, frames).transpose(1, 2) * frames


def kept_in_norm(name: str, frames: int = 96, width: int = 64, **noise: Any) -> Tensor:
    """Where 0 + dropout(1) was kept, (T, d), by what LayerNorm makes of it."""
    dtype = noise.pop("dtype", DOUBLE)
    zeros, ones = torch.zeros(frames, width, dtype=dtype), torch.ones(frames, width, dtype=dtype)
    if name == "feed_forward_norm":
        no_weight = [zeros.new_zeros(4 * width, width), zeros.new_zeros(4 * width)]
        second = [zeros.new_zeros(width, 4 * width), ones[0], ones[0], zeros[0]]
        normed = F.feed_forward_norm(zeros, *no_weight, *second, **noise)
    else:
        gates = {"compound": ones[:2], "retain": ones[:2]} if name == "gated_norm" else {}
        lengths = [frames // 2] * 2
        normed = F.gated_norm(ones, zeros, ones[0], zeros[0], lengths, **gates, **noise)
    return normed > 0


def kept(name: str, **noise: Any) -> Tensor:
    """Which elements dropout kept, one row an utterance and head or a frame."""
    if "attention" in name:
        return kept_in_attention(**noise).flatten(0, 1).flatten(1) > 0
    return kept_in_norm(name, **noise)


PLACES = ["self attention", "gated_norm", "gated_norm without gates", "feed_forward_norm"]


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


def check_adam(decoupled: bool, decay: float, dtype: torch.dtype, device: str = "cpu") -> None:
    draw = Draw(0)
    start, grads = draw(1001).to(device, dtype), draw(20, 1001).to(device, dtype)
    grads[:, :5] = 0
    peer = nn.Parameter(start.clone())
    optimizer = (torch.optim.AdamW if decoupled else torch.optim.Adam)([peer], lr=0.01, weight_decay=decay)
    weights = nn.Parameter(start.clone())
    first, second = torch.zeros_like(start), torch.zeros_like(start)
    version = weights._version
    for step, grad in enumerate(grads, start=1):
        peer.grad, given = grad, grad.clone()
        optimizer.step()
        settings = {"step": step, "lr": 0.01, "weight_decay": decay, "decoupled": decoupled}
        F.adam_(weights, given, first, second, **settings)
        assert torch.equal(given, grad)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-6}[dtype]
    state = optimizer.state[peer]
    right = {"weights": peer.detach(), "first": state["exp_avg"], "second": state["exp_avg_sq"]}
    assert_near(
        {"weights": weights.detach(), "first": first, "second": second},
        {name: x.cpu().double() for name, x in right.items()},
        tolerance,
    )
    assert weights._version > version  # or autograd could not know of the change


@DTYPES
@pytest.mark.parametrize("epoch", [2, 3, 10])
@pytest.mark.parametrize("rows", [1, 33])
def test_ulgm_labels(rows: int, epoch: int, dtype: torch.dtype) -> None:
    check_ulgm_labels(rows, epoch, dtype)


def check_ulgm_labels(rows: int, epoch: int, dtype: torch.dtype, device: str = "cpu") -> None:
    draw, dims = Draw(epoch), {"multimodal": 9, "audio": 4}
    state = Ulgm(rows, dims, label_bound=2.5)
    centres = {u: (draw(dim) + 1, draw(dim) - 1) for u, dim in dims.items()}
    features = {u: draw(rows, dim) + 0.5 for u, dim in dims.items()}
    label, old = draw(rows).clamp(-2.5, 2.5), draw(rows).clamp(-2.5, 2.5)
    state.centres = {u: (p.double().numpy(), n.double().numpy()) for u, (p, n) in centres.items()}
    state.labels = {"multimodal": label.double().numpy(), "audio": old.double().numpy().copy()}
    for row in range(rows):
        state._update_labels(epoch, row, {u: x[row].double().numpy() for u, x in features.items()})

    (positive, negative), (positive_m, negative_m) = centres["audio"], centres["multimodal"]
    given = {
        "old": old, "label": label,
        "features": features["audio"], "positive": positive, "negative": negative,
        "features_m": features["multimodal"], "positive_m": positive_m, "negative_m": negative_m,
    }  # fmt: skip
    given = {name: x.to(device, dtype).requires_grad_() for name, x in given.items()}
    actual = F.ulgm_labels(**given, epoch=epoch, bound=2.5)
    assert actual.dtype == dtype and not actual.requires_grad
    right = torch.from_numpy(state.labels["audio"])
    assert_near({"labels": actual}, {"labels": right}, TOLERANCE[dtype])
    assert torch.equal(given["old"].cpu(), old.to(dtype))
