"""Enhancement: train the rows and columns of a language's neurons, and nothing else (Zhao et al. 2024, section 4.4).

slices    which rows and columns of which matrices a set of neurons owns, in a TransformerLens model and in the plain one
delta     what training made of them: a small file that goes on a model and comes off it, exactly
training  the loop: Hugging Face's Trainer around a module that holds the slices alone
"""

from .delta import Delta
from .run import enhance
from .training import Training

__all__ = ["Delta", "Training", "enhance"]
