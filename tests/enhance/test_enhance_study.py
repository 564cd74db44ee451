"""How the study of enhancement chooses a rate."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mwork_lens.enhance.training import NotFinite


@pytest.fixture(scope="module")
def study() -> ModuleType:
    path = Path(__file__).parents[2] / "experiments" / "enhance" / "study.py"
    spec = spec_from_file_location("experiments_enhance_study", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@given(best=st.integers(0, 10), first=st.integers(0, 10), broken=st.integers(0, 11))
def test_the_best_rate_has_a_worse_one_on_either_side(study, best, first, broken):
    """Of a loss with one valley, whose rates from `broken` on leave the numbers."""
    rates = study.RATES

    def score(rate: float) -> float:
        at = rates.index(rate)
        if at >= max(broken, best + 1):
            raise NotFinite(f"step 1: the loss is nan at {rate}")
        return abs(at - best)

    tried = study.climb(rates[first], score)
    found = rates.index(min(tried, key=lambda r: tried[r]))
    assert found == best
    assert all(rates[i] in tried for i in (found - 1, found + 1) if 0 <= i < len(rates))
