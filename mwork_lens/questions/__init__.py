"""What the papers left open, each as a function with its controls (methods and designs are ours; there is nothing published to reproduce).

    probe        does a state still say what the text asked, in every language? (and `geometry.retrieval`: is it nearest to its translation?)
    onset        where does a text's own language overtake English on its way to the output?
    locality     is a fact that is known in one language alone lost with that language's neurons?
    fact_neurons which FFN neurons hold a fact, and in how many languages are they the same?
    overlap      do neurons that hold facts and neurons of a language coincide more than chance, layer by layer?
    thinking     are attention neurons needed to solve a task, and FFN neurons to know a fact?
    effort       does the model use fewer neurons for the language it knows best?
    translation  with language neurons off or swapped, is the content of an answer kept while its language changes?

Where an answer carries over from one language to another is `patching`.
"""

from .effort import effort, effort_differences
from .fact_neurons import FactAttributions, fact_attributions, other_objects
from .locality import locality
from .onset import onset_table, onsets
from .overlap import set_overlap
from .probe import probe_accuracy
from .thinking import thinking_against_knowing
from .translation import selective_translation, translation_table

__all__ = [
    "FactAttributions",
    "effort",
    "effort_differences",
    "fact_attributions",
    "locality",
    "onset_table",
    "onsets",
    "other_objects",
    "probe_accuracy",
    "selective_translation",
    "set_overlap",
    "thinking_against_knowing",
    "translation_table",
]
