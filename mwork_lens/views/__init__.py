"""Views: a model and a text in, something to look at out.

    lens_view        what each layer would say, token by token, in the colour of its language
    neuron_view      where neurons fire in texts
    top_tokens_view  the tokens that fire each language neuron most, over a corpus
    attention_view   attention patterns of heads
    edit_view        what an edit does to the log-probability of each token

Each returns a frozen `View`. A notebook shows it as it is, without a network; `write_views(views, path)` makes one HTML file of several, and
`fragment(views)` what another page can hold. All but `lens_view` are drawn by circuitsvis, whose script is put into a page once. Tokens are shown
as the characters they stand for (labels.py) and never as HTML (page.py); long inputs are cut, and the view says so.
"""

from .attention import attention_view
from .edits import edit_view
from .lens import lens_view
from .neurons import neuron_view
from .page import View, fragment, page, write_views
from .top_tokens import top_tokens_view

__all__ = [
    "View",
    "attention_view",
    "edit_view",
    "fragment",
    "lens_view",
    "neuron_view",
    "page",
    "top_tokens_view",
    "write_views",
]
