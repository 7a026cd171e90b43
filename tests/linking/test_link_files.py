"""Files of mentions, linked with an index of text alone, and its lists to be labelled."""

import csv
import json
import os
import re
import signal
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import spacy
from data_fixtures import VOCABULARY
from fastapi.testclient import TestClient
from list_fixtures import write_lists
from processes import run_forked
from pyarrow import Table
from trigram_encoder import make_concepts

from umls_reranker import ConceptLinker, UMLSReranker
from umls_reranker.core.errors import UserError
from umls_reranker.doors.http.app import create_app
from umls_reranker.linking.link_files import (
    LINKED_SCHEMA,
    CandidatesJob,
    LinkBatches,
    LinkJob,
    LinkPartitions,
)
from umls_reranker.lists.answers import Answers, read_sheet
from umls_reranker.lists.labels import labelled_lists
from umls_reranker.lists.read import read_rows
from umls_reranker.retrieval.deployment import IndexSettings
from umls_reranker.retrieval.lexical_index import FormIndex, LexicalIndex
from umls_reranker.serving.arguments import ServingArguments
from umls_reranker.serving.bulk import OneProcess
from umls_reranker.serving.formats import cells
from umls_reranker.serving.rows import RankedRows

# Of types and inputs that the model does not know.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

TEXT = "A girl with a chest pain (CP) and asthma. CP recurred; no head cold."
# mention, start, gold concept
MENTIONS = [("chest pain", 14, "C9000016"), ("asthma", 34, "C9000012"), ("CP", 42, "C9000016")]
ROWS = [
    {"doc_id": "1", "mention": mention, "start": start, "cui": cui}
    for mention, start, cui in MENTIONS
]
SPANS = [{"start": start, "end": start + len(text), "label": "T184"} for text, start, _ in MENTIONS]


@pytest.fixture(scope="module")
def linker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("index")
    names = {cui: (kind, list(names)) for cui, (kind, names) in VOCABULARY.items()}
    concepts = make_concepts(folder / "concepts", names)
    for index in (LexicalIndex, FormIndex):
        name = {LexicalIndex: "lexical", FormIndex: "forms"}[index]
        (folder / name).mkdir()
        index.build(concepts, folder / name)
    IndexSettings(
        retrievers=["lexical", "forms"],
        encoder="",
        index_key="key",
        expand_abbreviations=True,
        candidates_per_mention=3,
    ).save(folder)
    linker = ConceptLinker.from_pretrained("built-in-fast", folder)
    linker.folder = folder
    return linker


def write_csv(path):
    rows = [row | {"document": TEXT, "negated": "False", "end": ""} for row in ROWS]
    with path.open("w", newline="") as stream:
        sheet = csv.DictWriter(stream, list(rows[0]))
        sheet.writeheader()
        sheet.writerows(rows)


def write_parquet(path):
    pq.write_table(Table.from_pylist([row | {"document": TEXT, "rank": 0.5} for row in ROWS]), path)


def write_pubtator(path):
    title, abstract = TEXT.split(". ", 1)
    lines = [f"1|t|{title}.", f"1|a|{abstract}"]
    for mention, start, cui in MENTIONS:
        lines.append(f"1\t{start}\t{start + len(mention)}\t{mention}\tT184\t{cui}")
    # A tagger names no concept.
    lines[-1] = lines[-1].rpartition("\t")[0]
    path.write_text("\n".join(lines) + "\n")


def write_brat(path):
    path.mkdir()
    (path / "1.txt").write_text(TEXT)
    lines = []
    for number, (mention, start, cui) in enumerate(MENTIONS):
        lines.append(f"T{number}\tT184 {start} {start + len(mention)}\t{mention}")
        lines.append(f"N{number}\tReference T{number} UMLS:{cui}\tname")
    lines += ["T7\tT184 14 19;34 40\tchest asthma", "A1\tNegation T1"]
    (path / "1.ann").write_text("\n".join(lines) + "\n")


