"""Every op of `mmiln.functional` on a card: the oracle's numbers, the CPU's dropout, the same bits again."""

import pytest
import torch

from mmiln import functional as F
from mmiln.errors import DeviceError
from support import kernels
from support.functional_cases import OPS, RAGGED, Case, assert_near, gradients, same_bits
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
    check_backward_twice,
    check_inputs_alone,
    check_neighbours,
    check_one_result,
    check_several_places,
    check_strides,
    check_ulgm_labels,
    check_values_and_gradients,
    kept,
    noisy,
)


@EACH_OP
@DTYPES
@OF_LENGTHS
@OF_WIDTHS
def test_values_and_gradients(
    name: str, width: int, lengths: tuple[int, ...], dtype: torch.dtype, device: str
) -> None:
    """Within 1e-9 of the norm in float64, 1e-5 in float32, as on the CPU."""
    check_values_and_gradients(name, Case(width, lengths), dtype, device)


@DTYPES
@pytest.mark.parametrize("name", OVER_A_BATCH)
def test_a_batch_of_32(name: str, dtype: torch.dtype, device: str) -> None:
    check_values_and_gradients(name, BATCH_OF_32, dtype, device)


@EACH_OP
@DTYPES
def test_a_batch_of_128(name: str, dtype: torch.dtype, device: str) -> None:
    """More blocks than a card runs at a time; against the CPU, as the oracle would take long."""
    case = noisy(name, Case(50, tuple(1 + (7 * b) % 90 for b in range(128))))
    with kernels.of_the_cpu():
        right = gradients(OPS[name], F, OPS[name].draw(case), case)
    results = gradients(OPS[name], F, OPS[name].draw(case, dtype, device=device), case)
    for actual, expected in zip(results, right, strict=True):
        assert_near(actual, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("p", [0.1, 0.5])
@DTYPES
def test_dropout_keeps_what_the_cpu_keeps(name: str, p: float, dtype: torch.dtype, device: str) -> None:
    for seed in (0, 1, 1 + 2**32):
        noise = {"dropout": p, "seed": seed, "dtype": dtype}
        with kernels.of_the_cpu():
            right = kept(name, **noise)
        with torch.device(device):
            mask = kept(name, **noise)
        assert mask.device.type == device
        assert torch.equal(mask.cpu(), right)


@pytest.mark.parametrize("name", DROPOUT)
@DTYPES
def test_with_dropout_as_on_the_cpu(name: str, dtype: torch.dtype, device: str) -> None:
    """The same seed drops the same elements, gradients included; one more or less would show."""
    for width in (7, 50, 128):
        case = noisy(name, Case(width, RAGGED))
        with kernels.of_the_cpu():
            right = gradients(OPS[name], F, OPS[name].draw(case), case)
        found = gradients(OPS[name], F, OPS[name].draw(case, dtype, device=device), case)
        for actual, expected in zip(found, right, strict=True):
            assert_near(actual, expected, TOLERANCE[dtype])


@EACH_OP
@DTYPES
def test_repetition_changes_no_bit(name: str, dtype: torch.dtype, device: str) -> None:
    op, case = OPS[name], noisy(name, Case(64, RAGGED))
    inputs = op.draw(case, dtype, device=device)
    right = gradients(op, F, inputs, case)
    for _ in range(3):
        again = gradients(op, F, inputs, case)
        assert all(same_bits(a, b) for a, b in zip(again, right, strict=True))


@EACH_OP
@DTYPES
def test_strides_change_no_bit(name: str, dtype: torch.dtype, device: str) -> None:
    """An address that is not a multiple of a vector's size changes no bit either."""
    check_strides(name, dtype, device)


@pytest.mark.parametrize("name", OVER_TIME)
def test_an_utterance_is_read_by_itself(name: str, device: str) -> None:
    check_neighbours(name, device)


@EACH_OP
def test_each_input_alone_can_ask_for_a_gradient(name: str, device: str) -> None:
    check_inputs_alone(name, device)


@EACH_OP
def test_backward_twice(name: str, device: str) -> None:
    check_backward_twice(name, device)


@pytest.mark.parametrize("part", [0, 1])
def test_one_result_of_two(part: int, device: str) -> None:
    check_one_result(part, device)


def test_one_tensor_in_several_places(device: str) -> None:
    check_several_places(device)


@EACH_OP
def test_on_another_stream(name: str, card: str) -> None:
    """Launches go to the caller's current stream, in backward as well."""
    op, case = OPS[name], noisy(name, Case(50, RAGGED))
    inputs = op.draw(case, torch.float32, device=card)
    right = [{key: x.cpu() for key, x in part.items()} for part in gradients(op, F, inputs, case)]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    torch.cuda._sleep(200_000_000)  # some 0.1 s, for which a launch on the default stream would have to wait
    with torch.cuda.stream(side):
        found = [{key: x.cpu() for key, x in part.items()} for part in gradients(op, F, inputs, case)]
    assert all(same_bits(a, b) for a, b in zip(found, right, strict=True))


@DTYPES
@pytest.mark.parametrize("decoupled", [False, True], ids=["Adam", "AdamW"])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam_is_that_of_torch(decoupled: bool, decay: float, dtype: torch.dtype, device: str) -> None:
    check_adam(decoupled, decay, dtype, device)


@DTYPES
@pytest.mark.parametrize("epoch", [2, 3, 10])
@pytest.mark.parametrize("rows", [1, 33])
def test_ulgm_labels(rows: int, epoch: int, dtype: torch.dtype, device: str) -> None:
    check_ulgm_labels(rows, epoch, dtype, device)


def test_tensors_of_two_devices_are_refused(card: str) -> None:
    x, weight = torch.ones(2, 3, device=card), torch.ones(4, 3)
    with pytest.raises(DeviceError, match="one device"):
        F.linear(x, weight, weight[:, 0])
