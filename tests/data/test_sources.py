"""Which documents come into which split, and listed ones that the corpus lacks."""

import pytest

from umls_reranker.core.errors import UserError
from umls_reranker.core.settings import MentionArguments
from umls_reranker.data.reading_report import reading_table
from umls_reranker.data.sources import corpus_mentions, split_shares

LISTS = {"train_documents": [1, 2], "dev_documents": [3, 4, 5, 6, 7, 8], "test_documents": [9, 77]}


@pytest.fixture
def files(tmp_path):
    documents = (f"{n}|t|Cold\n{n}|a|A cold.\n{n}\t0\t4\tCold\tT047\tC0009443\n\n" for n in range(1, 10))
    (tmp_path / "corpus").write_text("".join(documents))
    for name, ids in LISTS.items():
        (tmp_path / name).write_text("".join(f"{number}\n" for number in ids))
    return {name: (tmp_path / name,) for name in ("corpus", *LISTS)}


def test_where_test_documents_are_listed_none_are_left_for_them(files):
    found = corpus_mentions(MentionArguments(dev_share=0.3, calibration_share=0.7), files, 13)
    splits = {mention.doc_id: split for split, mention in found}
    assert {splits[str(number)] for number in LISTS["dev_documents"]} == {"dev", "calibration"}
    assert (splits["1"], splits["9"], len(splits)) == ("train", "test", 9)
    # Nothing in the corpus has the number 77.
    assert found.report["listed_documents_without_mentions"] == 1
    counts = {
        "concepts": 1,
        "typed": 1,
        "relations": {"pairs": 0},
        "corpus": found.report,
        "mentions": {"test": 1},
        "in_dictionary": {"test": 1},
    }
    titles = [*reading_table(counts, counts).columns[0].cells]
    assert "listed documents that are missing or have no mentions" in titles


def test_shares_of_more_than_all_documents_are_refused(files):
    assert [*corpus_mentions(MentionArguments(dev_share=0.9, calibration_share=0.1), files, 13)]
    with pytest.raises(UserError, match="must be above 0 and sum to at most 1"):
        list(corpus_mentions(MentionArguments(dev_share=0.9, calibration_share=0.7), files, 13))


def test_a_share_of_the_training_documents_calibrates(files):
    (files["train_documents"][0]).write_text("".join(f"{number}\n" for number in range(1, 5)))
    (files["dev_documents"][0]).write_text("".join(f"{number}\n" for number in range(5, 9)))
    (files["test_documents"][0]).write_text("9\n")

    def splits(share):
        settings = MentionArguments(dev_share=0.3, calibration_share=0.7, train_calibration_share=share)
        return {mention.doc_id: split for split, mention in corpus_mentions(settings, files, 13)}

    moved = splits(0.5)
    assert {moved[str(number)] for number in range(1, 5)} == {"train", "calibration"}
    # Documents of the other lists stay where they are.
    assert {name: split for name, split in moved.items() if int(name) > 4} == {
        name: split for name, split in splits(0.0).items() if int(name) > 4
    }
    with pytest.raises(UserError, match="train_calibration_share: 1.0 must be 0 or more and below 1"):
        splits(1.0)


def test_without_listed_test_documents_a_share_is_left_for_them(files):
    del files["test_documents"]
    with pytest.raises(UserError, match="must be above 0 and leave a share for the test split"):
        list(corpus_mentions(MentionArguments(dev_share=0.3, calibration_share=0.7), files, 13))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_all_or_nothing_for_training_is_refused(share):
    with pytest.raises(UserError, match=f"train_share: {share} must be above 0 and below 1"):
        split_shares(MentionArguments(train_share=share))
