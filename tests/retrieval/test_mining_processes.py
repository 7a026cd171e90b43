"""Mining in shards, by several processes and after a kill: always the same bytes."""

import io

import pytest
from mining_fixtures import Setup, make_mentions
from pipeline_fixtures import contents
from rich.console import Console

from umls_reranker.retrieval import nearest_concepts
from umls_reranker.retrieval.mining import search_share
from umls_reranker.retrieval.mining_report import SOURCES, mining_examples, mining_table
from umls_reranker.retrieval.negatives import MiningConfig

pytest_plugins = ["pipeline_fixtures"]


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    concepts = {f"C{number:07}": ("T2", [f"heart {number % 30} {number}"]) for number in range(90)}
    return Setup(tmp_path_factory.mktemp("setup"), concepts)


@pytest.fixture(scope="module")
def mentions():
    return make_mentions([(f"Heart {n % 30}", f"C{n % 95:07}", []) for n in range(200)])


@pytest.mark.parametrize("processes", [1, 2, 3, 40])
def test_files_do_not_depend_on_the_processes(setup, mentions, processes, monkeypatch):
    monkeypatch.setattr(nearest_concepts, "SHARD", 7)
    _, expected_report, expected = setup.mine(mentions)
    out = setup.path / f"pairs-{setup.runs + 1}"
    for process in reversed(range(processes)):
        search_share(mentions, *setup.searched, MiningConfig(), out, process, processes)
    assert len(list(out.glob(".nearest-*-of-00005.npz"))) == 5
    monkeypatch.setattr(setup.index, "search", None)
    _, report, files = setup.mine(mentions)
    assert (files, report) == (expected, expected_report)


def test_a_killed_search_goes_on(setup, mentions, monkeypatch):
    monkeypatch.setattr(nearest_concepts, "SHARD", 7)
    _, _, expected = setup.mine(mentions)
    out = setup.path / f"pairs-{setup.runs + 1}"
    search, searches = setup.index.search, []

    def killed(vectors, k):
        searches.append(len(vectors))
        if len(searches) == 3:
            raise KeyboardInterrupt
        return search(vectors, k)

    monkeypatch.setattr(setup.index, "search", killed)
    with pytest.raises(KeyboardInterrupt):
        search_share(mentions, *setup.searched, MiningConfig(), out, 0, 1)
    _, _, files = setup.mine(mentions)
    assert files == expected
    # Five shards of 30 strings, two of them done before the kill.
    assert searches == [7, 7, 7, 7, 7, 2]


def test_table_shows_every_count_of_the_report(setup, mentions):
    reports = {"train": setup.mine(mentions)[1], "dev": setup.mine(mentions.select(range(20)))[1]}
    console = Console(file=io.StringIO(), width=120)
    console.print(mining_table(reports))
    rows = {}
    for line in console.file.getvalue().splitlines():
        cells = [cell.strip() for cell in line.split("│")[1:-1]]
        if len(cells) == 3 and cells[0] != "count":
            rows[cells[0]] = [int(cell.replace(",", "")) for cell in cells[1:]]
    assert rows["mentions"] == [200, 20]
    for source in SOURCES:
        assert rows[f"{source} pairs"] == [report["pairs"][source] for report in reports.values()]
    assert rows["dropped, gold concept: nearest"] == [
        report["dropped"]["gold_concept"]["nearest"] for report in reports.values()
    ]
    assert "dropped, related: nearest" not in rows


def test_examples_of_each_kind_are_shown(setup, mentions):
    report = setup.mine(mentions)[1]
    report["examples"]["nearest"][0]["name"] = "[bold]name"
    console = Console(file=io.StringIO(), width=200)
    console.print(mining_examples(report))
    lines = console.file.getvalue().splitlines()
    rows = [[cell.strip() for cell in line.split("\u2502")[1:-1]] for line in lines if line.count("\u2502") == 7]
    assert [row[0] for row in rows if row[0]] == list(SOURCES[1:])
    assert rows[0][1:] == [
        *(report["examples"]["nearest"][0][key] for key in ("mention", "gold_name", "name", "cui")),
        f"{report['examples']['nearest'][0]['cosine']:.2f}",
    ]
    assert f"50% {report['nearest_cosine']['0.5']:.2f}" in " ".join(console.file.getvalue().split())


def test_two_processes_write_the_pairs_of_one(scripts, finished, tmp_path):
    run = tmp_path / finished.folder.name
    run.mkdir()
    for stage in ("concepts", "mentions", "index"):
        (run / stage).symlink_to(finished.folder / stage)
    outcome = scripts.launch("mine_negatives", scripts.recipe, "--output_dir", tmp_path, "--device", "cpu")
    assert (outcome.code, outcome.errors) == (0, []), outcome.err
    assert contents(run / "pairs") == contents(finished.folder / "pairs")
