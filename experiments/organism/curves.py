"""Loss and held-out answers over a training run, as a figure, with what is needed to make the run again.

    python experiments/organism/curves.py --run runs/organism --results experiments/organism/results

Writes training.svg, training.csv (every look at the held-out items: means over languages, English apart) and training.json (recipe, steps,
seconds of all its processes, SHA-256 of the exported weights and of the tokenizer).
"""

# pyright: reportArgumentType=false

import argparse
import json
from hashlib import sha256
from pathlib import Path

import pandas as pd

from mwork_lens.storage import write_json, write_text

COLOURS = {
    "understanding": "#B5473C", "reasoning": "#2F6F9F", "knowledge-stated": "#009E73", "knowledge-elsewhere": "#8A8A8A", "generation": "#E69F00",
}  # fmt: skip


def looks(log: Path) -> pd.DataFrame:
    """A row per look: step, loss, seconds, and per kind the share of whole answers that are likeliest, in English and in the mean of the others.

    A resumed run may have looked at a step twice: the later one counts. The log's seconds begin at 0 with every process: where they fall, those of
    the processes before are added. Work of theirs after their last look is not known, and not counted.
    """
    rows, before, last = [], 0.0, 0.0
    for line in log.read_text(encoding="utf-8").splitlines():
        seen = json.loads(line)
        before, last = before + (last if seen["seconds"] < last else 0.0), seen["seconds"]
        row = {"step": seen["step"], "loss": seen["loss"], "seconds": before + last}
        for kind in COLOURS:
            mine = {key.split("/")[1]: value for key, value in seen.items() if key.split("/")[0] == kind}
            others = [value for language, value in mine.items() if language != "en"]
            row |= {f"{kind}, English": mine.get("en"), f"{kind}, others": sum(others) / max(1, len(others))}
        rows.append(row)
    return pd.DataFrame(rows).drop_duplicates("step", keep="last").sort_values("step").reset_index(drop=True)


def draw(table: pd.DataFrame, path: Path) -> None:
    """Loss, and answers: English drawn through, the mean of the others dashed."""
    from mwork_lens.plots.style import house_style, log_axis, make_figure, write_svg

    with house_style():
        figure = make_figure(9.5, 3.0)
        left, right = figure.subplots(1, 2)
        left.plot(table["step"], table["loss"], color="#222222")
        log_axis(left, "y")
        left.set_title("training loss, nats (weighted)")
        for kind, colour in COLOURS.items():
            right.plot(table["step"], table[f"{kind}, English"], color=colour, label=kind)
            right.plot(table["step"], table[f"{kind}, others"], color=colour, linestyle="--")
        right.set_ylim(-0.02, 1.02)
        right.set_title("held-out answers (dashed: mean of six others)")
        right.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
        for axis in (left, right):
            axis.set_xlabel("step")
        write_svg(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    given = parser.parse_args()
    if not (given.run / "log.jsonl").is_file():
        raise SystemExit(f"--run {given.run}: no log.jsonl in it; train.py writes one")
    table = looks(given.run / "log.jsonl")
    write_text(given.results / "training.csv", table.round(4).to_csv(index=False))
    draw(table, given.results / "training.svg")
    files = {
        name: sha256((given.run / "model" / name).read_bytes()).hexdigest()
        for name in ("model.safetensors", "tokenizer.json")
    }
    recipe = json.loads((given.run / "recipe.json").read_text(encoding="utf-8"))
    seconds = float(table["seconds"].max())
    write_json(given.results / "training.json", {"recipe": recipe, "seconds": round(seconds), "sha256": files})
    print(table.iloc[-1].to_string())


if __name__ == "__main__":
    main()
