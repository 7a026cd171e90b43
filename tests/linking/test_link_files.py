"""Files of mentions, linked with an index of text alone, and its lists to be labelled."""

import csv
import json
import os
import re
import shutil
import signal
from collections import Counter
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import spacy
from data_fixtures import VOCABULARY
from fastapi.testclient import TestClient
from list_fixtures import assert_alike, write_lists
from processes import run_forked
from pyarrow import Table
from tiny_reranker import refused
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
from umls_reranker.linking.ruled_out import without_concepts
from umls_reranker.lists.labels import labelled_lists
from umls_reranker.lists.read import STDIN, read_rows
from umls_reranker.retrieval.index_settings import IndexSettings
from umls_reranker.retrieval.lexical_index import FormIndex, LexicalIndex
from umls_reranker.serving.arguments import ServingArguments
from umls_reranker.serving.file_jobs import OneProcess
from umls_reranker.serving.mapping_formats import table_line
from umls_reranker.serving.output_format import FormatSettings
from umls_reranker.serving.row_counts import RowCounts
from umls_reranker.serving.rows import RankedRows
from umls_reranker.serving.samples import Sample

pytest_plugins = ["pipeline_fixtures"]

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
    names = {cui: (kind, list(names)) for cui, (kind, names) in VOCABULARY.items()}
    return open_linker(tmp_path_factory.mktemp("index"), names)


def open_linker(folder, names):
    """A linker with an index of text of these concepts."""
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
    assert (counts.ranked, counts.errors) == (len(rows), 0)
    assert counts.correct == counts.with_gold == sum("cui" in row for row in rows)
    assert all(row.get("negated", "False") == "False" for row in rows)


