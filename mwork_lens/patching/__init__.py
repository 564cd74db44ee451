"""Activation patching between two runs, such as a prompt and its translation: put what one run computed into the other, and see what it then says.

pairs   which run gives, which receives, which answers are scored; which positions of the two correspond
scores  the patched runs: residual stream, attention heads, FFN units, sets of neurons; by layer and position
tables  what they say: recovery of a logit difference, and where an answer carries over
"""

from .pairs import Pair, align
from .scores import patching_scores
from .tables import carried, recovery

__all__ = ["Pair", "align", "carried", "patching_scores", "recovery"]
