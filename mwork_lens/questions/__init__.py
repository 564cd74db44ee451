"""What the papers left open, each as a function with its controls (methods and designs are ours; there is nothing published to reproduce).

    probe        does a state still say what the text asked, in every language? (and `geometry.retrieval`: is it nearest to its translation?)
    onset        where does a text's own language overtake English on its way to the output?
    locality     is a fact that is known in one language alone lost with that language's neurons?
    overlap      do neurons that hold facts and neurons of a language coincide more than chance, layer by layer?
    thinking     are attention neurons needed to solve a task, and FFN neurons to know a fact?
    effort       does the model use fewer neurons for the language it knows best?
    translation  with language neurons off or swapped, is the content of an answer kept while its language changes?

Where an answer carries over from one language to another is `patching`.
"""

from .effort import effort, effort_differences
from .locality import locality
from .onset import onset_table, onsets
from .overlap import set_overlap
from .probe import probe_accuracy
from .thinking import thinking_against_knowing
from .translation import selective_translation, translation_table

__all__ = [
    "effort",
    "effort_differences",
    "locality",
    "onset_table",
    "onsets",
    "probe_accuracy",
    "selective_translation",
    "set_overlap",
    "thinking_against_knowing",
    "translation_table",
]
