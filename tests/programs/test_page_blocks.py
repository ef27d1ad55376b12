"""Python examples of the pages, each as a script of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from doc_blocks import PYTHON, Block, blocks_of
from doc_folder import make_network
from user_program import as_script

PAGES = (Path("README.md"), Path("docs/from-eqcctpro.md"), Path("docs/programs.md"))
BLOCKS = [
    block
    for page in PAGES
    for block in blocks_of(page)
    if block.is_run and block.language == PYTHON
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network that the pages take for granted."""
    folder = tmp_path_factory.mktemp("made")
    make_network(folder)
    return folder / "waveforms"


def test_there_are_some() -> None:
    assert {block.page for block in BLOCKS} == set(PAGES)


@pytest.mark.slow
@pytest.mark.usefixtures("imported_model")
@pytest.mark.parametrize("block", BLOCKS, ids=[block.where for block in BLOCKS])
def test_a_block_is_a_script(block: Block, made: Path, tmp_path: Path) -> None:
    for name in ("network", "first", "second"):
        (tmp_path / name).symlink_to(made)
    ended = as_script(block.text, tmp_path)
    assert ended.code == 0, ended.err
