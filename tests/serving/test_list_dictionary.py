"""Lists of bare CUIs with a dictionary, and types of mentions where candidates have none."""

import numpy as np
import pytest
from data_fixtures import VOCABULARY, write_rrf
from list_fixtures import write_lists
from list_model import run_script

from umls_reranker import Dictionary, UMLSReranker

DISEASE = "C9000004"
PHENOMENON = "C9000035"


def bare_lists(mentions=90, documents=30):
    """Synonyms of the gold concept, or of another one in a tenth of the rows; scores say little."""
    rng = np.random.default_rng(0)
    cuis = sorted(VOCABULARY)
    rows = []
    for number in range(mentions):
        listed = [str(cui) for cui in rng.choice(cuis, 4, replace=False)]
        named = listed[0] if rng.random() < 0.9 else listed[1]
        mention = VOCABULARY[named][1][1]
        candidates = [
            {"cui": cui, "my_score": rng.normal()} for cui in rng.permutation(listed).tolist()
        ]
        row = {
            "doc_id": f"d{number % documents}",
            "entity": mention,
            "cui": listed[0],
            "candidates": candidates,
        }
        rows.append(row)
    return rows


def write_names(path):
    """The vocabulary in lines of BioSyn."""
    path.write_text(
        "".join(f"{cui}||{'|'.join(names)}\n" for cui, (_, names) in VOCABULARY.items())
    )
    return path


@pytest.mark.parametrize("write, name", [(write_rrf, "META"), (write_names, "names.txt")])
def test_bare_cuis_are_calibrated_and_served_with_a_dictionary(tmp_path, capsys, write, name):
    rows = bare_lists()
    dictionary = write(tmp_path / name)
    words = [
        "--lists",
        write_lists(tmp_path / "own.jsonl", rows),
        "--dictionary",
        dictionary,
        "--calibrator",
        "platt",
    ]
    run_script("calibrate", *words, "--output", tmp_path / "new")
    said = capsys.readouterr().out
    assert "gain: " in said and "synonym_score: from 0 to 1" in said
    reranker = UMLSReranker.from_pretrained(tmp_path / "new")
    known = [{"cui": DISEASE, "my_score": 0.0}, {"cui": PHENOMENON, "my_score": 0.0}]
    (row,) = Dictionary.load(dictionary).add_to([{"entity": "head cold", "candidates": known}])
    best = reranker.rerank(row["entity"], row["candidates"])[0]
    assert (best.cui, best.name) == (DISEASE, "common cold") and best.score > 0.5
    assert "rerank --dictionary`, and" in (tmp_path / "new" / "README.md").read_text()
    for item in row["candidates"]:
        del item["synonym_score"]
    with pytest.warns(UserWarning, match="; using .* synonym_score: added by rerank --dictionary"):
        reranker.rerank(row["entity"], row["candidates"])
