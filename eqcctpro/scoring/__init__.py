"""Agreement of picks with labels, or of two sets of picks."""

from eqcctpro.scoring.compare import Parity, compare_picks
from eqcctpro.scoring.labels import read_labels
from eqcctpro.scoring.score import Scores, score_picks

__all__ = ["Parity", "Scores", "compare_picks", "read_labels", "score_picks"]
