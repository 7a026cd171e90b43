"""Which names the encoder of names learns, and that its training can be interrupted."""

import gzip
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_models import tiny_encoder

sys.path.append(str(Path(__file__).parents[1] / "names"))

import gather
import judge
import train

WORDS = ["fever", "cough", "rash", "itch", "ache", "chill", "cramp", "sneeze"]
SYNONYMS = {word: [f"{word} disease", f"{word} of adults", f"late {word}"] for word in WORDS}


def write_data(folder: Path) -> None:
    """Sources with names that must not be read, all called "hidden", among the others."""
    for name in ("open_synonyms", "umls_open/META", "medmentions_st21pv"):
        (folder / name).mkdir(parents=True)
    rows = [f"DOID:{word}\t{name}\tDOID\n" for word, of in SYNONYMS.items() for name in of]
    with gzip.open(folder / "open_synonyms" / "synonyms.tsv.gz", "wt") as stream:
        stream.write("".join(["concept\tname\tsource\n", *rows, "HP:1\thidden phenotype\tHPO\n"]))
    names = {"MONDO": "open name", "MEDMENTIONS": "hidden mention", "HPO": "hidden name"}
    (folder / "umls_open" / "META" / "MRCONSO.RRF").write_text(
        "".join(f"C0000001|ENG|{'|' * 9}{of}|PT|1|{name}||N||\n" for of, name in names.items())
    )
    corpus = folder / "medmentions_st21pv"
    # By a hash, the list for training has a document that calibrates, 4.
    texts = ["known text"] * 3 + ["hidden text"] * 5
    with gzip.open(corpus / "corpus_pubtator.txt.gz", "wt") as stream:
        for number, text in enumerate(texts, start=1):
            text = f"{text} {number}"
            stream.write(f"{number}|t|Title\n{number}|a|{text}\n")
            stream.write(f"{number}\t6\t{6 + len(text)}\t{text}\tT047\tUMLS:C000001{number}\n\n")
    (corpus / "corpus_pubtator_pmids_trng.txt").write_text("1\n2\n3\n4\n")
    (corpus / "corpus_pubtator_pmids_dev.txt").write_text("5\n6\n7\n8\n")


def call(script, monkeypatch, *words) -> None:
    monkeypatch.setattr(sys, "argv", [script.__file__, *map(str, words)])
    script.main()


def test_only_names_of_the_allowed_sources_are_learned(tmp_path, monkeypatch):
    write_data(tmp_path / "data")
    call(gather, monkeypatch, tmp_path / "names", "--data", tmp_path / "data")
    clusters = json.loads((tmp_path / "names" / "concepts.json").read_text())
    learned = [name for cluster in clusters for name, _ in cluster["names"]]
    pairs = json.loads((tmp_path / "names" / "held_out.json").read_text())
    allowed = {name for names in SYNONYMS.values() for name in names}
    allowed |= {"open name", "known text 1", "known text 2", "known text 3"}
    # What is set aside is not learned.
    assert sorted([*learned, *(pair["mention"] for pair in pairs)]) == sorted(allowed)
    assert len(pairs) == len(WORDS)


def test_an_interrupted_training_goes_on_to_equal_weights(tmp_path, monkeypatch):
    clusters = [
        {"ids": [word], "names": [[name, "DOID"] for name in SYNONYMS[word]]} for word in WORDS
    ]
    (tmp_path / "concepts.json").write_text(json.dumps(clusters))
    base = tiny_encoder(tmp_path / "base")
    monkeypatch.setattr(train, "SAVE_STEPS", 2)
    contrast = train.contrast
    losses = []

    def run(output: str, last: int) -> dict[str, torch.Tensor]:
        def counted(*arguments):
            if len(losses) == last:
                raise KeyboardInterrupt
            losses.append(contrast(*arguments))
            return losses[-1]

        monkeypatch.setattr(train, "contrast", counted)
        words = ["--model", base, "--steps", 6, "--seeds", 4, "--shares", 1, 0.5]
        call(train, monkeypatch, tmp_path, tmp_path / output, *words)
        return load_file(tmp_path / output / "encoder_1" / "model.safetensors")

    whole = run("whole", 6)
    with pytest.raises(KeyboardInterrupt):
        run("parts", 9)
    resumed = run("parts", 100)
    # Three steps, of which two were saved, and the other four.
    assert len(losses) == 6 + 3 + 4
    start = load_file(base / "model.safetensors")
    half = load_file(tmp_path / "parts" / "encoder_0.5" / "model.safetensors")
    for name, weights in whole.items():
        # Of 16 bits: by one step of them.
        torch.testing.assert_close(resumed[name], weights)
        torch.testing.assert_close(half[name], torch.lerp(start[name], weights.float(), 0.5).half())
    assert not torch.equal(
        whole["embeddings.LayerNorm.bias"], start["embeddings.LayerNorm.bias"].half()
    )
    # A finished training only writes its encoders again.
    run("parts", 6 + 3 + 4)


def test_candidates_with_equal_scores_share_the_top():
    rows = [
        {"mention": "a", "names": ["b", "bc"], "gold": [True, False]},
        {"mention": "a", "names": ["bc", "d", "b"], "gold": [True, False, True]},
        {"mention": "a", "names": ["b", "c"], "gold": [True, False]},
    ]
    scores = {"b": 0.5, "bc": 0.5, "c": 0.9, "d": 0.1}

    def score(mentions, names):
        return np.array([scores[name] for name in names])

    assert judge.correctness(score, rows).tolist() == [0.5, 1.0, 0.0]
