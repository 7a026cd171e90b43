"""The rehearsal in small: its made-up data reads as a release and as full MedMentions, and every stage runs."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from umls_reranker.data.corpus import read_pmids
from umls_reranker.data.corpus_formats import read_corpus
from umls_reranker.data.relations import read_relations
from umls_reranker.data.release import release_files
from umls_reranker.data.retired import RetiredCuis
from umls_reranker.data.rrf import read_rrf_concepts
from umls_reranker.data.semantic_types import TypeHierarchy

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

from pubtator_corpus import write_corpus  # noqa: E402
from rehearsal import growth_table  # noqa: E402
from rrf_release import write_release  # noqa: E402


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made-up")
    write_release(folder / "META", 8_000, seed=13, relations=9)
    write_corpus(folder / "META", folder / "corpus", documents=20, mentions=600, seed=13)
    return folder


def test_the_release_has_names_types_relations_and_retired_cuis(made_up):
    files = release_files(made_up / "META")
    concepts, report = read_rrf_concepts(files)
    assert report["names_read"] == 8_000
    types = {kind for kinds in concepts["semantic_types"].to_pylist() for kind in kinds}
    assert len(types) > 100 and types <= set(TypeHierarchy.built_in())
    assert RetiredCuis.read(files["MRCUI"])
    assert sum(map(len, read_relations(files["MRREL"]))) > 0


def test_the_corpus_is_in_the_format_of_full_medmentions(made_up):
    corpus = made_up / "corpus" / "corpus_pubtator.txt"
    report = {}
    mentions = list(read_corpus([corpus], report, expand_abbreviations=True))
    assert (report["documents"], report["mentions"]) == (20, 600)
    assert report["expanded_abbreviations"] > 10
    assert "UMLS:" not in corpus.read_text("utf-8") and not corpus.read_text("utf-8").isascii()
    assert {len(mention.semantic_types) for mention in mentions} == {1, 2}
    kinds = Counter(mention.semantic_types == ("UnknownType",) for mention in mentions)
    assert 0.02 < kinds[True] / 600 < 0.1
    known = set(read_rrf_concepts(release_files(made_up / "META"))[0]["cui"].to_pylist())
    assert any(mention.cui not in known and mention.semantic_types != ("UnknownType",) for mention in mentions)
    lists = [read_pmids(made_up / "corpus" / f"corpus_pubtator_pmids_{part}.txt") for part in ("trng", "dev", "test")]
    assert list(map(len, lists)) == [12, 4, 4] and len({*lists[0], *lists[1], *lists[2]}) == 20


def test_the_same_arguments_give_the_same_bytes(made_up, tmp_path):
    write_release(tmp_path / "META", 8_000, seed=13, relations=9)
    write_corpus(tmp_path / "META", tmp_path / "corpus", documents=20, mentions=600, seed=13)
    for file in (*(tmp_path / "META").iterdir(), *(tmp_path / "corpus").iterdir()):
        assert file.read_bytes() == (made_up / file.relative_to(tmp_path)).read_bytes(), file.name


def test_growth_is_an_exponent_and_goes_on_in_a_straight_line():
    few = {"seconds": 60, "cpu": 30, "peak": 1e9, "disk": 0, "silence": 1}
    many = {"seconds": 600, "cpu": 57, "peak": 2e9, "disk": 5e6, "silence": 1}
    table = growth_table({"mine": {"pairs": few}}, {"mine": {"pairs": many}}, 100)
    assert table.splitlines()[2] == (
        "| mine | 1.00 -> 10.00 | 1.00 | 100 | 0.50 -> 0.95 | 0.28 | 5 | "
        "1,000.00 -> 2,000.00 | 0.30 | 12,000 | 0.00 -> 5.00 |  | 55 |"
    )


@pytest.mark.extra
@pytest.mark.timeout(1800)
def test_a_thousandth_is_published_and_served(tmp_path):
    command = [sys.executable, ROOT / "benchmarks" / "rehearsal.py", tmp_path, "--scale", "0.001", "--steps", "16"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split(" | ")[0].removeprefix("| ") for line in done.stdout.splitlines()]
    assert {"publish", "calibrate", "serve, 20 mentions linked by HTTP"} <= set(lines)
    assert sum(line.startswith("T") and len(line) == 4 for line in lines) == 127
