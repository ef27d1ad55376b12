"""Thousands of tiny records cost what their number says, not its square."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counted_calls import calls
from hostile_records import KINDS, apart, overlapping, shuffled

from eqcctpro.miniseed import ordering
from eqcctpro.miniseed.index import scan
from eqcctpro.miniseed.ordering import in_order
from eqcctpro.waveform.blocks import assemble_blocks, component_rows
from eqcctpro.waveform.conflicts import cut_conflicts
from eqcctpro.waveform.decode import decode_records
from eqcctpro.waveform.segments import join_at_leap_seconds, merge_segments


def blocks_of(content: bytes, *, strict: bool = False, cut: bool = False) -> list[Any]:
    """From records to blocks, as for picking."""
    span = (0, 2**62) if cut else (None, None)
    segments = join_at_leap_seconds(decode_records(content, "x", *span).segments)
    pieces = merge_segments(cut_conflicts(segments)[0])
    return assemble_blocks(pieces, component_rows("ZNE"), 3, strict=strict)


@pytest.mark.slow
@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_work_grows_with_the_records(kind: str, cut: bool) -> None:
    few, many = (b"".join(KINDS[kind](n)) for n in (600, 2400))
    for strict in (False, True):
        blocks_of(few, strict=strict, cut=cut)
        grown = calls(blocks_of, many, strict=strict, cut=cut) / calls(
            blocks_of, few, strict=strict, cut=cut
        )
        # Four times as many records; searching in order takes a little more for each.
        assert grown < 5, strict


def test_pieces_in_many_blocks_are_what_they_were() -> None:
    records = apart(900, channels=(b"HHZ", b"HHN", b"HHE"))
    together = blocks_of(b"".join(records))
    alone = [
        block for at in range(0, 900, 3) for block in blocks_of(b"".join(records[at : at + 3]))
    ]
    assert len(together) == 300
    for one, other in zip(together, alone, strict=True):
        assert (one.start_ns, one.origin_ns) == (other.start_ns, other.origin_ns)
        np.testing.assert_array_equal(one.data, other.data)


def test_pieces_that_are_joined_one_by_one_are_one_piece() -> None:
    (block,) = blocks_of(b"".join(overlapping(500)))
    values = [np.frombuffer(one[64:128], ">i4") for one in overlapping(500)]
    expected = np.concatenate([values[0], *(part[1:] for part in values[1:])])
    np.testing.assert_array_equal(block.data[0], expected)
    (segment,) = merge_segments(
        cut_conflicts(decode_records(b"".join(overlapping(500)), "x").segments)[0]
    )
    assert segment.samples.base is None
    assert segment.samples.dtype == np.int32


def test_records_far_from_order_are_sorted_before_they_are_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ordered, mixed = b"".join(apart(400)), b"".join(shuffled(400))
    odd = mixed + b"garbage"
    before = [block.data.tobytes() for block in blocks_of(mixed)]
    assert in_order(mixed) is mixed
    monkeypatch.setattr(ordering, "_FEW_RECORDS", 100)
    monkeypatch.setattr(ordering, "_FEW_STEPS_BACK", 50)
    assert in_order(ordered) is ordered
    assert in_order(mixed) == ordered
    assert in_order(odd) == ordered + b"garbage"
    assert [block.data.tobytes() for block in blocks_of(mixed)] == before
    assert scan(mixed, "x") == scan(ordered, "x")


def test_records_of_both_versions_are_sorted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from pymseed import MS3Record, MS3TraceList

    newer = []
    for one in apart(300):
        traces = MS3TraceList()
        traces.add_buffer(one, unpack_data=True)
        path = tmp_path / "one.mseed"
        traces.to_file(path, overwrite=True, format_version=3)
        newer.append(path.read_bytes())
    monkeypatch.setattr(ordering, "_FEW_RECORDS", 100)
    monkeypatch.setattr(ordering, "_FEW_STEPS_BACK", 50)
    monkeypatch.setattr(ordering, "_LEAST_RECORD_BYTES", 1)
    mixed = newer[:]
    random.Random(0).shuffle(mixed)
    assert in_order(b"".join(newer)) == b"".join(newer)
    assert in_order(b"".join(mixed)) == b"".join(newer)
    both = [
        old if at % 2 else new for at, (old, new) in enumerate(zip(apart(300), newer, strict=True))
    ]
    mixed = both[:]
    random.Random(0).shuffle(mixed)
    assert in_order(b"".join(mixed)) == b"".join(both)
    assert MS3Record.parse(both[0]).formatversion == 3
