"""Train and calibrate a cross-encoder on candidate lists of your own pipeline, and rank with it.

Needs `pip install -e ".[quickstart]"`, which brings the encoder MiniLM; half a minute on two cores.
The lists here are synthetic: a pipeline that compares letters, which synonyms mislead. Write yours
in the same form. What you add to the command line are further options of `umls-reranker train`:

    python examples/train_on_lists.py --max_steps 200
"""

import difflib
import itertools
import json
import subprocess
import sys
from pathlib import Path

from umls_reranker import UMLSReranker

STAGES = ("acute", "chronic", "congenital", "recurrent")
ORGANS = {
    "kidney": "renal",
    "liver": "hepatic",
    "heart": "cardiac",
    "lung": "pulmonary",
    "brain": "cerebral",
}
PROBLEMS = {
    "failure": "insufficiency",
    "bleeding": "hemorrhage",
    "cancer": "carcinoma",
    "inflammation": "swelling",
}
names = [" ".join(words) for words in itertools.product(STAGES, ORGANS, PROBLEMS)]


def candidates_of(mention: str) -> list[dict]:
    """The ten most similar names, top candidate first, with the score of this pipeline."""
    scored = [
        (difflib.SequenceMatcher(None, mention, name).ratio(), number)
        for number, name in enumerate(names)
    ]
    top = sorted(scored, reverse=True)[:10]
    return [
        {"cui": f"C{number:07}", "name": names[number], "letters_score": score}
        for score, number in top
    ]


rows = []
for number, name in enumerate(names):
    stage, organ, problem = name.split()
    synonym = f"{organ} {PROBLEMS[problem]}, {stage}"
    mentions = (synonym, f"{stage} {ORGANS[organ]} {problem}", f"{organ} {problem} ({stage})")
    for mention in mentions:
        row = {"doc_id": mention, "entity": mention, "cui": f"C{number:07}"}
        rows.append(row | {"candidates": candidates_of(mention)})
# Documents are divided: those to train on, to compare checkpoints on, and to calibrate on.
parts = {"train.jsonl": rows[::2], "dev.jsonl": rows[1::4], "calibration.jsonl": rows[3::4]}
for output in (*parts, "cross-encoder", "model"):
    if Path(output).exists():
        sys.exit(f"{output} already exists; move it, or work in another folder")
for file, part in parts.items():
    with open(file, "w", encoding="utf-8") as lines:
        lines.writelines(f"{json.dumps(row)}\n" for row in part)

command = [sys.executable, "-m", "umls_reranker"]
settings = (
    "--model sentence-transformers/all-MiniLM-L6-v2 --loss listwise --metric_for_best_model "
    "list_loss --max_steps 100 --learning_rate 1.5e-4 --global_batch_size 48 --max_length 32"
)
train = "train --lists train.jsonl dev.jsonl --output cross-encoder"
subprocess.run([*command, *train.split(), *settings.split(), *sys.argv[1:]], check=True)
calibrate = "calibrate cross-encoder --lists calibration.jsonl --output model"
subprocess.run([*command, *calibrate.split()], check=True)

mention = "cardiac insufficiency, acute"
for item in UMLSReranker.from_pretrained("model").rerank(mention, candidates_of(mention))[:3]:
    print(f"{item.score:.3f}  {item.tier:6}  {item.name}")
