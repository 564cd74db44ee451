"""The MWork study of the embedded model on more and longer documents than the demo takes.

    python experiments/mwork/embedded.py [--out runs/embedded]          about seven minutes on two cores; --resume continues

48 documents per language for detection, 24 for lens and scores, whole; 10 random draws; seed 0. Writes results/embedded.json (findings, summary,
provenance); the folder given by --out holds everything else, the report included.
"""

import argparse
import json
from pathlib import Path

import mwork_lens as mw


def main() -> None:
    """Run the study and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/embedded"))
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    corpora = mw.load_corpora(limit=72)
    result = mw.study(mw.load_model("polyglot"), corpora, out=arguments.out, resume=arguments.resume, say=print)
    record = {
        "findings": result.findings,
        "stages": {name: len(layers) for name, layers in result.stages.items()},
        "summary": json.loads(result.summary.round(4).to_json(orient="records")),
        "run": result.run.to_json(),
    }
    path = Path(__file__).parent / "results" / "embedded.json"
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print("\n".join(result.findings))


if __name__ == "__main__":
    main()
