"""How does a language model handle many languages?

    load_model  load_corpora  batches  capture  measure                     look at a model
    layer_languages  read                                                   which language each layer speaks
    neuron_importance  importances  plnd  specific                          which neurons a language needs
    moments  document_moments  lape  lap  lave  ap  pv  penalised           which neurons fire for it
    NeuronSet  matched_random  p_value  layer_counts  overlap  jaccard      sets, and chance
    read_masks  write_masks  selection_frequency  sensitivity  agreement    how firm a set is
    zero  scale  set_to  steer  patch  record  during  applied  deactivate  intervene
    switch  steering_values  steering_responses  steering_table  damage     switch a language on, another off
    generate  lingua_identifier  language_accuracy                          and read what is written
    evaluate  difference  perplexity_scores  perplexity_matrix  selectivity
    share_scores  share_curve                                               and see what breaks
    embed  similarity  retrieval  dominance                                 where languages meet
    Item  Task  load_task  save_task  embedded_tasks  few_shot  fitting     questions, in every language
    xquad  mgsm  xcopa  answer_scores  answer_nll                           and their answers
    accuracy  ability_table  ability_difference  ability_delta              what it can do, and what it can do no longer
    part_of  ability_conditions  ability_scores  ability_changes  ability_grid    by stage and structure
    attribution  attributions  ablation_effects                             what each neuron is good for
    detectors  trial  repeatability                                         and which detector finds it
    enhance  Training  Delta                                                train a language's neurons, and nothing else
    lens_view  neuron_view  top_tokens_view  attention_view  edit_view  write_views    look at it
    Corpus  Tokens  Moments  Importances  Reading  Edit  Effects            the values that pass between them
    Stages  study  doctor  save  load  Run

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
    "lape": "detect.lape",
    "lap": "detect.lap",
    "lave": "detect.lave",
    "ap": "detect.ap",
    "pv": "detect.pv",
    "penalised": "detect.penalised",
    "read_masks": "masks",
    "write_masks": "masks",
    "matched_random": "detect.chance",
    "p_value": "detect.chance",
    "layer_counts": "analysis",
    "overlap": "analysis",
    "selection_frequency": "robustness.stability",
    "sensitivity": "robustness.sensitivity",
    "agreement": "robustness.agreement",
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
    "perplexity_scores": "perplexity.scores",
    "share_scores": "perplexity.scores",
    "perplexity_matrix": "perplexity.tables",
    "selectivity": "perplexity.tables",
    "share_curve": "perplexity.tables",
    "generate": "writing.generate",
    "lingua_identifier": "writing.identify",
    "language_accuracy": "writing.confusion",
    "steering_values": "steering.switch",
    "switch": "steering.switch",
    "Dose": "steering.responses",
    "steering_responses": "steering.responses",
    "steering_table": "steering.tables",
    "damage": "steering.tables",
    "embed": "geometry.embeddings",
    "similarity": "geometry.tables",
    "retrieval": "geometry.tables",
    "dominance": "geometry.tables",
    "attributions": "detect.attribution",
    "attribution": "detect.attribution",
    "Detector": "detect.listing",
    "detectors": "detect.listing",
    "Effects": "causal",
    "ablation_effects": "causal",
    "trial": "trial",
    "repeatability": "repeatability",
    "enhance": "enhance.run",
    "Training": "enhance.training",
    "Delta": "enhance.delta",
    "Item": "tasks.task",
    "Task": "tasks.task",
    "load_task": "tasks.files",
    "save_task": "tasks.files",
    "embedded_tasks": "tasks.files",
    "few_shot": "tasks.shots",
    "xquad": "tasks.xquad",
    "mgsm": "tasks.mgsm",
    "xcopa": "tasks.xcopa",
    "answer_scores": "tasks.run",
    "answer_nll": "tasks.run",
    "fitting": "tasks.ask",
    "accuracy": "tasks.tables",
    "ability_difference": "tasks.tables",
    "ability_delta": "tasks.tables",
    "ability_table": "tasks.tables",
    "ability_conditions": "abilities",
    "ability_scores": "abilities",
    "part_of": "abilities",
    "ability_changes": "ability_tables",
    "ability_grid": "ability_tables",
    "View": "views.page",
    "lens_view": "views.lens",
    "neuron_view": "views.neurons",
    "top_tokens_view": "views.top_tokens",
    "attention_view": "views.attention",
    "edit_view": "views.edits",
    "write_views": "views.page",
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
    """`capture`, `measure`, `evaluate`, `study`, `trial`, `repeatability`, `enhance` and `doctor` are
    functions of the package, though files have the same names.

    The import system binds a submodule to its package whenever anything imports it; here the function stays what the name means.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Vocabulary


if TYPE_CHECKING:
    from .abilities import ability_conditions, ability_scores, part_of
    from .ability_tables import ability_changes, ability_grid
    from .analysis import layer_counts, overlap
    from .capture import capture
    from .causal import Effects, ablation_effects
    from .collect import document_moments, moments
    from .corpora import Corpus, Tokens, batches, load_corpora
    from .detect.ap import ap
    from .detect.attribution import attribution, attributions
    from .detect.chance import matched_random, p_value
    from .detect.lap import lap
    from .detect.lape import lape
    from .detect.lave import lave
    from .detect.listing import Detector, detectors
    from .detect.penalised import penalised
    from .detect.plnd import importances, neuron_importance, plnd, specific
    from .detect.pv import pv
    from .detect.released import released_importance
    from .doctor import doctor
    from .edits import Edit, applied, during
    from .enhance.delta import Delta
    from .enhance.run import enhance
    from .enhance.training import Training
    from .evaluate import difference, evaluate
    from .geometry.embeddings import embed
    from .geometry.tables import dominance, retrieval, similarity
    from .grid import Settings
    from .interventions import deactivate, patch, record, scale, set_to, steer, zero
    from .lenses import Reading, layer_languages, read, token_languages
    from .masks import read_masks, write_masks
    from .measure import DocumentsFailed, Measured, measure
    from .models import describe, fingerprint, load_model
    from .neurons import NeuronSet, jaccard
    from .perplexity.scores import perplexity_scores, share_scores
    from .perplexity.tables import perplexity_matrix, selectivity, share_curve
    from .repeatability import repeatability
    from .robustness.agreement import agreement
    from .robustness.sensitivity import sensitivity
    from .robustness.stability import selection_frequency
    from .sites import NEURON_SITES, SITES, Site
    from .stages import Stages
    from .stats import Importances, Moments
    from .steering.responses import Dose, steering_responses
    from .steering.switch import steering_values, switch
    from .steering.tables import damage, steering_table
    from .storage import Run, load, save
    from .strata import DocumentMoments
    from .study import Study, study
    from .tasks.ask import fitting
    from .tasks.files import embedded_tasks, load_task, save_task
    from .tasks.mgsm import mgsm
    from .tasks.run import answer_nll, answer_scores
    from .tasks.shots import few_shot
    from .tasks.tables import ability_delta, ability_difference, ability_table, accuracy
    from .tasks.task import Item, Task
    from .tasks.xcopa import xcopa
    from .tasks.xquad import xquad
    from .trial import trial
    from .views.attention import attention_view
    from .views.edits import edit_view
    from .views.lens import lens_view
    from .views.neurons import neuron_view
    from .views.page import View, write_views
    from .views.top_tokens import top_tokens_view
    from .writing.confusion import language_accuracy
    from .writing.generate import generate
    from .writing.identify import lingua_identifier