def test_documents_in_a_table_give_a_table_of_mentions(tmp_path, linker):
    table = Table.from_pylist([{"text": TEXT, "spans": SPANS, "doc_id": "1"}])
    pq.write_table(table, tmp_path / "in.parquet")
    run(LinkJob, linker, tmp_path / "in.parquet", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as lines:
        row = list(csv.DictReader(lines))[2]
    # Arrow decides about the order of the columns that come from the spans.
    assert {*list(row)[:5]} == {"doc_id", "mention", "start", "end", "label"}
    expected = {"doc_id": "1", "mention": "CP", "start": "42", "end": "44", "label": "T184"}
    assert_alike(row, expected | {"entity_type": "T184", "answer": "C9000016"})


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
    assert (counts.ranked, counts.errors) == (
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
        assert job.run(linker, OneProcess()).errors == 1
    assert job.first_error == f"{path}:1: mention is missing or blank"


def test_an_end_that_contradicts_the_mention_is_an_error(tmp_path, linker):
    span = {"document": TEXT, "mention": "asthma", "start": 34}
    rows = [span | {"end": end} for end in (40, 41, 39, "40", None)] + [{"mention": "x", "end": 9}]
    write_lists(tmp_path / "in.jsonl", rows)
    job = LinkJob(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert job.run(linker, OneProcess()).errors == 2
    assert job.first_error.startswith(f"{tmp_path / 'in.jsonl'}:2: end 41 ")


def test_a_linked_table_is_linked_again(tmp_path, linker):
    write_csv(tmp_path / "in.csv")
    LinkJob(tmp_path / "in.csv", tmp_path / "once.csv").run(linker, OneProcess())
    job = LinkJob(tmp_path / "once.csv", tmp_path / "twice.csv")
    assert job.run(linker, OneProcess()).ranked == len(MENTIONS)
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


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize("source", ["csv", "parquet", "jsonl"])
def test_a_column_error_of_the_input_is_no_reason(tmp_path, linker, source, ending):
    rows = [{"mention": "asthma", "error": text} for text in ("0", "", "none")]
    path = tmp_path / f"in.{source}"
    if source == "jsonl":
        write_lists(path, rows)
    elif source == "csv":
        path.write_text("mention,error\nasthma,0\nasthma,\nasthma,none\n")
    else:
        pq.write_table(Table.from_pylist(rows), path)
    counts, job = run(LinkJob, linker, path, tmp_path / f"out.{ending}")
    assert (counts.ranked, counts.errors, job.first_error) == (3, 0, None)
    linked = read_table(tmp_path / f"out.{ending}")
    assert [row.get("input_error") or "" for row in linked] == ["0", "", "none"]
    assert not any(row.get("error") for row in linked)
    assert not any("reading_error" in key for row in linked for key in row)


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_a_corrected_row_of_a_former_output_is_linked(tmp_path, linker, ending):
    write_lists(tmp_path / "in.jsonl", [{"mention": "asthma"}, {"mention": " "}])
    former = tmp_path / f"out.{ending}"
    counts, _ = run(LinkJob, linker, tmp_path / "in.jsonl", former)
    assert (counts.ranked, counts.errors) == (1, 1)
    rows = read_table(former)
    assert rows[1]["error"]
    rows[1]["mention"] = "chest pain"
    if ending == "csv":
        with former.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    elif ending == "parquet":
        table = pq.read_table(former)
        mentions = [[row["mention"] for row in rows]]
        number = table.column_names.index("mention")
        pq.write_table(table.set_column(number, "mention", mentions), former)
    else:
        write_lists(former, rows)
    counts, _ = run(LinkJob, linker, former, tmp_path / f"again.{ending}")
    assert (counts.ranked, counts.errors) == (2, 0)
    again = read_table(tmp_path / f"again.{ending}")
    assert not any(row.get("error") for row in again)


def read_table(path):
    """The rows of an output, as mappings."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".csv":
        return list(csv.DictReader(path.read_text().splitlines()))
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_carriage_return_in_a_mention_is_quoted():
    line = table_line(["a\rb", "c\nd", 'e"'])
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
    assert (counts.ranked, counts.errors) == (3, 2) and "in.txt:6" in job.first_error


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_lists_of_an_index_are_those_that_it_links_with(tmp_path, linker, ending):
    write_csv(tmp_path / "in.csv")
    counts, job = run(CandidatesJob, linker, tmp_path / "in.csv", tmp_path / f"lists.{ending}")
    lists = job.beside or job.target
    assert counts == RowCounts(searched=3, candidates=9, with_gold=3, with_gold_in_list=3)
    batches = list(read_rows(lists))
    (rows,) = batches
    read = labelled_lists(rows, linker.reranker.thresholds.hierarchy)
    assert read.mentions == ["chest pain", "asthma", "chest pain"]
    assert read.annotations.cuis.tolist() == [cui for *_, cui in MENTIONS]
    assert read.index_keys == ["key"] * 3 and [*read.scores] == ["forms", "lexical"]
    assert len(set(read.annotations.mention_ids)) == 3 and read.lefts[1].endswith("(CP) and ")
    table = linker.read(["chest pain", "asthma", "CP"], [TEXT] * 3)
    linked = linker.reranker.read_table(linker.with_candidates(table))
    assert read.names.to_list() == linked.names.to_list()
    assert list(read.candidate_types) == list(linked.candidate_types)


def test_gold_concepts_count_by_the_ids_of_the_dictionary(tmp_path, linker):
    rows = [row | {"cui": f"UMLS:{row['cui']}"} for row in ROWS]
    write_lists(tmp_path / "in.jsonl", [row | {"document": TEXT} for row in rows])
    counts, _ = run(LinkJob, linker, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert counts.correct == counts.with_gold == 3
    counts, _ = run(CandidatesJob, linker, tmp_path / "in.jsonl", tmp_path / "lists.jsonl")
    assert counts.with_gold_in_list == counts.with_gold == 3
    (lists,) = read_rows(tmp_path / "lists.jsonl")
    assert [row["cui"] for row in lists.mappings()] == [cui for *_, cui in MENTIONS]


@pytest.fixture(scope="module")
def namesakes(tmp_path_factory):
    """A linker with two concepts of one name and type."""
    folder = tmp_path_factory.mktemp("namesakes")
    names = {
        "C1": ("T047", ["3-M syndrome", "dwarfism"]),
        "C2": ("T047", ["3-M syndrome", "gloom"]),
    }
    return open_linker(folder, names)


def test_a_sheet_tells_candidates_of_one_name_apart(tmp_path, namesakes):
    (tmp_path / "in.csv").write_text("mention,doc_id\n3-M syndrome,1\n")
    run(CandidatesJob, namesakes, tmp_path / "in.csv", tmp_path / "sheet.csv")
    with (tmp_path / "sheet.csv").open() as stream:
        (line,) = csv.DictReader(stream)
    assert line["name_1"] == line["name_2"] == "3-M syndrome"
    of_ids = {line["id_1"]: line["about_1"], line["id_2"]: line["about_2"]}
    assert "dwarfism" in of_ids["C1"] and "gloom" in of_ids["C2"]


def drawn_sheet(linker, folder, sample, **options):
    """The sheet's documents in their order, the rows of its lists, and the job."""
    target = sample.named(folder / "sheet.csv")
    _, job = run(CandidatesJob, linker, folder / "in.csv", target, sample=sample, **options)
    with target.open() as stream:
        lines = list(csv.DictReader(stream))
    # A term is its own document.
    documents = list(dict.fromkeys(line.get("doc_id", line["mention"]) for line in lines))
    lists = target.with_suffix(".lists.jsonl").read_text().splitlines()
    return documents, list(map(json.loads, lists)), job


def test_a_sample_is_drawn_in_whole_documents(tmp_path, linker):
    lines = [f"d{number // 2},asthma,{number}\n" for number in range(240)]
    (tmp_path / "in.csv").write_text("doc_id,mention,note\n" + "".join(lines))
    first, rows, job = drawn_sheet(linker, tmp_path, Sample(1, 8, 13))
    later, later_rows, _ = drawn_sheet(linker, tmp_path, Sample(9, 20, 13))
    assert (len(first), len(later), {*first} & {*later}) == (8, 12, set())
    assert job.target.name == "sheet.sample_1-8_seed_13.csv"
    # One order, whose numbers each sheet goes on with.
    positions = [row["sample_position"] for row in (*rows, *later_rows)]
    assert positions == list(range(1, 41))
    assert drawn_sheet(linker, tmp_path, Sample(1, 8, 14))[0] != first
    with pytest.raises(UserError, match="120 documents"):
        drawn_sheet(linker, tmp_path, Sample(121, 130, 13))
    with pytest.raises(UserError, match="stdin"):
        CandidatesJob(STDIN, tmp_path / "out.csv", sample=Sample(1, 8, 13))


def test_terms_are_a_sample_if_they_are_said_to_be_documents(tmp_path, linker):
    terms = [f"asthma {number}" for number in range(250)]
    (tmp_path / "in.csv").write_text("mention\n" + "\n".join(terms))
    drawn, *_ = drawn_sheet(linker, tmp_path, Sample(1, 5, 13), each_row_is_a_document=True)
    assert len(drawn) == 5 and {*drawn} < {*terms}


def test_rows_without_text_are_not_drawn_and_are_named(tmp_path, linker):
    terms = ["asthma 1", " ", "asthma 2", "", "asthma 3"]
    lines = [f"{number},{term}" for number, term in enumerate(terms)]
    (tmp_path / "in.csv").write_text("source_code,mention\n" + "\n".join(lines))
    drawn, rows, job = drawn_sheet(linker, tmp_path, Sample(1, 5, 13), each_row_is_a_document=True)
    assert sorted(drawn) == ["asthma 1", "asthma 2", "asthma 3"]
    assert [row["sample_position"] for row in rows] == [1, 2, 3]
    # The header is the first line.
    assert list(map(str, job.drawn.without_text)) == [f"{tmp_path / 'in.csv'}:{n}" for n in (3, 5)]


@pytest.mark.parametrize("text", ["0", "x", "5-3", "-4", "3-"])
def test_a_sample_is_a_number_or_those_that_follow(text):
    with pytest.raises(ValueError):
        Sample.parse(text, 13)
    assert Sample.parse("200", 13) == Sample(1, 200, 13)
    assert Sample.parse("201-400", 1) == Sample(201, 400, 1)


@pytest.mark.parametrize("answer", [{"choice": "1"}, {"gold_cui": "C9000004"}])
def test_a_sheet_with_answers_is_not_replaced(tmp_path, linker, answer):
    write_csv(tmp_path / "in.csv")
    sheet = tmp_path / "sheet.csv"
    run(CandidatesJob, linker, tmp_path / "in.csv", sheet)
    # The gold concepts that the input brought are no answers.
    run(CandidatesJob, linker, tmp_path / "in.csv", sheet, overwrite=True)
    with sheet.open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    lines[1] |= answer
    with sheet.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    labelled = sheet.read_bytes()
    for job in (CandidatesJob, LinkJob):
        with pytest.raises(UserError, match=r"sheet\.csv:3: .*answers"):
            run(job, linker, tmp_path / "in.csv", sheet, overwrite=True)
    assert sheet.read_bytes() == labelled
    # A table of answers brings the columns of its input.
    run(LinkJob, linker, sheet, tmp_path / "out.csv")
    run(LinkJob, linker, sheet, tmp_path / "out.csv", overwrite=True)


def test_the_sheet_of_what_is_not_accepted_is_not_replaced_once_answered(tmp_path, linker):
    write_csv(tmp_path / "in.csv")
    options = {"format_name": "sssom"}
    run(LinkJob, linker, tmp_path / "in.csv", tmp_path / "out.tsv", **options)
    sheet = tmp_path / "out.candidates.csv"
    sheet.write_text("mention,choice,id_1,gold_cui\nasthma,1,C9000004,\n")
    options["overwrite"] = True
    for reviewed in ([], [sheet]):
        with pytest.raises(UserError, match=r"out\.candidates\.csv"):
            LinkJob(tmp_path / "in.csv", tmp_path / "out.tsv", reviewed=reviewed, **options)
    # Nor is a sheet that is read.
    with pytest.raises(UserError, match=r"own\.csv is also the input"):
        (tmp_path / "own.csv").write_text("mention,gold_cui\nasthma,C9000004\n")
        own = tmp_path / "own.csv"
        LinkJob(tmp_path / "in.csv", own, reviewed=[own], overwrite=True)


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
    options = {"reviewed": [sheet], "format_name": "sssom"}
    counts, job = run(LinkJob, linker, tmp_path / "in.jsonl", tmp_path / "out.tsv", **options)
    assert counts.reviewed == 2
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


def test_answers_to_a_changed_text_are_not_used_and_counted(tmp_path, linker):
    texts = ["asthma attack", "head cold", "asthma"]
    rows = [{"mention": text, "mention_id": str(number)} for number, text in enumerate(texts)]
    write_lists(tmp_path / "in.jsonl", rows)
    sheet = tmp_path / "sheet.csv"
    sheet.write_text("mention_id,mention,gold_cui\n0,asthma,C9000012\n1,head cold,C9000004\n")
    options = {"reviewed": [sheet]}
    counts, job = run(LinkJob, linker, tmp_path / "in.jsonl", tmp_path / "out.jsonl", **options)
    assert (counts.reviewed, counts.of_changed_text) == (2, 1)
    reviewed = [row.get("reviewed_id") for row in linked_rows(tmp_path / "out.jsonl")]
    assert reviewed == [None, "C9000004", "C9000012"]
    assert any("no longer" in line for line in job.report(linker, counts))


def test_what_a_reviewer_ruled_out_is_no_answer(tmp_path, linker):
    write_lists(tmp_path / "in.jsonl", [{"mention": "head cold"}, {"mention": "asthma"}])
    head = "subject_label\tpredicate_id\tpredicate_modifier\tobject_id\tmapping_justification\n"
    decision = "skos:exactMatch\tNot\tumls:{}\tsemapv:ManualMappingCuration\n"
    sheet = tmp_path / "negative.sssom.tsv"
    rows = [f"head cold\t{decision.format('C9000004')}", f"asthma\t{decision.format('C9000004')}"]
    sheet.write_text(head + "".join(rows))
    counts, job = run(LinkJob, linker, tmp_path / "in.jsonl", tmp_path / "all.jsonl")
    options = {"reviewed": [sheet]}
    counts, job = run(LinkJob, linker, tmp_path / "in.jsonl", tmp_path / "out.jsonl", **options)
    before, after = (
        [json.loads(line)["ranked"] for line in (tmp_path / name).read_text().splitlines()]
        for name in ("all.jsonl", "out.jsonl")
    )
    assert before[0][0]["cui"] == "C9000004" and counts.ruled_out == 1
    # Its place stays empty: the second is not the first now.
    assert after[0] == before[0][1:] and after[0][0]["rank"] == 2
    assert after[1] == [item for item in before[1] if item["cui"] != "C9000004"]
    assert any("ruled out" in line for line in job.report(linker, counts))


def test_a_tier_of_what_was_ruled_out_is_not_counted():
    items = [{"cui": cui, "tier": "high", "accepted": True} for cui in ("C1", "C2")]
    ranked = Table.from_pylist([{"ranked": items}, {"ranked": None}, {"ranked": items[1:]}])
    rows = RankedRows([{}] * 3, ranked["ranked"].combine_chunks(), [None, "error", None])
    left, changes = without_concepts(rows, {0: {"C1"}, 2: {"C1"}})
    assert left.ranked.to_pylist() == [items[1:], None, items[1:]]
    assert changes == RowCounts(ruled_out=1, accepted=-1, high=-1, reject=1)


def test_all_answers_that_the_index_lacks_are_named_at_once(tmp_path, linker):
    terms = [f"term {number}" for number in range(15)]
    write_lists(tmp_path / "in.jsonl", [{"mention": term} for term in ("asthma", *terms)])
    sheet = tmp_path / "sheet.csv"
    wrong = ["#N/A", "1", "chest pain", "c9000016", "C9000016|", *map(str, range(2, 12))]
    lines = [f"{term},{answer}\n" for term, answer in zip(terms, wrong, strict=True)]
    others = ["asthma,C9000012\n"]
    sheet.write_text("".join(["mention,gold_cui\n", *lines, *others]))
    options = {"reviewed": [sheet]}
    said = refused(run, LinkJob, linker, tmp_path / "in.jsonl", tmp_path / "no.csv", **options)
    for line, answer in enumerate(wrong[:4], start=2):
        assert f"sheet.csv:{line}: " in said and repr(answer) in said
    # One has a blank id; ten are named.
    assert "sheet.csv:6: " in said and said.count("sheet.csv:") == 10 and " 5 more" in said
    assert not list(tmp_path.glob("*no.csv*"))
    # An answer that no row asks for may be of another index.
    write_lists(tmp_path / "in.jsonl", [{"mention": "asthma"}])
    counts, _ = run(LinkJob, linker, tmp_path / "in.jsonl", tmp_path / "yes.csv", **options)
    assert counts.reviewed == 1


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(point):
    """From now on this process dies at a point of a job: at the fourth part, or at the output."""
    replace = Path.replace
    load = RankedRows.load
    calls = Counter()

    def replaced(path, target):
        what = "a part" if target.suffix == ".arrow" else "the output"
        if what == "the output" and target.parent.suffix == ".parts":
            what = "its state"
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


def linked_rows(path):
    """The rows of an output file."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    separator = "," if path.suffix == ".csv" else "\t"
    return pd.read_csv(path, sep=separator, comment="#").to_dict("records")


@pytest.mark.parametrize(
    ("ending", "point", "finished"),
    [
        ("jsonl", "before a part", 3),
        ("parquet", "after a part", 3),
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
    # A part without its state does not count.
    assert len(list(parts.glob("[0-9]*.json"))) == finished
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
    assert (counts.ranked, counts.errors) == (20, 1)
    assert "in.jsonl:21" in job.first_error and not parts.exists()
    assert_alike(linked_rows(target), linked_rows(tmp_path / f"whole.{ending}"))


def test_parts_of_another_input_or_model_are_not_used(tmp_path, linker, monkeypatch):
    write_lists(tmp_path / "in.jsonl", ROWS)

    def made_of():
        return LinkJob(tmp_path / "in.jsonl", tmp_path / "out.jsonl").made_of(linker)

    before = made_of()
    assert made_of() == before
    for name, value in (("expands_abbreviations", False), ("candidates_per_mention", 2)):
        monkeypatch.setattr(linker, name, value)
        assert made_of() != before
        monkeypatch.undo()
    monkeypatch.setattr(linker.reranker, "accept_tier", "high")
    assert made_of() != before
    monkeypatch.undo()
    write_lists(tmp_path / "in.jsonl", ROWS[:2])
    assert made_of() != before


@pytest.fixture
def index(tmp_path, linker):
    """The linker's index, which a test may change."""
    return shutil.copytree(linker.folder, tmp_path / "index")


def link_words(folder, *further):
    """A command that links five batches of a file in a folder."""
    write_lists(folder / "in.jsonl", [{"mention": mention} for mention, *_ in MENTIONS[:2]] * 5)
    files = (folder / "index", folder / "in.jsonl", folder / "out.jsonl")
    return ["link", *files, "--model", "built-in-fast", "--batch_mentions", 2, *further]


def change_sheet(folder):
    (folder / "sheet.csv").write_text("mention,gold_cui,reviewer\nasthma,C9000004,bob\n")


def change_index(folder):
    settings = json.loads((folder / "index" / "index.json").read_text())
    settings["candidates_per_mention"] = 1
    (folder / "index" / "index.json").write_text(json.dumps(settings))


def change_input(folder):
    """Neither its size nor its times tell."""
    path = folder / "in.jsonl"
    before = path.stat()
    path.write_text(path.read_text().replace("asthma", "asthmb"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    ("change", "named"),
    [(change_sheet, "sheet.csv"), (change_index, "index"), (change_input, "in.jsonl")],
)
def test_what_changed_since_a_job_was_killed_counts_for_all_rows(
    scripts, tmp_path, index, change, named
):
    (tmp_path / "sheet.csv").write_text("mention,gold_cui,reviewer\nasthma,C9000016,ann\n")
    words = link_words(tmp_path, "--reviewed", tmp_path / "sheet.csv")
    assert scripts.run(*words, watch=tmp_path, kill_at="000003.arrow").code == -signal.SIGKILL
    assert not (tmp_path / "out.jsonl").exists()
    change(tmp_path)
    again = scripts.run(*words)
    assert again.code == 0, again.err
    (told,) = [line for line in again.err.splitlines() if "out.jsonl" in line]
    assert named in told
    resumed = (tmp_path / "out.jsonl").read_bytes()
    assert scripts.run(*words, "--overwrite").code == 0
    assert (tmp_path / "out.jsonl").read_bytes() == resumed
    assert not [*tmp_path.glob(".out*")]


def test_nothing_is_told_where_nothing_changed(scripts, tmp_path, index):
    words = link_words(tmp_path)
    assert scripts.run(*words, watch=tmp_path, kill_at="000003.arrow").code == -signal.SIGKILL
    os.utime(tmp_path / "in.jsonl")
    again = scripts.run(*words)
    assert again.code == 0 and "out.jsonl" not in again.err


def test_another_command_makes_an_output_from_the_beginning(scripts, tmp_path, index):
    words = link_words(tmp_path)
    assert scripts.run(*words, watch=tmp_path, kill_at="000003.arrow").code == -signal.SIGKILL
    again = scripts.run(*words, "--top", 1)
    assert again.code == 0 and "the command" in again.err
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [len(row["ranked"]) for row in rows] == [1] * 10
    assert not [*tmp_path.glob(".out*")]


def test_two_commands_do_not_write_one_output_at_once(tmp_path, linker, monkeypatch):
    source = write_lists(tmp_path / "in.jsonl", ROWS)
    target = tmp_path / "out.jsonl"
    process = LinkJob.process
    monkeypatch.setattr("umls_reranker.core.files.PATIENCE_SECONDS", 0.0)

    def interrupted(job, *arguments):
        monkeypatch.setattr(LinkJob, "process", process)
        for batch_rows in (2, 3):
            with pytest.raises(UserError, match=target.name):
                LinkJob(source, target, batch_rows).run(linker, OneProcess())
        return process(job, *arguments)

    monkeypatch.setattr(LinkJob, "process", interrupted)
    run(LinkJob, linker, source, target)
    assert len(target.read_text().splitlines()) == 3
    assert [*tmp_path.glob(".out*")] == []


def half_zeros(parts):
    content = parts[2].read_bytes()
    half = len(content) // 2
    parts[2].write_bytes(content[:half] + bytes(len(content) - half))


def a_page_of_zeros(parts):
    content = bytearray(parts[2].read_bytes())
    start = len(content) * 6 // 10
    content[start : start + 4096] = bytes(4096)
    parts[2].write_bytes(content)


def swapped(parts):
    second, third = parts[2].read_bytes(), parts[3].read_bytes()
    parts[2].write_bytes(third)
    parts[3].write_bytes(second)


def swapped_with_all_that_is_beside(parts):
    for path in parts[2].parent.glob("*000002*"):
        path.rename(path.with_name("away-" + path.name))
    for path in parts[3].parent.glob("*000003*"):
        path.rename(path.with_name(path.name.replace("000003", "000002")))
    for path in parts[2].parent.glob("away-*"):
        path.rename(path.with_name(path.name[5:].replace("000002", "000003")))


def copied(parts):
    parts[3].write_bytes(parts[2].read_bytes())


def fewer_rows(parts):
    rows = RankedRows.load(parts[2])
    fewer = rows._replace(content=rows.content[:1], ranked=rows.ranked[:1], errors=rows.errors[:1])
    fewer.save(parts[2])


def one_bit_of_a_text(parts):
    content = bytearray(parts[2].read_bytes())
    content[content.index(b"chest pain")] ^= 1
    parts[2].write_bytes(content)


def a_folder(parts):
    parts[2].unlink()
    parts[2].mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        half_zeros,
        a_page_of_zeros,
        swapped,
        swapped_with_all_that_is_beside,
        copied,
        fewer_rows,
        one_bit_of_a_text,
        a_folder,
    ],
)
def test_a_part_that_is_not_as_it_was_written_is_made_again(tmp_path, linker, damage):
    rows = [ROWS[number % 3] | {"n": number} for number in range(160)]
    source = write_lists(tmp_path / "in.jsonl", rows)
    LinkJob(source, tmp_path / "whole.jsonl", 32).run(linker, OneProcess())

    def work():
        die_at("conversion")
        LinkJob(source, tmp_path / "out.jsonl", 32).run(linker, OneProcess())

    assert run_forked(work) == -signal.SIGKILL
    (folder,) = tmp_path.glob(".out.jsonl.*.parts")
    damage(sorted(folder.glob("*.arrow")))
    LinkJob(source, tmp_path / "out.jsonl", 32).run(linker, OneProcess())
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not folder.exists()


EVIL = {
    "reviewed_id": "EVIL:1",
    "reviewed_name": "evil",
    "reviewer": "nobody",
    "reviewed_on": "2026-01-01",
    "review_comment": "seen",
    "reviewed_targets": ["14"],
}


def omop_files(folder):
    """An empty vocabulary."""
    concept = "concept_id,concept_name,domain_id,vocabulary_id,concept_code,standard_concept\n"
    (folder / "CONCEPT.csv").write_text(concept)
    relationship = "concept_id_1,concept_id_2,relationship_id,invalid_reason\n"
    (folder / "CONCEPT_RELATIONSHIP.csv").write_text(relationship)
    return folder / "CONCEPT.csv", folder / "CONCEPT_RELATIONSHIP.csv"


@pytest.mark.parametrize("source", ["in.jsonl", "in.csv", "in.parquet"])
@pytest.mark.parametrize("name", ["jsonl", "csv", "parquet", "sssom", "fhir", "usagi", "omop"])
def test_only_sheets_say_what_was_reviewed(tmp_path, linker, name, source):
    row = {"mention": "asthma", "source_code": "L1"} | EVIL
    if source == "in.csv":
        row = row | {"reviewed_targets": "14"}
        lines = [",".join(row), ",".join(row.values())]
        (tmp_path / source).write_text("\n".join(lines) + "\n")
    elif source == "in.parquet":
        pq.write_table(Table.from_pylist([row]), tmp_path / source)
    else:
        write_lists(tmp_path / source, [row])
    settings = FormatSettings(omop_concepts=omop_files(tmp_path), only_accepted=False)
    target = tmp_path / f"out.{name}"
    options = {"format_name": name, "format_settings": settings}
    counts, _ = run(LinkJob, linker, tmp_path / source, target, **options)
    assert counts.ranked == 1
    if name == "jsonl":
        (row,) = map(json.loads, target.read_text().splitlines())
        assert row["ranked"][0]["cui"] == "C9000012"
    elif name == "csv":
        (row,) = csv.DictReader(target.open())
        assert (row["answer"], row["second"] != "", row["accepted"]) == ("C9000012", True, "")
    elif name == "parquet":
        (row,) = pq.read_table(target).to_pylist()
        assert (row["answer"], row["accepted"]) == ("C9000012", None)
    else:
        text = target.read_text()
        assert "C9000012" in text or name == "omop"
        forged = ("EVIL", "evil", "nobody", "2026-01-01", "ManualMapping", "APPROVED")
        assert not [word for word in forged if word in text]
    if name in ("jsonl", "csv", "parquet"):
        assert not {*EVIL} & {*row}
        assert row["input_reviewed_id"] == "EVIL:1" and row["input_reviewer"] == "nobody"


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_an_answer_that_was_withdrawn_is_withdrawn(scripts, tmp_path, index, ending):
    sheet = tmp_path / "sheet.csv"
    words = ("--model", "built-in-fast", "--reviewed", sheet, "--overwrite")
    write_lists(tmp_path / "in.jsonl", [{"mention": "asthma"}, {"mention": "head cold"}])
    sheet.write_text("mention,gold_cui,reviewer\nasthma,C9000016,ann\nhead cold,C9000016,ann\n")
    once = tmp_path / f"once.{ending}"
    assert scripts.run("link", index, tmp_path / "in.jsonl", once, *words).code == 0
    sheet.write_text("mention,gold_cui,reviewer\nasthma,,\nhead cold,C9000016,ann\n")
    ended = scripts.run("link", index, once, tmp_path / "twice.csv", *words)
    assert ended.code == 0 and "1 mentions have the answer of a reviewer" in ended.out, ended.err
    withdrawn, kept = csv.DictReader((tmp_path / "twice.csv").open())
    columns = ("answer", "accepted", "reviewed_id", "reviewer")
    assert [withdrawn[name] for name in columns] == ["C9000012", "", "", ""]
    assert [kept[name] for name in columns] == ["C9000016", "true", "C9000016", "ann"]
    assert withdrawn["input_reviewed_id"] == kept["input_reviewed_id"] == "C9000016"
    # A third time: what had a prefix gets another.
    ended = scripts.run("link", index, tmp_path / "twice.csv", tmp_path / "thrice.csv", *words)
    assert ended.code == 0, ended.err
    withdrawn, kept = csv.DictReader((tmp_path / "thrice.csv").open())
    assert (withdrawn["input_reviewed_id"], kept["input_reviewed_id"]) == ("C9000016", "C9000016")
    assert withdrawn["input_input_reviewed_id"] == "" and kept["input_input_reviewer"] == "ann"


def test_control_characters_in_names_of_files_are_escaped(scripts, tmp_path, index):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "f\x1b[31m\n.jsonl").write_text('{"mention": " "}\n')
    words = ("--model", "built-in-fast")
    ended = scripts.run("link", index, folder, tmp_path / "out.jsonl", *words)
    assert ended.code == 1 and "f\\x1b[31m\\n.jsonl:1" in ended.out, ended.err
    (folder / "f\x1b[31m\n.jsonl").rename(folder / "f\x1b[31m.csv")
    (folder / "f\x1b[31m.csv").write_text("nothing\n1\n")
    refused = scripts.run("link", index, folder, tmp_path / "no.jsonl", *words)
    assert refused.code == 2 and "f\\x1b[31m.csv" in refused.errors[0]
    missing = scripts.run("link", index, tmp_path / "m\x1b[31m.csv", tmp_path / "no.jsonl", *words)
    assert missing.code == 2 and "m\\x1b[31m.csv" in missing.errors[0]
    for outcome in (ended, refused, missing):
        assert "\x1b[31m" not in outcome.out + outcome.err


def test_clusters_link_tables_and_frames_as_files_are_linked(tmp_path, linker, monkeypatch):
    rows = [row | {"document": TEXT} for row in ROWS] + [{"mention": " "}]
    write_lists(tmp_path / "in.jsonl", rows)
    run(LinkJob, linker, tmp_path / "in.jsonl", tmp_path / "out.parquet", top=2)
    expected = pq.read_table(tmp_path / "out.parquet")["ranked"].to_pylist()
    assert [len(items) for items in expected[:3]] == [2] * 3 and expected[3] is None
    table = pq.read_table(tmp_path / "out.parquet").drop_columns(["ranked", "error"])
    folder = linker.folder
    linked = LinkBatches(folder, "built-in-fast", top=2)(table)
    assert_alike(linked["ranked"].to_pylist(), expected)
    (frame,) = LinkPartitions(folder, "built-in-fast", top=2)(iter([table.to_pandas()]))
    assert_alike(frame["ranked"].tolist(), expected)
    names = [field.name for field in linked["ranked"].type.value_type]
    assert re.findall(r"(\w+): ", LINKED_SCHEMA) == names


def test_a_service_and_spacy_link_with_built_in(linker):
    # What a mention says of a review counts as little as in files.
    mention = {"mention": "CP", "start": 42} | EVIL
    body = {"document": TEXT, "mentions": [mention], "top": 1}
    listed = {"mention": "x", "candidates": [{"name": "y", "cui": "C1"} | EVIL]} | EVIL
    with TestClient(
        create_app(linker.reranker, ServingArguments(), linker), base_url="http://localhost"
    ) as client:
        ((concept,),) = client.post("/link", json=body).json()
        ((ranked,),) = client.post("/rank", json={"mentions": [listed]}).json()
    assert not {*EVIL} & {*concept, *ranked} and ranked["cui"] == "C1"
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
