"""The device that a name stands for."""

import pytest
import torch
from checks import refusal

from mop.training.devices import choose_device


def test_mps_falls_back_to_the_cpu_with_a_line(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.warns(UserWarning, match="mps"):
        assert choose_device("mps").type == "cpu"


def test_mps_is_used_where_torch_has_it(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", lambda *sizes, device: asked.append(device.type))
    assert choose_device("mps").type == "mps" and asked == ["mps"]


def test_other_devices_are_refused_in_a_line():
    for name in ("xpu", "nowhere", "", "cuda:99", "meta"):
        assert repr(name) in refusal(choose_device, name)
