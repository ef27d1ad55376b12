"""Devices that networks run on: from a user's text to torch's number, a UUID and a share of Ray.

A GPU has three names: torch's number in this process, the entry of the variable of visible devices
that stands for it in other processes, and the UUID by which the driver knows it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from eqcctpro.config import parse_device
from eqcctpro.errors import RuntimeUnavailableError
from eqcctpro.resources.nvml import full_uuid, visible_entries, visible_variable

__all__ = ["Device", "only_visible", "resolve"]


@dataclass(frozen=True)
class Device:
    """One device that torch can use in this process.

    Attributes
    ----------
    kind : {"cpu", "cuda", "mps"}
        AMD's GPUs are ``"cuda"``, too, as torch calls them.
    index : int or None
        Torch's number; None where there is only one such device.
    uuid : str
        Of the GPU, as the driver writes it; empty where torch does not say.
    card : str
        Name of the GPU.
    """

    kind: Literal["cpu", "cuda", "mps"] = "cpu"
    index: int | None = None
    uuid: str = ""
    card: str = ""

    @property
    def text(self) -> str:
        """The device in torch's words, such as ``"cuda:1"``."""
        return self.kind if self.index is None else f"{self.kind}:{self.index}"


def resolve(text: str) -> Device:
    """Find the device that a text names; imports torch unless it is the CPU.

    Parameters
    ----------
    text : str
        ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"mps"``; the number counts the GPUs that this
        process sees, from 0, which is what is meant without a number.

    Raises
    ------
    RuntimeUnavailableError
        Torch cannot use it; the message says what torch has.
    """
    try:
        kind, numbers = parse_device(text)
    except ValueError as error:
        raise RuntimeUnavailableError(str(error)) from error
    if kind == "cpu":
        return Device()
    if len(numbers) > 1:
        raise RuntimeUnavailableError(f"device {text!r}: one network runs on one GPU")
    import torch

    return _apple(torch) if kind == "mps" else _gpu(torch, text, numbers[0])


def _apple(torch: Any) -> Device:
    if not torch.backends.mps.is_available():
        raise RuntimeUnavailableError(
            f"torch {torch.__version__} finds no GPU of a Mac for 'mps'",
            hint="use the device cpu; mps needs macOS on Apple silicon",
        )
    return Device("mps", card="Apple GPU")


def _gpu(torch: Any, text: str, index: int) -> Device:
    if not torch.cuda.is_available():
        raise RuntimeUnavailableError(
            f"torch {torch.__version__} finds no CUDA device for {text!r}",
            hint="use the device cpu, or install a CUDA build of torch and its driver",
        )
    count = torch.cuda.device_count()
    if index >= count:
        raise RuntimeUnavailableError(
            f"there is no {text!r}: torch finds {count} CUDA device(s), numbered from 0"
        )
    known = torch.cuda.get_device_properties(index)
    return Device("cuda", index, full_uuid(getattr(known, "uuid", "")), str(known.name))


@contextmanager
def only_visible(
    indices: Sequence[int], environment: Mapping[str, str] | None = None
) -> Iterator[list[str]]:
    """Show other processes only these GPUs, as long as the context lasts.

    The variable of visible devices is set in this process's environment, from which processes
    that are started meanwhile inherit it, and put back.  Numbers in it count within what it held
    before: the second of ``"3,5"`` is ``"5"``.

    Parameters
    ----------
    indices : sequence of int
        Torch's numbers in this process; none leaves the environment alone.
    environment : mapping, optional
        Where the variable is looked up; ``os.environ`` by default.

    Yields
    ------
    list of str
        The entries.
    """
    if not indices:
        yield []
        return
    variable = visible_variable()
    entries = [_entry(index, environment) for index in indices]
    before = os.environ.get(variable)
    os.environ[variable] = ",".join(entries)
    try:
        yield entries
    finally:
        if before is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = before


def _entry(index: int, environment: Mapping[str, str] | None) -> str:
    """Entry that names a GPU to other processes, whatever they see otherwise.

    A UUID is kept as it was given: of a part of a GPU (MIG), torch tells the UUID of the whole.
    """
    listed = visible_entries(environment)
    if listed is not None:
        if index >= len(listed):
            raise RuntimeUnavailableError(
                f"there is no GPU {index}: {visible_variable()} shows {len(listed)}"
            )
        return listed[index]
    return str(index)
