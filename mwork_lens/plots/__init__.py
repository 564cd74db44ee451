"""The figures: a table in, axes in (if you have them), axes out. Nothing is shown and no file is written.

    lens_curves      which language each layer speaks, one panel per language of the text
    layer_counts     language-specific neurons per layer, attention and FFN stacked
    overlap_heatmap  neurons that pairs of languages share
    deltas           what breaks when neurons are switched off, beside the range of the random controls
    perplexity_heatmap  share_curves  selectivity_bars      whose neurons are off, and which language suffers
    similarity_curves  retrieval_curves  dominance_curves   where languages meet
    sensitivity_curves  agreement_heatmap  selection_frequency_histogram   how firm a set of neurons is
    frequency_heatmaps  language_tree  category_bars  pruning_curves       experts inside dense FFNs
    precision_intervals  factor_scatter  token_curves   how many facts are known in each language, and what goes with it
    language_heatmap  bins_heatmap           facts and neurons that languages share; where these lie
    absent_bars  type_bars  pattern_bars     whence facts come
    recovery_heatmap  carried_curves         what patching brings back, and which answer carries over between languages
    dose_curves  fluency_against_accuracy  damage_heatmap   what steering does, and what it costs

Every figure is a plain `matplotlib.figure.Figure`: no pyplot, no global state, so figures can be made in threads and in notebooks alike
(`axes[0].figure` shows itself there after `%matplotlib inline`). Colours are those of Okabe and Ito (2008), told apart under every common colour
blindness; a language has the same colour in every figure of a study. What is not known (nan) is left out, never drawn as zero.
"""

from .effects import deltas
from .experts import category_bars, frequency_heatmaps, language_tree, pruning_curves
from .fact_origins import absent_bars, pattern_bars, type_bars
from .facts import bins_heatmap, factor_scatter, language_heatmap, precision_intervals, token_curves
from .geometry import dominance_curves, retrieval_curves, similarity_curves
from .lens import lens_curves
from .matrix import perplexity_heatmap, selectivity_bars, share_curves
from .neurons import layer_counts, overlap_heatmap
from .parts import require_columns
from .patching import carried_curves, recovery_heatmap
from .stability import agreement_heatmap, selection_frequency_histogram, sensitivity_curves
from .steering import damage_heatmap, dose_curves, fluency_against_accuracy
from .style import language_colours, language_name, svg, write_svg

__all__ = [
    "absent_bars",
    "agreement_heatmap",
    "bins_heatmap",
    "carried_curves",
    "category_bars",
    "damage_heatmap",
    "deltas",
    "dominance_curves",
    "dose_curves",
    "factor_scatter",
    "fluency_against_accuracy",
    "frequency_heatmaps",
    "language_colours",
    "language_heatmap",
    "language_name",
    "language_tree",
    "layer_counts",
    "lens_curves",
    "overlap_heatmap",
    "pattern_bars",
    "perplexity_heatmap",
    "precision_intervals",
    "pruning_curves",
    "recovery_heatmap",
    "require_columns",
    "retrieval_curves",
    "selection_frequency_histogram",
    "selectivity_bars",
    "sensitivity_curves",
    "share_curves",
    "similarity_curves",
    "svg",
    "token_curves",
    "type_bars",
    "write_svg",
]
