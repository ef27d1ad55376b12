"""Does memory planning hold on a real GPU?

    python experiments/workbench/gpu_check.py [--model PhaseNet/original] [--actors 4] > FILE

Compares NVML's readings with nvidia-smi, measures a worker, plans with the measurement, runs
actors that share a GPU and watches what they take, and makes a batch exceed its limit.
Needs a CUDA device, nvidia-ml-py and weights of the model; without a device it says so and
ends with exit code 0.  Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from eqcctpro.config import PickConfig
from eqcctpro.errors import EQCCTProError
from eqcctpro.orchestration.placement import place_workers
from eqcctpro.orchestration.probe import measure_footprint
from eqcctpro.orchestration.run import run_picking
from eqcctpro.resources.footprints import save_footprints
from eqcctpro.resources.nvml import gpu_activity, read_gpus
from eqcctpro.synthetic.network import synthetic_network

# NVML and nvidia-smi are asked one after the other, on a device that others may use.
_ALIKE_MB = 1024.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="PhaseNet/original")
    parser.add_argument("--actors", type=int, default=4)
    parser.add_argument("--stations", type=int, default=60)
    options = parser.parse_args()
    gpus, reason = read_gpus()
    report: dict[str, Any] = {"gpus": [asdict(gpu) for gpu in gpus], "reason": reason}
    if gpus and not _torch_sees_them():
        report["reason"] = "torch finds no CUDA device"
    if report["reason"]:
        print(json.dumps({"skipped": report["reason"]}, indent=1))
        return 0
    checks: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="eqcctpro-gpu-") as folder:
        os.environ["EQCCTPRO_CONFIG"] = f"{folder}/configuration"
        for name, check in _CHECKS.items():
            try:
                checks[name] = check(options, Path(folder))
            except (EQCCTProError, AssertionError) as error:
                checks[name] = {"ok": False, "error": f"{type(error).__name__}: {error}"}
            print(f"{name}: {'ok' if checks[name]['ok'] else 'FAILED'}", file=sys.stderr)
    print(json.dumps({**report, "checks": checks}, indent=1))
    return 0 if all(check["ok"] for check in checks.values()) else 1


def _torch_sees_them() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _readings(_: argparse.Namespace, __: Path) -> dict[str, Any]:
    if shutil.which("nvidia-smi") is None:
        return {"ok": True, "skipped": "there is no nvidia-smi"}
    said = subprocess.run(
        [
            "nvidia-smi",
            "--query-gpu=uuid,memory.total,memory.used",
            "--format=csv,noheader,nounits",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    rows = {
        row.split(", ")[0]: [float(x) for x in row.split(", ")[1:]] for row in said.splitlines()
    }
    pairs = [
        {"nvml": [gpu.total_mb, gpu.used_mb], "nvidia-smi": rows[gpu.uuid]}
        for gpu in read_gpus()[0]
    ]
    ok = all(
        abs(pair["nvml"][0] - pair["nvidia-smi"][0]) < 2
        and abs(pair["nvml"][1] - pair["nvidia-smi"][1]) < _ALIKE_MB
        for pair in pairs
    )
    return {"ok": ok, "pairs": pairs, "activity": [asdict(item) for item in gpu_activity()]}


def _footprint(options: argparse.Namespace, _: Path) -> dict[str, Any]:
    measured = measure_footprint(options.model, runtime="torch", device="cuda")
    save_footprints([measured])
    return {"ok": measured.vram_mb > measured.vram_context_mb > 0, "measured": asdict(measured)}


def _plan(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    gpu = read_gpus()[0][0]
    plan = place_workers(_config(options, folder, workers=10_000)).plan
    assert plan is not None
    needed = plan.workers * plan.vram_per_worker_mb
    return {"ok": 0 < needed <= gpu.free_mb, "plan": plan.as_dict()}


def _actors(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    synthetic_network(folder / "in", stations=options.stations, duration_s=300.0)
    alone = run_picking(_config(options, folder, mode="local", workers=None))
    shared = run_picking(_config(options, folder, workers=options.actors))
    found = shared.summary
    limit = sum(found["memory_plan"]["vram_pool_mb"])
    peak = sum(found["resources"]["peak_vram_mb"].values())
    return {
        "ok": shared.table.num_rows == alone.table.num_rows > 0 and peak <= limit,
        "picks": [alone.table.num_rows, shared.table.num_rows],
        "workers": found["workers"],
        "shares": found["memory_plan"]["gpu_shares"],
        "peak_vram_mb": peak,
        "pool_mb": limit,
        "resources": found["resources"],
        "adaptations": found["adaptations"],
    }


def _recovery(_: argparse.Namespace, __: Path) -> dict[str, Any]:
    import torch

    from eqcctpro.runtimes.torch_runtime import TorchRuntime

    class Greedy(torch.nn.Module):
        """Takes 32 MB for each window."""

        def forward(self, windows: torch.Tensor) -> torch.Tensor:
            waste = torch.zeros((len(windows), 32, 2**18), device=windows.device)
            return windows[:, :1, :2].transpose(1, 2) * 2 + waste[:, :1, :1]

    windows = np.random.default_rng(0).normal(size=(64, 3, 100)).astype(np.float32)
    runtime = TorchRuntime(Greedy(), batch_size=64, device="cuda", vram_mb=512)
    curves = runtime.predict(windows).copy()
    reserved = torch.cuda.max_memory_reserved() / 2**20
    notes = runtime.take_notes()
    runtime.close()
    exact = bool(np.allclose(curves[:, :, 0], windows[:, 0, :2] * 2))
    return {
        "ok": exact and bool(notes) and reserved <= 512,
        "notes": notes,
        "reserved_mb": reserved,
    }


def _config(options: argparse.Namespace, folder: Path, **settings: Any) -> PickConfig:
    values = {
        "input": folder / "in",
        "output": folder / "out",
        "model": options.model,
        "mode": "modelactor",
        "device": "cuda",
        "overview": False,
    }
    return PickConfig.checked(**(values | settings))


_CHECKS = {
    "readings": _readings,
    "footprint": _footprint,
    "plan": _plan,
    "actors": _actors,
    "recovery": _recovery,
}

if __name__ == "__main__":
    raise SystemExit(main())
