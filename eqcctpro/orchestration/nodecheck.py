"""Check of cluster nodes before they are given work; it runs on each node itself."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import eqcctpro
from eqcctpro.errors import EQCCTProError, InputError, WeightsError, WorkerError
from eqcctpro.models.elsewhere import weights_here
from eqcctpro.models.export import export_key
from eqcctpro.models.weight_files import WeightFiles
from eqcctpro.orchestration.nodes import Node, on_node
from eqcctpro.orchestration.outputs import package_versions
from eqcctpro.places import is_address
from eqcctpro.resources.hardware import Hardware, read_hardware

__all__ = ["FileStamp", "NodeNeeds", "NodeReport", "check_nodes", "file_sample", "needs_of"]

#: A file, and its size and time of the last change in nanoseconds.
FileStamp = tuple[str, tuple[int, int]]

# Files that each node looks at: enough to find what is not mounted, or another copy.
FILES_LOOKED_AT = 100
# Problems of nodes that a message lists.
MOST_NAMED = 5
# In which a node must have answered: Ray starts a process there, and imports packages.
ANSWER_SECONDS = 120.0

# Whatever executes the network, these decide about the last digit of a pick.
ALWAYS_DECISIVE = ("eqcctpro", "numpy", "scipy", "pymseed")


@dataclass(frozen=True)
class NodeNeeds:
    """Requirements that a node must meet: input files, weights, package versions.

    Attributes
    ----------
    folder : str
        Where relative paths are meant from.
    files : tuple of (str, (int, int))
        Some input files, with size and time of the last change.
    weights : WeightFiles
    model : str
        Hash of the weights and of what is said of them.
    versions : dict of str to str
        Of packages that decide about a pick.
    source : str
        Hash of this package's source files.
    """

    folder: str
    files: tuple[FileStamp, ...]
    weights: WeightFiles
    model: str
    versions: dict[str, str]
    source: str


@dataclass(frozen=True)
class NodeReport:
    """Result of the check of one node.

    Attributes
    ----------
    problems : tuple of EQCCTProError
        Why it cannot be given work; empty if it can.
    hardware : Hardware or None
    processor : str
    """

    problems: tuple[EQCCTProError, ...]
    hardware: Hardware | None = None
    processor: str = ""
    gone: bool = field(default=False, compare=False)


def needs_of(
    weights: WeightFiles, runtimes: Sequence[str], files: Sequence[FileStamp]
) -> NodeNeeds:
    """Requirements that nodes must meet for a run of this process.

    Parameters
    ----------
    weights : WeightFiles
    runtimes : sequence of str
        Packages that execute the network.
    files : sequence of (str, (int, int))
        From `file_sample`.
    """
    decisive = {*ALWAYS_DECISIVE, *runtimes}
    versions = {name: text for name, text in package_versions().items() if name in decisive}
    return NodeNeeds(
        str(Path.cwd()), tuple(files), weights, export_key(weights), versions, source_hash()
    )


def file_sample(files: Sequence[FileStamp]) -> tuple[FileStamp, ...]:
    """Evenly spaced sample of the input files."""
    step = max(1, -(-len(files) // FILES_LOOKED_AT))
    return tuple({*files[::step], *files[-1:]})


@cache
def source_hash() -> str:
    """Hash of this package's source files on this machine."""
    root = Path(eqcctpro.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def check_nodes(ray: Any, nodes: Sequence[Node], needs: NodeNeeds) -> dict[str, NodeReport]:
    """Check every node against the needs of a run.

    Returns
    -------
    dict of str to NodeReport
        By the node's id; nodes that died meanwhile are left out.

    Raises
    ------
    InputError
        A node cannot read the input, or has other files there.
    ModelError
        A node has no such weights, or others.
    WorkerError
        A node has other versions of packages, or does not answer.
    """
    asked = {
        node.id: ray.remote(examine).options(num_cpus=0, max_retries=0, **on_node(node.id))
        for node in nodes
    }
    shared = ray.put(needs)
    pending = {node_id: function.remote(shared) for node_id, function in asked.items()}
    ray.wait(list(pending.values()), num_returns=len(pending), timeout=ANSWER_SECONDS)
    reports = {node.id: _report(ray, pending[node.id]) for node in nodes}
    bad = [(node, error) for node in nodes for error in reports[node.id].problems]
    if bad:
        said = [f"node {node.name}: {error.message}" for node, error in bad[:MOST_NAMED]]
        if len(bad) > MOST_NAMED:
            said.append(f"and {len(bad) - MOST_NAMED} more")
        hints = dict.fromkeys(error.hint for _, error in bad[:MOST_NAMED] if error.hint)
        raise type(bad[0][1])("; ".join(said), hint="; ".join(hints) or None)
    return {node_id: report for node_id, report in reports.items() if not report.gone}


def _report(ray: Any, reference: Any) -> NodeReport:
    errors = ray.exceptions
    try:
        report: NodeReport = ray.get(reference, timeout=0)
    except errors.GetTimeoutError:
        problem = WorkerError(
            f"no answer in {ANSWER_SECONDS:.0f} s",
            hint="see whether its file systems hang, or stop Ray there (ray stop)",
        )
        return NodeReport((problem,))
    except errors.RayTaskError as error:
        cause = getattr(error, "cause", None) or error
        gist = str(cause).strip().splitlines()[-1:] or [type(cause).__name__]
        return NodeReport((_not_installed(f"{type(cause).__name__}: {gist[0]}"),))
    except errors.RayError:
        return NodeReport((), gone=True)
    return report


def _not_installed(said: str) -> WorkerError:
    return WorkerError(
        f"eqcctpro {eqcctpro.__version__} cannot be used there: {said}",
        hint="install the same packages on every node, in the environment that runs Ray there",
    )


def examine(needs: NodeNeeds) -> NodeReport:
    """Check this machine against the needs; body of a Ray task."""
    problems = [*_versions(needs), *_weights(needs), *_files(needs)]
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        del os.environ["CUDA_VISIBLE_DEVICES"]  # Ray hides GPUs from tasks that book none
    return NodeReport(tuple(problems), read_hardware(), _processor())


def _versions(needs: NodeNeeds) -> list[EQCCTProError]:
    here = package_versions()
    differing = [
        f"{name} is {here.get(name, 'not there')}, not {wanted}"
        for name, wanted in needs.versions.items()
        if here.get(name) != wanted
    ]
    if not differing and source_hash() != needs.source:
        differing = [f"eqcctpro {eqcctpro.__version__} was built from other source files"]
    if not differing:
        return []
    return [
        WorkerError(
            ", ".join(differing),
            hint="install the same packages on every node, with the same constraints.txt",
        )
    ]


def _weights(needs: NodeNeeds) -> list[EQCCTProError]:
    try:
        found = weights_here(needs.weights)
    except EQCCTProError as error:
        return [error]
    if export_key(found) != needs.model:
        beside = found.metadata_path or found.weight_path
        return [
            WeightsError(
                f"{beside} describes the weights {found.name} otherwise than the file here",
                hint="copy it there, with the weights",
            )
        ]
    return []


def _files(needs: NodeNeeds) -> list[EQCCTProError]:
    hint = "mount the input on every node under the same path, or stop Ray on that node"
    for path, (size, mtime_ns) in needs.files:
        if is_address(path):
            continue  # as far from every node; whoever cannot reach it says so with the station
        try:
            with (Path(needs.folder) / path).open("rb") as file:
                status = os.fstat(file.fileno())
        except OSError as error:
            return [InputError(f"cannot read {path}: {error.strerror or error}", hint=hint)]
        if status.st_size != size:
            return [
                InputError(
                    f"{path} is another file there: {status.st_size} bytes, not {size}", hint=hint
                )
            ]
        if status.st_mtime_ns != mtime_ns:
            return [
                InputError(
                    f"{path} was changed at another time there",
                    hint="copies must keep the times of files (cp -p, rsync -a); " + hint,
                )
            ]
    return []


def _processor() -> str:
    """Name of this machine's processor; empty where it cannot be read."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    named = (line.partition(":") for line in lines if line.startswith("model name"))
    return next((name.strip() for _, _, name in named), "")
