"""Where a prompt ends and its continuation begins."""

import numpy as np
import pytest
import torch

from mwork_lens.tasks.likelihood import continuations, logp
from mwork_lens.tasks.task import Item


def test_a_boundary_inside_a_token(polyglot):
    """`a` + `nd` is the token `and`: both choices are scored from before it, as the whole texts differ from there."""
    item = Item("m", "en", "The cat a", ("nd",), ("nd", " dog"), glue="")
    wholes = [item.joined(choice) for choice in item.choices]
    (rows,) = continuations(polyglot, [item.prompt], [wholes], ["m"])
    ids = polyglot.tokenizer([item.prompt, *wholes])["input_ids"]
    assert ids[1][: len(ids[0])] != ids[0]  # the merge is there
    assert {row.start for row in rows} == {len(ids[0]) - 1}
    with torch.no_grad():
        plain = [polyglot.original_model(torch.tensor([row])).logits[0].log_softmax(-1) for row in ids[1:]]
    wanted = [
        sum(likely[t - 1, row[t]].item() for t in range(rows[0].start, len(row)))
        for likely, row in zip(plain, ids[1:], strict=True)
    ]
    np.testing.assert_allclose(logp(polyglot, rows, ["a", "b"]), wanted, atol=1e-4)


def test_nothing_left_of_an_answer_and_nothing_before_it(llama):
    with pytest.raises(ValueError, match="item: the tokenizer leaves nothing of the answer"):
        continuations(llama, ["w1"], [["w1", "w1 w2"]], ["item"])

    class Bare:
        """The tokenizer without BOS."""

        bos_token_id, eos_token_id, eos_token = None, None, None

        def __call__(self, texts, verbose=False):
            return {"input_ids": [[len(text)] * len(text.split()) for text in texts]}

    class Model:
        tokenizer, cfg = Bare(), llama.cfg

    with pytest.raises(ValueError, match="item: no token of its prompt stands before its answers"):
        continuations(Model(), ["w1"], [["w1 w2", "w1 w33"]], ["item"])
