"""How many workers fit: published examples, cases those rules get wrong, properties."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eqcctpro.errors import ResourceError
from eqcctpro.resources.calculators import (
    RAM_BUFFER_MB,
    MemorySettings,
    WorkerPlan,
    plan_workers,
)
from eqcctpro.resources.footprints import Footprint, find_footprint
from eqcctpro.resources.hardware import Gpu, Hardware

MUCH_RAM = 4_000_000.0


@pytest.fixture(autouse=True)
def no_calibration(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EQCCTPRO_CONFIG", str(tmp_path / "nothing"))


def machine(*gpus: float | tuple[float, float], ram: float = MUCH_RAM) -> Hardware:
    """GPUs as their total, or their total and free memory."""
    sizes = [size if isinstance(size, tuple) else (size, size) for size in gpus]
    return Hardware(
        cores=64,
        affinity=tuple(range(64)),
        core_limit=None,
        ram_total_mb=ram,
        ram_available_mb=ram,
        gpus=tuple(
            Gpu(index, "GPU", f"GPU-{index}", total, free, total - free)
            for index, (total, free) in enumerate(sizes)
        ),
    )


def known(model: str, device: str = "cuda") -> Footprint:
    footprint = find_footprint(model, "torch", device)  # type: ignore[arg-type]
    assert footprint is not None
    return footprint


def on_gpus(
    hardware: Hardware,
    model: str | Footprint,
    mode: str = "modelactor",
    requested: int = 100,
    **settings: Any,
) -> WorkerPlan:
    return plan_workers(
        hardware,
        known(model) if isinstance(model, str) else model,
        MemorySettings(**settings),
        mode=mode,  # type: ignore[arg-type]
        requested=requested,
        gpu_ids=tuple(gpu.index for gpu in hardware.gpus),
    )


class TestPublishedExamples:
    @pytest.mark.parametrize("total", [49_140.0, 81_920.0])
    def test_model_actors(self, total: float) -> None:
        plan = on_gpus(machine(total, total), "EQCCT/original", max_vram_mb=93_100)
        if total > 50_000:
            assert plan.vram_pool_mb == (46_550.0, 46_550.0)
            assert plan.theoretical_per_gpu == pytest.approx((16.9, 16.9), abs=0.05)
            assert plan.sentences == (
                "Requested 100 actors, created 24 (VRAM limited to 93100 MB, 2756 MB/actor)",
            )
        assert plan.vram_per_worker_mb == 2756
        assert plan.capacity_per_gpu == plan.workers_per_gpu == (12, 12)
        assert plan.workers == plan.in_flight == 24

    def test_ripper(self) -> None:
        plan = on_gpus(machine(81_920, 81_920), "EQCCT/original", "ripper", max_vram_mb=93_100)
        assert plan.vram_per_worker_mb == 2 * 1732
        assert plan.workers_per_gpu == (12, 12)
        assert plan.sentences[0].startswith("Requested 100 tasks, created 24 (VRAM limited to")

    def test_one_actor_in_a_pool_of_one(self) -> None:
        plan = on_gpus(machine(81_920), "EQCCT/original", max_vram_mb=2756)
        assert plan.workers == 1
        assert plan.sentences == (
            "Requested 100 actors, created 1 (VRAM limited to 2756 MB, 2756 MB/actor)",
        )

    def test_actors_on_the_cpu(self) -> None:
        plan = plan_workers(
            machine(ram=24_106),
            known("PhaseNet/original", "cpu"),
            MemorySettings(),
            mode="modelactor",
            requested=20,
        )
        assert plan.ram_per_worker_mb == 502 + RAM_BUFFER_MB
        assert plan.workers == int(0.90 * 24_106 / 2038) == 10
        assert plan.sentences == (
            "Requested 20 actors, created 10 (RAM limited to 21695 MB, 2038 MB/actor)",
        )


class TestWhereThePublishedRuleIsWrong:
    def test_a_single_gpu_without_vram_mb_works(self) -> None:
        plan = on_gpus(machine(24_576), "PhaseNet/original", requested=1)
        assert plan.workers_per_gpu == (1,)
        assert plan.gpu_shares == (1.0,)
        assert plan.sentences == ()

    def test_a_share_is_never_rounded_to_nothing(self) -> None:
        plan = on_gpus(machine(400_000.0), "PhaseNet/original", requested=150)
        assert plan.workers == 150
        assert plan.gpu_shares[0] > 0
        assert plan.gpu_shares[0] * 150 <= 1

    def test_a_model_that_needs_more_than_half_a_gpu_runs_once_on_it(self) -> None:
        half = replace(known("EQCCT/original"), vram_mb=6000.0, source="calibrated")
        plan = on_gpus(machine(10_000, 10_000), half)
        assert plan.workers_per_gpu == (1, 1)

    def test_the_users_cap_is_the_one_that_counts(self) -> None:
        footprint = known("PhaseNet/original", "cpu")
        plan = plan_workers(
            machine(ram=24_106),
            footprint,
            MemorySettings(ram_safety_cap=0.5),
            mode="modelactor",
            requested=20,
        )
        assert plan.ram_pool_mb == 12_053
        assert plan.workers == 5

    def test_available_memory_counts_not_what_others_fill(self) -> None:
        full = replace(machine(ram=64_000), ram_available_mb=5_000.0)
        footprint = known("PhaseNet/original", "cpu")
        plan = plan_workers(full, footprint, MemorySettings(), mode="ripper", requested=20)
        assert plan.workers == 2

    def test_memory_that_others_hold_on_a_gpu_is_not_shared_out(self) -> None:
        plan = on_gpus(machine((80_000, 10_000)), "PhaseNet/original")
        assert plan.vram_pool_mb == (pytest.approx(6_000),)
        assert plan.workers == int(6_000 * 0.75 / 1524)

    def test_gpus_of_different_size_hold_different_numbers(self) -> None:
        plan = on_gpus(machine(81_920, 24_576), "EQCCT/original")
        assert plan.workers_per_gpu == (21, 6)
        few = on_gpus(machine(81_920, 24_576), "EQCCT/original", requested=9)
        assert few.workers_per_gpu == (7, 2)

    def test_no_gpu_explains_itself(self) -> None:
        none = replace(machine(), gpu_note="there is no NVIDIA driver")
        plan = on_gpus(none, "PhaseNet/original")
        assert plan.workers == 0
        with pytest.raises(ResourceError, match="no NVIDIA driver"):
            plan.require_room()

    def test_a_gpu_that_is_not_there(self) -> None:
        plan = plan_workers(
            machine(24_000),
            known("PhaseNet/original"),
            MemorySettings(),
            mode="modelactor",
            requested=1,
            gpu_ids=(0, 3),
        )
        assert plan.sentences == ("GPU 3 is not there; there are [0].",)


class TestLimits:
    def test_too_little_memory_refuses_with_numbers(self) -> None:
        plan = plan_workers(
            machine(ram=400),
            known("PhaseNet/original", "cpu"),
            MemorySettings(),
            mode="modelactor",
            requested=2,
        )
        with pytest.raises(ResourceError, match=r"created 0 \(RAM limited to 360 MB") as refusal:
            plan.require_room()
        assert refusal.value.exit_code == 7
        assert refusal.value.hint

    def test_a_lone_worker_needs_no_buffer(self) -> None:
        plan = plan_workers(
            machine(ram=1000),
            known("PhaseNet/original", "cpu"),
            MemorySettings(),
            mode="modelactor",
            requested=8,
        )
        assert (plan.workers, plan.ram_per_worker_mb) == (1, 502)

    def test_memory_of_the_machine_bounds_workers_on_gpus(self) -> None:
        plan = on_gpus(machine(81_920, 81_920, ram=10_000), "PhaseNet/original")
        assert plan.workers == int(9_000 / (870 + RAM_BUFFER_MB)) == 3
        assert plan.workers_per_gpu == (2, 1)
        assert "RAM limited to 9000 MB" in plan.sentences[0]

    def test_vram_mb_is_each_workers_limit(self) -> None:
        plan = on_gpus(machine(81_920), "PhaseNet/original", vram_mb=5000)
        assert plan.workers == int(0.95 * 81_920 * 0.75 / 5000)
        assert plan.vram_limit_mb == (5000,)

    def test_vram_mb_below_what_the_model_needs(self) -> None:
        plan = on_gpus(machine(81_920), "PhaseNet/original", vram_mb=200)
        with pytest.raises(ResourceError, match="200 MB is less than the 500 MB"):
            plan.require_room()

    def test_measured_footprints_get_no_buffers(self) -> None:
        measured = Footprint("Any/one", "torch", "cuda", 900.0, vram_mb=1000.0)
        plan = on_gpus(machine(40_000), measured, requested=1000, cudnn_headroom=0.0)
        assert plan.workers == int(0.95 * 40_000 / 1000)
        ripped = on_gpus(machine(40_000), measured, "ripper", requested=1000)
        assert ripped.workers == int(0.95 * 40_000 * 0.9 / 1000)

    def test_larger_batches_need_more(self) -> None:
        measured = Footprint("A/b", "openvino", "cpu", 200.0, ram_per_window_mb=1.0, batch_size=32)
        assert measured.ram_for(132) == 300.0
        assert measured.ram_for(8) == measured.ram_for(None) == 200.0

    def test_the_cap_can_be_ignored(self) -> None:
        plan = plan_workers(
            machine(ram=10),
            known("PhaseNet/original", "cpu"),
            MemorySettings(ignore_ram_cap=True),
            mode="ripper",
            requested=12,
        )
        assert plan.workers == 12


sizes = st.tuples(st.floats(500, 200_000), st.floats(0, 1)).map(lambda s: (s[0], s[0] * s[1]))
gpu_inputs: dict[str, st.SearchStrategy[Any]] = {
    "gpus": st.lists(sizes, min_size=1, max_size=4),
    "ram": st.floats(100, 500_000),
    "model": st.sampled_from(["PhaseNet/original", "EQCCT/original", "GPD/original"]),
    "mode": st.sampled_from(["modelactor", "ripper"]),
    "requested": st.integers(1, 400),
    "vram_mb": st.none() | st.floats(100, 20_000),
    "max_vram_mb": st.none() | st.floats(100, 400_000),
    "gpu_vram_safety_cap": st.floats(0.05, 0.99),
    "cudnn_headroom": st.floats(0, 0.8),
    "ram_safety_cap": st.floats(0.05, 0.98),
}
gpu_cases = st.fixed_dictionaries(gpu_inputs)


def planned(case: dict[str, Any]) -> WorkerPlan:
    case = dict(case)
    hardware = machine(*case.pop("gpus"), ram=case.pop("ram"))
    return on_gpus(hardware, case.pop("model"), case.pop("mode"), case.pop("requested"), **case)


class TestProperties:
    @given(gpu_cases)
    def test_a_plan_never_exceeds_what_there_is(self, case: dict[str, Any]) -> None:
        plan = planned(case)
        assert plan.workers == sum(plan.workers_per_gpu) <= case["requested"]
        assert plan.workers * plan.ram_per_worker_mb <= plan.ram_pool_mb + 1e-6
        assert plan.ram_pool_mb <= case["ram"]
        if case["max_vram_mb"] is not None:
            assert sum(plan.vram_pool_mb) <= case["max_vram_mb"] + 1e-6
        for position, (total, free) in enumerate(case["gpus"]):
            count, limit = plan.workers_per_gpu[position], plan.vram_limit_mb[position]
            pool = plan.vram_pool_mb[position]
            assert count <= plan.capacity_per_gpu[position]
            assert count * limit <= pool + 1e-6
            assert count == 0 or limit >= known(case["model"]).vram_mb - 1e-6
            assert pool <= max(0.0, free - (1 - case["gpu_vram_safety_cap"]) * total) + 1e-6
            share = plan.gpu_shares[position]
            assert (share > 0) == (count > 0)
            assert share * count <= 1 + 1e-9

    @given(gpu_cases)
    def test_fewer_workers_than_asked_for_are_explained(self, case: dict[str, Any]) -> None:
        plan = planned(case)
        assert bool(plan.sentences) == (plan.workers < case["requested"])
        if plan.workers == 0:
            with pytest.raises(ResourceError, match=r"\d MB"):
                plan.require_room()

    @given(gpu_cases, st.sampled_from(sorted(gpu_inputs)), st.data())
    def test_more_of_anything_never_means_less(
        self, case: dict[str, Any], name: str, data: st.DataObject
    ) -> None:
        worse, better = dict(case), dict(case)
        factor = data.draw(st.floats(1, 3))
        if name == "gpus":
            which = data.draw(st.integers(0, len(case["gpus"]) - 1))
            gpus = list(case["gpus"])
            total, free = gpus[which]
            gpus[which] = (total, free + (total - free) * (1 - 1 / factor))
            better["gpus"] = gpus
        elif name in ("ram", "requested"):
            better[name] = type(case[name])(case[name] * factor)
        elif name == "max_vram_mb":
            worse[name] = case[name] or 1000.0
            better[name] = worse[name] * factor
        elif name in ("gpu_vram_safety_cap", "ram_safety_cap"):
            worse[name] = case[name] / factor
        elif name == "cudnn_headroom":
            better[name] = case[name] / factor
        elif name == "vram_mb":
            # Below the model's need nothing fits, and above it more for each means fewer.
            better[name] = max(case[name] or 0.0, known(case["model"]).vram_mb)
            worse[name] = better[name] * factor
        assert planned(better).workers >= planned(worse).workers

    @given(
        st.floats(0, 300_000),
        st.floats(0.01, 0.98),
        st.integers(1, 300),
        st.floats(0, 5000),
        st.floats(0, 5000),
        st.floats(10, 5000),
        st.booleans(),
    )
    def test_on_the_cpu(
        self,
        ram: float,
        cap: float,
        requested: int,
        waveforms: float,
        overhead: float,
        need: float,
        published: bool,
    ) -> None:
        footprint = Footprint(
            "A/b", "torch", "cpu", need, source="published" if published else "calibrated"
        )

        def workers(ram: float, waveforms: float, overhead: float) -> WorkerPlan:
            return plan_workers(
                machine(ram=ram),
                footprint,
                MemorySettings(ram_safety_cap=cap),
                mode="modelactor",
                requested=requested,
                waveforms_mb=waveforms,
                overhead_mb=overhead,
            )

        plan = workers(ram, waveforms, overhead)
        assert 0 <= plan.workers <= requested
        assert plan.workers * (need + waveforms) <= max(0.0, cap * ram - overhead) + 1e-6
        assert workers(ram * 1.5, waveforms, overhead).workers >= plan.workers
        assert workers(ram, waveforms * 1.5, overhead).workers <= plan.workers
        assert workers(ram, waveforms, overhead * 1.5).workers <= plan.workers
        fits = math.floor(max(0.0, cap * ram - overhead) / (need + waveforms))
        assert (plan.workers > 0) == (fits > 0)
