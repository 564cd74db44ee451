"""What each layer would say, token by token, in the colour of its language.

The rows are the states of the residual stream that `read` looks at (0 is the embedding, L the output), the columns the tokens of the text; a cell
holds the lens's most likely next token, its colour is that token's language. No circuitsvis component shows the top k of every layer, so this view
is plain HTML and CSS: a cell shows its top k when it is pointed at or reached with Tab.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from ..languages import TokenLanguages
from ..lenses import read
from ..storage import content_hash
from .labels import Document, document, token_name, visible
from .page import View, colours


def lens_view(
    model: Any,
    text: str,
    labels: TokenLanguages | None = None,
    *,
    k: int = 5,
    layers: Iterable[int] | None = None,
    positions: int = 64,
    title: str = "Logit lens: what each layer would say",
) -> View:
    """What each layer would say after each token of a text: a table of layers and tokens, coloured by language.

    Args:
        model: What `load_model` returned.
        text: Read as one document, BOS included if the tokenizer puts one there.
        labels: Language of each token (`token_languages`); None leaves the table without colour.
        k: Tokens listed for each cell, most likely first.
        layers: States to show, 0 (the embedding) to L (the output); default all.
        positions: Tokens of the text at most.
        title: The heading.

    Returns:
        A view of plain HTML, without a script.

    Raises:
        TypeError: `text` is not a string.
        ValueError: The text is empty or has no token; a layer does not exist; `k` or `positions` is out of range; `labels` are of another
            vocabulary.
    """
    vocab = int(model.W_U.shape[1])
    if labels is not None and len(labels) != vocab:
        raise ValueError(
            f"these token languages label {len(labels)} tokens, the model has {vocab}: made for another tokenizer?"
        )
    read_text = document(model, text, positions)
    reading = read(model, read_text.ids, labels, k=k)
    last = len(reading.tokens) - 1
    rows = list(range(last + 1) if layers is None else dict.fromkeys(layers))
    if not rows:
        raise ValueError(f"no layer given: choose from 0..{last}, or leave `layers` out for all")
    if outside := [layer for layer in rows if not 0 <= layer <= last]:
        raise ValueError(f"layer {outside[0]} does not exist: the lens reads states 0 (embedding) to {last} (output)")
    found = labels.labels[reading.tokens[rows, 0]].tolist() if labels is not None else None
    html = _table(
        model.tokenizer,
        read_text,
        rows,
        last,
        reading.tokens[rows, 0].tolist(),
        reading.logprobs[rows, 0].exp().tolist(),
        found,
        labels.names if labels is not None else (),
    )
    how = f"Each cell is the most likely next token; point at it, or reach it with Tab, for the top {k}. Bold: the token that follows."
    names = labels.names if labels is not None else ()
    return View(
        title,
        (how, *read_text.note),
        html=html,
        languages=names,
        rtl=read_text.rtl,
        height=min(900, 330 + 34 * len(rows)),
    )


def _table(
    tokenizer: Any,
    read_text: Document,
    rows: Sequence[int],
    last: int,
    tokens: list[list[list[int]]],
    chances: list[list[list[float]]],
    found: list[list[list[int]]] | None,
    names: Sequence[str],
) -> str:
    """The table, top layer first; lists are [layer pos k]."""
    own = f"mw-{content_hash(list(names))[:8]}"  # lenses of other languages may stand on the same page
    style = "".join(f".{own} .c{i} {{ --c: {colour}; }}\n" for i, colour in enumerate(colours(names).values()))
    ids = read_text.ids[0].tolist()
    shown = {token: escape(visible(token_name(tokenizer, token))) for layer in tokens for pos in layer for token in pos}
    heads = "".join(f'<th scope="col" dir="auto">{escape(label.shown)}</th>' for label in read_text.labels)

    def cell(row: int, layer: int, pos: int) -> str:
        chips = []
        for i, (token, chance) in enumerate(zip(tokens[row][pos], chances[row][pos], strict=True)):
            kind = "" if found is None else f' class="c{found[row][pos][i]}"'
            code = "" if found is None else f" <small>{escape(names[found[row][pos][i]])}</small>"
            chips.append(f"<li{kind}><bdi>{shown[token]}</bdi> {chance:.1%}{code}</li>")
        kinds = [] if found is None else [f"c{found[row][pos][0]}"]
        if pos + 1 < len(ids) and tokens[row][pos][0] == ids[pos + 1]:
            kinds.append("hit")
        where = f"{_state(layer, last)}, after <bdi>{escape(read_text.labels[pos].shown)}</bdi>:"
        return (
            f'<td class="{" ".join(kinds)}" tabindex="0"><bdi>{shown[tokens[row][pos][0]]}</bdi>'
            f'<div class="mw-tip">{where}<ol dir="ltr">{"".join(chips)}</ol></div></td>'
        )

    body = "\n".join(
        f'<tr><th scope="row">{_state(rows[row], last)}</th>{"".join(cell(row, rows[row], pos) for pos in range(len(ids)))}</tr>'
        for row in sorted(range(len(rows)), key=lambda row: -rows[row])
    )
    direction = "rtl" if read_text.rtl else "ltr"
    return (
        f"<style>{_STYLE}{style}</style>"
        f'<div class="mw-lens {own}"><div class="mw-scroll" tabindex="0" role="region" aria-label="Logit lens"><table dir="{direction}">'
        f'<thead><tr><th scope="col">text</th>{heads}</tr></thead>\n<tbody>{body}</tbody></table></div>'
        f'<p class="mw-hint">The top {len(tokens[0][0])} of a cell stand here.</p></div>'
    )


def _state(layer: int, last: int) -> str:
    """`embedding`, `layer 3`, `output`."""
    return {0: "embedding", last: "output"}.get(layer, f"layer {layer}")


_STYLE = """
.mw-lens { --c: #d9d9d9; position: relative; padding-bottom: 6.2rem; }
.mw-lens .mw-scroll { overflow-x: auto; }
.mw-lens table { border-collapse: separate; border-spacing: 2px; font-size: 14px; }
.mw-lens th { font-weight: 600; padding: 3px 7px; white-space: nowrap; background: #fff; text-align: center; }
.mw-lens th[scope=row], .mw-lens thead th:first-child { position: sticky; inset-inline-start: 0; z-index: 1;
  text-align: start; color: #565c63; font-weight: 400; }
.mw-lens td { padding: 3px 7px; white-space: nowrap; text-align: center; cursor: default; border-radius: 3px; max-width: 12rem;
  background: color-mix(in srgb, var(--c) 26%, white); box-shadow: inset 0 -3px 0 var(--c); }
.mw-lens td > bdi { display: block; overflow: hidden; text-overflow: ellipsis; min-width: 1ch; }
.mw-lens td.hit > bdi { font-weight: 700; text-decoration: underline; text-underline-offset: 2px; }
.mw-lens td:hover, .mw-lens td:focus { outline: 2px solid #0060a0; outline-offset: -1px; }
.mw-lens .mw-hint { margin: 0; color: #6a7178; }
.mw-lens .mw-tip, .mw-lens .mw-hint { position: absolute; left: 0; right: 0; bottom: 0; min-height: 5.6rem;
  box-sizing: border-box; padding: .5rem .7rem; background: #f5f7f9; border: 1px solid #d5d9de; border-radius: 6px; }
.mw-lens .mw-tip { display: none; z-index: 2; white-space: normal; text-align: left; direction: ltr; font-weight: 400; }
.mw-lens td:hover > .mw-tip { display: block; z-index: 3; }
.mw-lens td:focus > .mw-tip { display: block; }
.mw-lens .mw-tip ol { display: flex; flex-wrap: wrap; gap: .3rem .5rem; list-style: none; margin: .35rem 0 0; padding: 0; }
.mw-lens .mw-tip li { padding: 1px 8px; border-radius: 3px; background: color-mix(in srgb, var(--c) 26%, white);
  box-shadow: inset 0 -3px 0 var(--c); }
.mw-lens .mw-tip li bdi { font-weight: 600; }
.mw-lens .mw-tip small { color: #454b52; }
"""
