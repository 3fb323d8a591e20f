"""Data sheets, measured shares, and what stands in for those that nobody measured."""

from __future__ import annotations

import statistics

import pytest

from infermax_gym.cost.roofline.devices import DeviceError, all_reduce_of, efficiency_of, known_devices


def test_every_device_has_a_source() -> None:
    devices = known_devices()
    assert len(devices) >= 20
    for name, device in devices.items():
        assert name == device.name and device.source
        assert device.memory_gib > 0 and device.memory_tb_per_s > 0 and device.dense_16bit_tflops > 0
        assert (device.link is None) == (device.link_gb_per_s is None)


def test_data_sheets() -> None:
    h100 = known_devices()["h100"]
    assert (h100.dense_16bit_tflops, h100.dense_fp8_tflops, h100.dense_fp4_tflops) == (989, 1978, None)
    assert (h100.memory_tb_per_s, h100.memory_gib, h100.link_gb_per_s) == (3.35, 80, 450)


def test_measured_shares_come_first() -> None:
    efficiency = efficiency_of(known_devices()["h100"])
    assert (efficiency.memory_share, efficiency.compute_share_16bit) == (0.90, 0.84)
    assert set(efficiency.assumed) == {"prefill_walk_us", "mixed_decode_factor_per_head"}
    assert efficiency.prefill_walk_us == efficiency.mixed_decode_factor_per_head == 0.0


def test_the_family_stands_in() -> None:
    efficiency = efficiency_of(known_devices()["h200"])
    assert efficiency.memory_share == 0.90 and efficiency.assumed["memory_share"] == "median of hopper"
    assert efficiency.compute_share_16bit == 0.83 and "compute_share_16bit" not in efficiency.assumed


def test_all_devices_stand_in_for_a_family_that_nobody_measured() -> None:
    efficiency = efficiency_of(known_devices()["mi300x"])
    assert efficiency.assumed["decode_share"] == "median of all measured"
    assert efficiency.decode_share == statistics.median([0.77, 0.91, 0.88, 0.90, 0.80])


def test_all_reduce() -> None:
    devices = known_devices()
    found = all_reduce_of(devices["h100"], 4)
    assert found.latency_s == pytest.approx(8.8e-6) and found.assumed == ""
    assert found.seconds_per_byte == pytest.approx(1.5 / (0.55 * 450e9))
    assert all_reduce_of(devices["h200"], 4).assumed == "median of devices with nvlink"
    assert all_reduce_of(devices["l4"], 2).latency_s == pytest.approx((5.1 + 6.2) / 2 * 1e-6 + 4e-6)
    assert all_reduce_of(devices["h100"], 3).latency_s == found.latency_s


def test_groups_that_are_refused() -> None:
    devices = known_devices()
    with pytest.raises(DeviceError, match="gaudi3: its bandwidth between devices is not known"):
        all_reduce_of(devices["gaudi3"], 2)
    with pytest.raises(DeviceError, match="16 devices: at most 8 of one machine"):
        all_reduce_of(devices["h100"], 16)
