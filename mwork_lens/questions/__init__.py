"""What the papers left open, each as a function with its controls (methods and designs are ours; there is nothing published to reproduce).

    onset      where does a text's own language overtake English on its way to the output?
    overlap    do neurons that hold facts and neurons of a language coincide more than chance, layer by layer?
    effort     does the model use fewer neurons for the language it knows best?
    locality   is a fact that is known in one language alone lost with that language's neurons?

Whether a converted state still relates to its query is `geometry.retrieval`; thinking against knowing is `ability_scores` by stage and structure;
where an answer carries over from one language to another is `patching`.
"""

from .effort import effort, effort_differences
from .locality import locality
from .onset import onset_table, onsets
from .overlap import set_overlap

__all__ = ["effort", "effort_differences", "locality", "onset_table", "onsets", "set_overlap"]