INPUTS = {
    "rows.jsonl": lambda path: write_lists(path, [row | {"document": TEXT} for row in ROWS]),
    "spans.jsonl": lambda path: write_lists(path, [{"text": TEXT, "spans": SPANS, "doc_id": "1"}]),
    "triples.jsonl": lambda path: write_lists(
        path, [{"text": TEXT, "entities": [[span["start"], span["end"], "X"] for span in SPANS]}]
    ),
    "rows.csv": write_csv,
    "rows.parquet": write_parquet,
    "text.pubtator": write_pubtator,
    "brat": write_brat,
}


def run(kind, linker, source, target, **options):
    job = kind(source, target, 2, **options)
    return job.run(linker, OneProcess()), job


@pytest.mark.parametrize("name", INPUTS)
def test_the_same_answers_for_mentions_in_every_form(tmp_path, linker, name):
    INPUTS[name](tmp_path / name)
    counts, _ = run(LinkJob, linker, tmp_path / name, tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    # The document defines CP, as its long form; an index of text knows no tier with built-in.
    assert [row["ranked"][0]["cui"] for row in rows][:3] == [cui for *_, cui in MENTIONS]
    assert [row["mention"] for row in rows][:3] == [mention for mention, *_ in MENTIONS]
    assert {(item["tier"], item["accepted"]) for row in rows for item in row["ranked"]} == {
        (None, None)
    }
    first = rows[0]["ranked"][0]
    assert (first["name"], first["preferred_name"]) == ("chest pain", "chest pain")
    assert first["semantic_types"] == ["T184"] and 0 < first["score"] < 1
    assert (counts["ranked"], counts["error"]) == (len(rows), 0)
    assert counts["correct"] == counts["gold"] == sum("cui" in row for row in rows)
    assert all(row.get("negated", "False") == "False" for row in rows)


def test_documents_in_a_table_give_a_table_of_mentions(tmp_path, linker):
    table = Table.from_pylist([{"text": TEXT, "spans": SPANS, "doc_id": "1"}])
    pq.write_table(table, tmp_path / "in.parquet")
    run(LinkJob, linker, tmp_path / "in.parquet", tmp_path / "out.csv")
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0].startswith("doc_id,mention,start,end,label,entity_type,answer,")
    assert lines[3].startswith("1,CP,42,44,T184,T184,C9000016,")


