"""How does a language model handle many languages?

    load_model  load_corpora  batches  capture  measure                     look at a model
    layer_languages  read                                                   which language each layer speaks
    neuron_importance  importances  plnd  specific  moments                 which neurons a language needs
    NeuronSet  matched_random  p_value  layer_counts  overlap  jaccard      sets, and chance
    zero  scale  set_to  patch  record  applied  deactivate                 intervene
    evaluate  difference  Stages  study                                     and see what breaks
    save  load  Run  doctor

Everything is imported on first use: `import mwork_lens` itself loads neither torch nor TransformerLens.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

_HOME = {
    "load_model": "models",
    "describe": "models",
    "fingerprint": "models",
    "doctor": "doctor",
    "Site": "sites",
    "SITES": "sites",
    "NEURON_SITES": "sites",
    "NeuronSet": "neurons",
    "jaccard": "neurons",
    "Corpus": "corpora",
    "Tokens": "corpora",
    "load_corpora": "corpora",
    "batches": "corpora",
    "capture": "capture",
    "Moments": "stats",
    "Importances": "stats",
    "DocumentMoments": "strata",
    "moments": "collect",
    "document_moments": "collect",
    "measure": "measure",
    "Measured": "measure",
    "DocumentsFailed": "measure",
    "Reading": "lenses",
    "read": "lenses",
    "token_languages": "lenses",
    "layer_languages": "lenses",
    "Stages": "stages",
    "neuron_importance": "detect.plnd",
    "released_importance": "detect.released",
    "importances": "detect.plnd",
    "plnd": "detect.plnd",
    "specific": "detect.plnd",
    "matched_random": "detect.chance",
    "p_value": "detect.chance",
    "layer_counts": "analysis",
    "overlap": "analysis",
    "Edit": "edits",
    "zero": "interventions",
    "scale": "interventions",
    "set_to": "interventions",
    "steer": "interventions",
    "during": "edits",
    "patch": "interventions",
    "record": "interventions",
    "applied": "edits",
    "deactivate": "interventions",
    "evaluate": "evaluate",
    "difference": "evaluate",
    "Study": "study",
    "Settings": "grid",
    "study": "study",
    "save": "storage",
    "load": "storage",
    "Run": "storage",
}

__all__ = sorted(_HOME)  # noqa: PLE0605  # a list of names, sorted

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"mwork_lens has no {name!r}; it has {', '.join(sorted(_HOME))}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


class _Vocabulary(ModuleType):
    """`capture`, `measure`, `evaluate`, `study` and `doctor` are functions of the package, though files have the same names.

    The import system binds a submodule to its package whenever anything imports it; here the function stays what the name means.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Vocabulary


if TYPE_CHECKING:
    from .analysis import layer_counts, overlap
    from .capture import capture
    from .collect import document_moments, moments
    from .corpora import Corpus, Tokens, batches, load_corpora
    from .detect.chance import matched_random, p_value
    from .detect.plnd import importances, neuron_importance, plnd, specific
    from .detect.released import released_importance
    from .doctor import doctor
    from .edits import Edit, applied, during
    from .evaluate import difference, evaluate
    from .grid import Settings
    from .interventions import deactivate, patch, record, scale, set_to, steer, zero
    from .lenses import Reading, layer_languages, read, token_languages
    from .measure import DocumentsFailed, Measured, measure
    from .models import describe, fingerprint, load_model
    from .neurons import NeuronSet, jaccard
    from .sites import NEURON_SITES, SITES, Site
    from .stages import Stages
    from .stats import Importances, Moments
    from .storage import Run, load, save
    from .strata import DocumentMoments
    from .study import Study, study
