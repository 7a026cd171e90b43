"""Which documents come into which split, and listed ones that the corpus lacks."""

import pytest

from umls_reranker.core.errors import UserError
from umls_reranker.corpora.arguments import MentionArguments
from umls_reranker.pipeline.recipe import Recipe
from umls_reranker.pipeline.sources import corpus_mentions, input_files, listed_documents

LISTS = {"train_documents": [1, 2], "dev_documents": [3, 4, 5, 6, 7, 8], "test_documents": [9, 77]}


@pytest.fixture
def files(tmp_path):
    documents = (
        f"{n}|t|Cold\n{n}|a|A cold.\n{n}\t0\t4\tCold\tT047\tC0009443\n\n" for n in range(1, 10)
    )
    (tmp_path / "corpus").write_text("".join(documents))
    for name, ids in LISTS.items():
        (tmp_path / name).write_text("".join(f"{number}\n" for number in ids))
    return {name: (tmp_path / name,) for name in ("corpus", *LISTS)}


def test_where_test_documents_are_listed_none_are_left_for_them(files):
    settings = MentionArguments(dev_share=0.3, calibration_share=0.7)
    report = {}
    split_of = listed_documents(settings, files, 13)
    splits = {
        mention.doc_id: split
        for split, mention in corpus_mentions(settings, files["corpus"], split_of, report)
    }
    assert {splits[str(number)] for number in LISTS["dev_documents"]} == {"dev", "calibration"}
    assert (splits["1"], splits["9"], len(splits)) == ("train", "test", 9)
    # Nothing in the corpus has the number 77.
    assert report["listed_documents_without_mentions"] == 1


def test_a_share_of_the_training_documents_calibrates(files):
    def splits(share):
        settings = MentionArguments(
            dev_share=0.3, calibration_share=0.7, train_calibration_share=share
        )
        return listed_documents(settings, files, 13)

    (files["train_documents"][0]).write_text("".join(f"{number}\n" for number in range(11, 21)))
    moved = splits(0.5)
    assert {moved[str(number)] for number in range(11, 21)} == {"train", "calibration"}
    # Documents of the other lists stay where they are.
    assert {name for name, split in splits(0.0).items() if moved[name] != split} <= set(
        map(str, range(11, 21))
    )


def test_shares_that_leave_nothing_are_refused(files):
    assert listed_documents(MentionArguments(dev_share=0.9, calibration_share=0.1), files, 13)
    with pytest.raises(UserError, match="dev_share and calibration_share"):
        listed_documents(MentionArguments(dev_share=0.9, calibration_share=0.7), files, 13)
    del files["test_documents"]
    with pytest.raises(UserError, match="test split"):
        listed_documents(MentionArguments(dev_share=0.3, calibration_share=0.7), files, 13)


def test_missing_files_are_named_together(tmp_path):
    keys = {"umls_dir": "META", "train_documents": "a.txt", "dev_documents": "b.txt"}
    values = {key: str(tmp_path / name) for key, name in keys.items()}
    recipe = Recipe.from_values(values | {"corpus": [str(tmp_path / "corpus.txt")]})
    with pytest.raises(UserError) as told:
        input_files(recipe)
    assert all(name in str(told.value) for name in ("META", "corpus.txt", "a.txt", "b.txt"))
