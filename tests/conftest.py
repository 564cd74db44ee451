"""Fixtures shared by the tests: tiny random models per family, and the embedded trained model. Built once, read only."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import functools
from typing import Any

import families
import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)  # tiny models: a second thread costs more than it brings
settings.register_profile(
    "house", deadline=None, derandomize=True, max_examples=25, suppress_health_check=list(HealthCheck)
)
settings.load_profile("house")


@functools.cache
def pair(family: str) -> tuple[Any, Any]:
    """(TransformerLens model, plain Hugging Face copy) of a tiny random model."""
    import oracles

    from mwork_lens.models import load_model

    hf = families.hf_model(family)
    plain = oracles.plain(hf)
    return load_model(hf, tokenizer=families.tokenizer()), plain


@pytest.fixture(params=families.FAMILIES)
def any_family(request: pytest.FixtureRequest) -> tuple[str, Any, Any]:
    """(name, model, plain copy) of every architecture family."""
    return (request.param, *pair(request.param))


@pytest.fixture(scope="session")
def llama() -> Any:
    """A tiny random Llama with grouped heads."""
    return pair("llama")[0]


@pytest.fixture(scope="session")
def polyglot() -> Any:
    """The embedded model of natural sentences."""
    from mwork_lens.models import load_model

    return load_model("polyglot")


def document(length: int = 11, *, seed: int = 0) -> torch.Tensor:
    """Random ids [1, length] that start with BOS."""
    ids = torch.randint(4, families.VOCAB, (1, length), generator=torch.Generator().manual_seed(seed))
    ids[0, 0] = 1
    return ids
