"""Train and calibrate a cross-encoder on candidate lists of your own pipeline, and rank with it.

Needs `pip install -e ".[quickstart]"`, which brings the encoder MiniLM; half a minute on two cores.
The lists here are synthetic: a pipeline that compares letters, which synonyms mislead. Write yours
in the same form. What you add to the command line changes keys of the recipe `own-lists`:

    python examples/train_on_lists.py --max_steps 200
"""

import difflib
import itertools
import json
import subprocess
import sys

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


with open("lists_to_train_on.jsonl", "w", encoding="utf-8") as lines:
    for number, name in enumerate(names):
        stage, organ, problem = name.split()
        synonym = f"{organ} {PROBLEMS[problem]}, {stage}"
        for mention in (
            synonym,
            f"{stage} {ORGANS[organ]} {problem}",
            f"{organ} {problem} ({stage})",
        ):
            row = {
                "doc_id": mention,
                "entity": mention,
                "cui": f"C{number:07}",
                "candidates": candidates_of(mention),
            }
            print(json.dumps(row), file=lines)

settings = (
    "--candidate_lists lists_to_train_on.jsonl --model sentence-transformers/all-MiniLM-L6-v2 "
    "--max_steps 100"
)
settings += (
    " --learning_rate 1.5e-4 --max_length 32 --global_batch_size 48 --per_device_train_batch_size "
    "48"
)
command = [
    sys.executable,
    "-m",
    "umls_reranker",
    "run",
    "own-lists",
    *settings.split(),
    *sys.argv[1:],
]
subprocess.run(command, check=True)

reranker = UMLSReranker.from_pretrained("runs/own-lists/model")
for item in reranker.rerank(
    "cardiac insufficiency, acute", candidates_of("cardiac insufficiency, acute")
)[:3]:
    print(f"{item.score:.3f}  {item.tier:6}  {item.name}")