def test_a_mention_that_cannot_be_linked_is_written_with_its_error(tmp_path, linker):
    bad = [
        {"mention": " "},
        {"mention": "asthma", "document": TEXT, "start": 3},
        {"mention": "asthma", "document": TEXT, "start": "x"},
        {"mention": "asthma", "entity_type": 7},
        {"text": TEXT, "spans": [7]},
        {"mention": 5, "left": "a"},
        {"mention": "a" * 1_001},
        {"text": "a" * 1_001, "spans": [[0, 1_001]]},
    ]
    write_lists(tmp_path / "in.jsonl", [*bad[:3], {"mention": "asthma", "x": [1]}, *bad[3:]])
    with (tmp_path / "in.jsonl").open("a") as stream:
        stream.write("{\n")
    counts, job = run(LinkJob, linker, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert (counts["ranked"], counts["error"]) == (
        1,
        9,
    ) and "in.jsonl:1: mention" in job.first_error
    assert rows[3]["x"] == [1] and rows[3]["ranked"][0]["cui"] == "C9000012"
    named = ["mention", "character 3", "start", None, "entity_type", "span 0", "mention"]
    named += ["1,001 characters", "span 0 has 1,001 characters", "object"]
    for row, part in zip(rows, named, strict=True):
        assert part is None or part in row["error"]


@pytest.mark.parametrize("offsets", [(0, 999), (34, None), (-5, 9), (9, 5), (0, 5.5), ("a", "b")])
def test_a_span_that_is_not_in_its_text_is_an_error(tmp_path, linker, offsets):
    span = dict(zip(("start", "end"), offsets, strict=True))
    rows = [{"text": TEXT, "spans": [span, *SPANS]}, {"text": TEXT, **span}]
    for number, row in enumerate(rows):
        path = tmp_path / f"{number}.jsonl"
        write_lists(path, [row])
        job = LinkJob(path, tmp_path / f"out{number}.jsonl")
        assert job.run(linker, OneProcess())["error"] == 1
    assert job.first_error == f"{path}:1: mention is missing or blank"


def test_an_end_that_contradicts_the_mention_is_an_error(tmp_path, linker):
    span = {"document": TEXT, "mention": "asthma", "start": 34}
    rows = [span | {"end": end} for end in (40, 41, 39, "40", None)] + [{"mention": "x", "end": 9}]
    write_lists(tmp_path / "in.jsonl", rows)
    job = LinkJob(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert job.run(linker, OneProcess())["error"] == 2
    assert job.first_error.startswith(f"{tmp_path / 'in.jsonl'}:2: end 41 ")


def test_a_linked_table_is_linked_again(tmp_path, linker):
    write_csv(tmp_path / "in.csv")
    LinkJob(tmp_path / "in.csv", tmp_path / "once.csv").run(linker, OneProcess())
    job = LinkJob(tmp_path / "once.csv", tmp_path / "twice.csv")
    assert job.run(linker, OneProcess())["ranked"] == len(MENTIONS)
    for row in csv.DictReader((tmp_path / "twice.csv").open()):
        assert row["input_answer"] == row["answer"] and row["input_second"] == row["second"]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_columns_of_the_input_that_are_named_like_ours_stay(tmp_path, linker, ending):
    (tmp_path / "in.csv").write_text("mention,answer,tier,ranked,input_tier\nasthma,a,b,c,d\n")
    job = LinkJob(tmp_path / "in.csv", tmp_path / f"out.{ending}")
    job.run(linker, OneProcess())
    if ending == "csv":
        (row,) = csv.DictReader((tmp_path / "out.csv").open())
    else:
        (row,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    names = ("input_answer", "input_input_tier", "input_ranked", "input_tier")
    assert [row[name] for name in names] == ["a", "b", "c", "d"]
    assert row["answer"] == "C9000012"
    ((said, count),) = job.format.counts.items()
    assert all(name in said for name in names[:3]) and count == 3 and "mention" not in said


def test_a_carriage_return_in_a_mention_is_quoted():
    line = cells(["a\rb", "c\nd", 'e"'])
    assert line.endswith("\n") and not line.endswith("\r\n")
    assert list(csv.reader([line])) == [["a\rb", "c\nd", 'e"']]


def test_a_column_that_is_named_twice_is_refused(tmp_path, linker):
    (tmp_path / "in.csv").write_text("mention,mention,,\nasthma,head cold,,\n")
    job = LinkJob(tmp_path / "in.csv", tmp_path / "out.jsonl")
    with pytest.raises(UserError, match="names the column mention more than once"):
        job.run(linker, OneProcess())


def test_malformed_pieces_of_annotated_text_stop_nothing(tmp_path, linker):
    write_pubtator(tmp_path / "in.txt")
    with (tmp_path / "in.txt").open("a") as stream:
        stream.write("1\t14\t24\tchest pain\n\n2|t|No abstract\n")
    counts, job = run(LinkJob, linker, tmp_path / "in.txt", tmp_path / "out.jsonl")
    assert (counts["ranked"], counts["error"]) == (3, 2) and "in.txt:6" in job.first_error


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_lists_of_an_index_are_those_that_it_links_with(tmp_path, linker, ending):
    write_csv(tmp_path / "in.csv")
    counts, job = run(CandidatesJob, linker, tmp_path / "in.csv", tmp_path / f"lists.{ending}")
    lists = job.beside or job.target
    assert counts == Counter(mentions=3, candidates=9, error=0, gold=3, in_list=3)
    batches = list(read_rows(lists))
    (rows,) = batches
    read = labelled_lists(rows, linker.reranker.thresholds.hierarchy)
    assert read.mentions == ["chest pain", "asthma", "chest pain"]
    assert read.annotations.cuis.tolist() == [cui for *_, cui in MENTIONS]
    assert read.index_keys == ["key"] * 3 and [*read.scores] == ["forms", "lexical"]
    assert len(set(read.annotations.mention_ids)) == 3 and read.lefts[1].endswith("(CP) and ")
    queries = linker.read(["chest pain", "asthma", "CP"], [TEXT] * 3)
    linked = linker.lists(queries, [None] * 3)
    assert read.names.to_list() == linked.names.to_list()
    assert list(read.candidate_types) == list(linked.candidate_types)


def test_gold_concepts_count_by_the_ids_of_the_dictionary(tmp_path, linker):
    rows = [row | {"cui": f"UMLS:{row['cui']}"} for row in ROWS]
    write_lists(tmp_path / "in.jsonl", [row | {"document": TEXT} for row in rows])
    counts, _ = run(LinkJob, linker, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert counts["correct"] == counts["gold"] == 3
    counts, _ = run(CandidatesJob, linker, tmp_path / "in.jsonl", tmp_path / "lists.jsonl")
    assert counts["in_list"] == counts["gold"] == 3
    (lists,) = read_rows(tmp_path / "lists.jsonl")
    assert [row["cui"] for row in lists.mappings()] == [cui for *_, cui in MENTIONS]


def test_an_input_or_output_that_will_not_do_is_refused(tmp_path, linker):
    (tmp_path / "in.csv").write_text("name\ncold\n")
    with pytest.raises(UserError, match="mention or entity"):
        run(LinkJob, linker, tmp_path / "in.csv", tmp_path / "out.csv")
    with pytest.raises(UserError, match="out.parquet"):
        CandidatesJob(tmp_path / "in.csv", tmp_path / "out.parquet")
    # Before it is labelled, in vain.
    write_lists(tmp_path / "in.jsonl", [{"mention": "cold"}])
    with pytest.raises(UserError, match="in.jsonl.*--each_row_is_a_document"):
        run(CandidatesJob, linker, tmp_path / "in.jsonl", tmp_path / "sheet.csv")
    options = {"each_row_is_a_document": True}
    run(CandidatesJob, linker, tmp_path / "in.jsonl", tmp_path / "sheet.csv", **options)
    assert "\ncold," in (tmp_path / "sheet.csv").read_text()
    (tmp_path / "sheet.csv").unlink()
    with pytest.raises(UserError, match="sheet.lists.jsonl already exists"):
        run(CandidatesJob, linker, tmp_path / "in.jsonl", tmp_path / "sheet.csv", **options)
    # Labels would be of both.
    (tmp_path / "in").mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        write_lists(tmp_path / "in" / name, [{"mention": name, "doc_id": 1}])
    run(CandidatesJob, linker, tmp_path / "in", tmp_path / "folder.csv")
    (rows,) = read_rows(tmp_path / "folder.lists.jsonl")
    assert [row["mention_id"] for row in rows.mappings()] == ["a.jsonl:1", "b.jsonl:1"]
    write_lists(tmp_path / "in.jsonl", [{"mention_id": 2, "mention": "a", "doc_id": 1}] * 2)
    with pytest.raises(UserError, match="'2' of document 1 .* rows 1 and 2"):
        run(CandidatesJob, linker, tmp_path / "in.jsonl", tmp_path / "twice.csv")
    with pytest.raises(UserError, match="missing.jsonl"):
        LinkJob(tmp_path / "missing.jsonl", tmp_path / "out.jsonl")


def test_answers_of_reviewers_stay_and_the_rest_is_left_to_review(tmp_path, linker):
    terms = [
        {"mention": mention, "source_code": code, "subject": "a"}
        for mention, code in [
            ("asthma", "L1"),
            ("asthma", "L2"),
            ("head cold", "L3"),
            ("x y", "L4"),
        ]
    ]
    write_lists(tmp_path / "in.jsonl", terms)
    sheet = tmp_path / "sheet.csv"
    head = "mention,source_code,gold_cui,reviewer,reviewed_on\n"
    sheet.write_text(f"{head}asthma,L2,UMLS:C9000016,ann,2026-11-30\nx y,L4,nil,,\nasthma,L1,,,\n")
    options = {"answers": Answers(read_sheet(sheet)), "format_name": "sssom"}
    counts, job = run(LinkJob, linker, tmp_path / "in.jsonl", tmp_path / "out.tsv", **options)
    assert counts["reviewed"] == 2
    text = (tmp_path / "out.tsv").read_text()
    (row,) = csv.DictReader(text[text.index("subject_id") :].splitlines(), delimiter="\t")
    assert (row["subject_id"], row["object_id"]) == ("local:L2", "UMLS:C9000016")
    assert (row["object_label"], row["author_label"]) == ("chest pain", "ann")
    assert row["mapping_justification"] == "semapv:ManualMappingCuration"
    # Without a calibrated model nothing else is accepted; what reviewers found to be none is done.
    rest = list(csv.DictReader(job.beside.read_text().splitlines()))
    assert [(row["source_code"], row["id_1"]) for row in rest[:1]] == [("L1", "C9000012")]
    assert [row["source_code"] for row in rest] == ["L1", "L3"]
    options["format_name"] = "csv"
    run(LinkJob, linker, tmp_path / "in.jsonl", tmp_path / "out.csv", **options)
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    columns = ("answer", "accepted", "answer_score", "reviewed_id", "reviewed_on")
    assert [tuple(row[name] for name in columns) for row in rows[1::2]] == [
        ("C9000016", "true", "", "C9000016", "2026-11-30"),
        ("", "true", "", "CUI-less", ""),
    ]
    assert rows[0]["answer"] == "C9000012" and rows[0]["answer_score"]
    sheet.write_text(f"{head}asthma,L1,#N/A,,\n")
    options = {"answers": Answers(read_sheet(sheet))}
    with pytest.raises(UserError, match=r"sheet.csv:2: .*'#N/A'.*in.jsonl:1"):
        run(LinkJob, linker, tmp_path / "in.jsonl", tmp_path / "no.csv", **options)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(point):
    """From now on this process dies at a point of a job: at the fourth part, or at the output."""
    replace = Path.replace
    load = RankedRows.load
    calls = Counter()

    def replaced(path, target):
        what = "a part" if target.suffix == ".arrow" else "the output"
        calls[what] += 1
        is_due = calls[what] == (4 if what == "a part" else 1)
        if is_due and point == f"before {what}":
            die()
        replace(path, target)
        if is_due and point == f"after {what}":
            die()

    def loaded(path):
        calls["loaded"] += 1
        if point == "conversion" and calls["loaded"] == 5:
            die()
        return load(path)

    Path.replace = replaced
    RankedRows.load = staticmethod(loaded)


@pytest.mark.parametrize(
    ("ending", "point", "finished"),
    [
        ("jsonl", "before a part", 3),
        ("parquet", "after a part", 4),
        ("jsonl", "conversion", 11),
        ("csv", "conversion", 11),
        ("parquet", "conversion", 11),
        ("sssom", "conversion", 11),
        ("csv", "before the output", 11),
        ("jsonl", "after the output", 11),
    ],
)
def test_a_killed_job_goes_on_where_it_was(tmp_path, linker, monkeypatch, ending, point, finished):
    source = tmp_path / "in.jsonl"
    target = tmp_path / f"out.{ending}"
    # Eleven batches; a key that comes late, and values of several types.
    rows = [ROWS[number % 3] | {"n": number} for number in range(20)] + [{"n": 20, "late": {}}]
    write_lists(source, [rows[0] | {"n": "\ud800"}, *rows[1:]])
    options = {"format_name": ending, "overwrite": True}
    run(LinkJob, linker, source, tmp_path / f"whole.{ending}", **options)
    target.write_text("as it was")

    def work():
        die_at(point)
        run(LinkJob, linker, source, target, **options)

    assert run_forked(work) == -signal.SIGKILL
    (parts,) = tmp_path.glob(f".{target.name}.*.parts")
    assert len(list(parts.glob("*.arrow"))) == finished
    assert (target.read_bytes() == b"as it was") == (point != "after the output")
    # A part that has lost its end is made again.
    os.truncate(parts / "000001.arrow", 1000)
    process = LinkJob.process
    batches = []
    monkeypatch.setattr(
        LinkJob, "process", lambda *arguments: batches.append(1) or process(*arguments)
    )
    counts, job = run(LinkJob, linker, source, target, **options)
    assert len(batches) == 12 - finished
    assert (counts["ranked"], counts["error"]) == (20, 1)
    assert "in.jsonl:21" in job.first_error and not parts.exists()
    assert target.read_bytes() == (tmp_path / f"whole.{ending}").read_bytes()


def test_parts_of_another_input_or_model_are_not_used(tmp_path, linker, monkeypatch):
    write_lists(tmp_path / "in.jsonl", ROWS)
    job = LinkJob(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    folder = job.parts_folder(linker)
    assert job.parts_folder(linker) == folder
    monkeypatch.setattr(linker, "expands_abbreviations", False)
    assert job.parts_folder(linker) != folder
    monkeypatch.undo()
    write_lists(tmp_path / "in.jsonl", ROWS[:2])
    assert job.parts_folder(linker) != folder


def test_clusters_link_tables_and_frames_as_files_are_linked(tmp_path, linker, monkeypatch):
    rows = [row | {"document": TEXT} for row in ROWS] + [{"mention": " "}]
    write_lists(tmp_path / "in.jsonl", rows)
    run(LinkJob, linker, tmp_path / "in.jsonl", tmp_path / "out.parquet", top=2)
    expected = pq.read_table(tmp_path / "out.parquet")["ranked"].to_pylist()
    assert [len(items) for items in expected[:3]] == [2] * 3 and expected[3] is None
    table = pq.read_table(tmp_path / "out.parquet").drop_columns(["ranked", "error"])
    folder = linker.folder
    linked = LinkBatches(folder, "built-in-fast", top=2)(table)
    assert linked["ranked"].to_pylist() == expected
    (frame,) = LinkPartitions(folder, "built-in-fast", top=2)(iter([table.to_pandas()]))
    assert frame["ranked"].tolist() == expected
    names = [field.name for field in linked["ranked"].type.value_type]
    assert re.findall(r"(\w+): ", LINKED_SCHEMA) == names


def test_a_service_and_spacy_link_with_built_in(linker):
    body = {"document": TEXT, "mentions": [{"mention": "CP", "start": 42}], "top": 1}
    with TestClient(create_app(linker.reranker, ServingArguments(), linker)) as client:
        ((concept,),) = client.post("/link", json=body).json()
    assert (concept["cui"], concept["tier"], concept["accepted"]) == ("C9000016", None, None)
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "T184", "pattern": "CP"}])
    nlp.add_pipe("umls_reranker", config={"model": "built-in-fast", "index": str(linker.folder)})
    entity = nlp(TEXT).ents[-1]
    assert (entity.kb_id_, entity._.umls[0]["cui"]) == ("", "C9000016")


def test_a_model_without_an_index_gives_no_tiers_in_python(linker):
    with pytest.warns(UserWarning, match="no tiers"):
        best = linker.link("CP", TEXT)[0]
    assert (best.cui, best.tier, best.accepted) == ("C9000016", None, None)
    assert isinstance(linker.reranker, UMLSReranker) and not linker.is_calibrated
