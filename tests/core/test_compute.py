"""Devices and precisions by name."""

import pytest
import torch

from darkroom.core.compute import Compute, choose_device, native_bfloat16, sampling_compute, training_compute
from darkroom.core.conditions import Conditions, concatenate
from darkroom.core.errors import InputError


@pytest.mark.parametrize("name", ["tpu", "cuda:99", ""])
def test_unknown_or_absent_devices_are_refused(name: str) -> None:
    if name.startswith("cuda") and torch.cuda.is_available():
        pytest.skip("a CUDA device is present")
    with pytest.raises(InputError, match=r"device"):
        choose_device(name)


def test_precision_follows_the_machine_in_training_and_is_float32_in_sampling() -> None:
    cpu = torch.device("cpu")
    expected = torch.bfloat16 if native_bfloat16(cpu) else torch.float32
    assert training_compute("cpu").dtype == expected
    assert training_compute("cpu", "bfloat16").dtype == torch.bfloat16
    assert sampling_compute("cpu").dtype == torch.float32
    assert sampling_compute("cpu", "float16").dtype == torch.float16
    with pytest.raises(InputError, match="precision 'int8'"):
        sampling_compute("cpu", "int8")


def test_autocast_acts_only_when_asked() -> None:
    a = torch.randn(4, 4)
    with Compute(torch.device("cpu")).autocast():
        assert (a @ a).dtype == torch.float32
    with Compute(torch.device("cpu"), torch.bfloat16).autocast():
        assert (a @ a).dtype == torch.bfloat16
    placed = Compute(torch.device("cpu")).place(torch.randn(2, 3, 4, 5))
    assert placed.is_contiguous(memory_format=torch.channels_last)


def test_conditions_join_port_by_port() -> None:
    one = Conditions(tokens=torch.zeros(1, 2, 3), vector=torch.zeros(1, 4))
    two = Conditions(tokens=torch.ones(2, 2, 3), vector=torch.ones(2, 4))
    both = concatenate([one, two])
    assert both.tokens is not None
    assert both.tokens[:, 0, 0].tolist() == [0, 1, 1]
    assert both.planes is None
    assert concatenate([Conditions(), Conditions()]) == Conditions()
    with pytest.raises(InputError, match="all fill the port 'tokens'"):
        concatenate([one, Conditions(vector=torch.zeros(1, 4))])
    with pytest.raises(InputError, match=r"alike in 'tokens'; \(2, 3\) and \(5, 3\) came"):
        concatenate([one, Conditions(tokens=torch.zeros(1, 5, 3), vector=torch.zeros(1, 4))])


def test_float32_on_cuda_switches_tf32_off_and_nothing_else() -> None:
    cudnn = torch.backends.cudnn
    before = cudnn.enabled, cudnn.benchmark, cudnn.deterministic
    for context in (Compute(torch.device("cuda")).autocast, Compute(torch.device("cuda")).gradients):
        with context():
            assert (cudnn.enabled, cudnn.benchmark, cudnn.deterministic) == before
            assert not cudnn.allow_tf32
