import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from data_fixtures import BRANCHES, TYPE_ROOT, VOCABULARY, write_obo, write_rrf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umls_reranker.core.errors import UserError
from umls_reranker.vocab.concepts import Concept, iter_concepts
from umls_reranker.vocab.ontology import read_obo_concepts
from umls_reranker.vocab.relations import RelationTable, read_relations, write_relations
from umls_reranker.vocab.release import read_release, release_files
from umls_reranker.vocab.rrf import read_rrf_concepts
from umls_reranker.vocab.rrf_tables import read_rrf_table


def conso(cui, name, lat="ENG", ts="S", stt="PF", ispref="N", sab="MINI", suppress="N"):
    return f"{cui}|{lat}|{ts}|L1|{stt}|S1|{ispref}|A1||||{sab}|PT|x|{name}|0|{suppress}||"


def release(folder, names, types=("C0000001|T047|B2|Disease|AT1||",), definitions=None):
    folder.mkdir(exist_ok=True)
    (folder / "MRCONSO.RRF").write_text("".join(f"{line}\n" for line in names))
    (folder / "MRSTY.RRF").write_text("".join(f"{line}\n" for line in types))
    if definitions:
        (folder / "MRDEF.RRF").write_text("".join(f"{line}\n" for line in definitions))
    return folder


def read_files(folder, **options):
    return read_rrf_concepts(release_files(folder), **options)


def read(folder, **options):
    return list(iter_concepts(read_files(folder, **options)[0]))


def test_reads_the_miniature_release(tmp_path):
    table, report = read_files(write_rrf(tmp_path))
    concepts = list(iter_concepts(table))
    assert [(c.cui, (c.semantic_types[0], (c.name, *c.synonyms))) for c in concepts] == list(
        VOCABULARY.items()
    )
    assert [c.cui for c in concepts if c.definition] == ["C9000002"]
    assert concepts[1].definition == "Too much sugar in the blood."
    assert report == {
        "names_read": 88,
        "names_kept": 88,
        "dropped": {"LAT": 0, "SAB": 0, "SUPPRESS": 0},
    }


def test_the_preferred_name_follows_the_release_s_ranks(tmp_path):
    names = [
        conso("C0000001", "suppressible", ts="s", ispref="Y"),
        conso("C0000001", "variant", ts="P", stt="VO", ispref="Y"),
        conso("C0000001", "later atom", ts="P"),
        conso("C0000001", "best", ts="P", ispref="Y"),
        conso("C0000001", "synonym", ispref="Y"),
        conso("C0000001", "another synonym", ispref="Y"),
    ]
    (concept,) = read(release(tmp_path, names))
    expected = ["best", "later atom", "variant", "synonym", "another synonym", "suppressible"]
    assert [concept.name, *concept.synonyms] == expected


def test_languages_come_in_the_order_asked_for(tmp_path):
    names = [
        conso("C0000001", "Herz", "GER", ts="P", ispref="Y"),
        conso("C0000001", "heart"),
        conso("C1", "coeur", "FRE"),
    ]
    concepts = read(release(tmp_path, names), languages=("ENG", "GER"))
    assert [(c.cui, c.name, c.synonyms) for c in concepts] == [("C0000001", "heart", ("Herz",))]


def test_filters_and_what_they_dropped(tmp_path):
    names = [
        conso("C0000001", "kept", sab="A"),
        conso("C0000001", "kept", sab="A"),
        conso("C0000001", "other source", sab="B"),
        conso("C0000001", "obsolete", sab="A", suppress="O"),
        conso("C0000002", "foreign", sab="A", lat="SPA"),
    ]
    definitions = ["C0000001|A1|A|S|B|Of another source.|N||", "C0000001|A1|A|S|A|Kept.|N||"]
    folder = release(tmp_path, names, definitions=definitions)
    concepts, report = read_files(folder, sources=["A"])
    assert list(iter_concepts(concepts)) == [Concept("C0000001", "kept", (), ("T047",), "Kept.")]
    assert report == {
        "names_read": 5,
        "names_kept": 2,
        "dropped": {"LAT": 1, "SAB": 1, "SUPPRESS": 1},
    }
    with pytest.raises(UserError, match="MRCONSO.RRF"):
        read(folder, sources=["C"])


def test_types_and_the_first_definition_of_each_concept(tmp_path):
    lines = [("C0000001", "first"), ("C0000001", "second"), ("C0000002", "only"), ("C9", "strange")]
    definitions = [f"{cui}|A1|A|S|MINI|{text}|N||" for cui, text in lines]
    types = [
        f"{cui}|{tui}|B|D|A||"
        for cui in ("C0000002", "C7", "C0000001")
        for tui in ("T047", "T023", "T047")
    ]
    names = [conso(cui, cui.lower()) for cui in ("C0000001", "C0000002", "C0000003")]
    concepts = read(release(tmp_path, names, types, definitions))
    assert [c.definition for c in concepts] == ["first", "only", ""]
    assert [c.semantic_types for c in concepts] == [("T047", "T023"), ("T047", "T023"), ()]


def test_unsorted_files_give_the_same_concepts(tmp_path):
    folder = write_rrf(tmp_path)
    expected = read(folder)
    for name in ("MRCONSO.RRF", "MRSTY.RRF"):
        lines = (folder / name).read_text().splitlines(keepends=True)
        # Reversed by concept, so that the order within a concept stays.
        (folder / name).write_text("".join(sorted(lines, key=lambda line: line[:8], reverse=True)))
    assert read(folder) == expected


def test_gzip_line_ends_quotes_and_byte_order_mark(tmp_path):
    folder = release(tmp_path, [conso("C0000001", '"the" cold"'), conso("C0000001", "\u03b2 'x\\")])
    content = b"\xef\xbb\xbf" + (folder / "MRCONSO.RRF").read_bytes().replace(b"\n", b"\r\n")
    (folder / "MRCONSO.RRF").unlink()
    (folder / "MRCONSO.RRF.gz").write_bytes(gzip.compress(content))
    (concept,) = read(folder)
    assert (concept.cui, concept.name, concept.synonyms) == (
        "C0000001",
        '"the" cold"',
        ("\u03b2 'x\\",),
    )


GOOD = conso("C0000001", "good").encode()
MALFORMED = [
    conso("C0000002", "x|y").encode(),
    conso("C0000002", "x").encode()[:-1],
    conso("", "x").encode(),
    conso("C0000002", "").encode(),
    conso("C0000002", "caf").encode().replace(b"caf", b"caf\xe9"),
]


@pytest.mark.parametrize("line", MALFORMED)
@pytest.mark.parametrize("block_bytes", [200, 4 << 20])
def test_the_first_malformed_line_is_named(tmp_path, line, block_bytes):
    folder = release(tmp_path, [])
    (folder / "MRCONSO.RRF").write_bytes((GOOD + b"\n") * 20 + b"\n" + line + b"\n" + GOOD + b"\n")
    with pytest.raises(UserError, match="MRCONSO.RRF:22: "):
        list(read_rrf_table("MRCONSO", folder / "MRCONSO.RRF", ["CUI"], block_bytes))


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(UserError, match="MRCONSO.RRF"):
        read(tmp_path)
    folder = write_rrf(tmp_path / "META")
    with pytest.raises(UserError, match="did you mean .*META"):
        read(tmp_path)
    (folder / "MRCONSO.RRF").write_bytes(gzip.compress((folder / "MRCONSO.RRF").read_bytes())[:500])
    with pytest.raises(UserError, match="MRCONSO.RRF"):
        read(folder)


PIECES = st.sampled_from(
    [GOOD, conso("C0000002", "x").encode(), b"|", b"\n", b"\r\n", b"C0000003", b"ENG", b'"', b"\0"]
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(pieces=st.lists(st.one_of(PIECES, st.binary(max_size=4)), min_size=1, max_size=12))
def test_whatever_the_input_it_is_concepts_or_a_user_error(tmp_path, pieces):
    folder = release(tmp_path, [])
    (folder / "MRCONSO.RRF").write_bytes(b"".join(pieces))
    try:
        concepts = read(folder)
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert concepts == sorted(concepts, key=lambda concept: concept.cui)
    assert all(
        one.cui and one.name and len(set(one.synonyms)) == len(one.synonyms) for one in concepts
    )


def test_files_of_a_release_and_its_name(tmp_path):
    folder = write_rrf(tmp_path / "META")
    for name in ("MRREL.RRF.gz", "MRCUI.RRF", "MRCUI.RRF.gz"):
        (folder / name).touch()
    assert read_release(release_files(folder)) == {}
    (tmp_path / "release.dat").write_text(
        "# x\numls.release.date=20210503\numls.release.name=2021AA\n"
    )
    files = release_files(folder, unused=["MRDEF"])
    expected = ["MRCONSO.RRF", "MRSTY.RRF", "MRREL.RRF.gz", "MRCUI.RRF", "release.dat"]
    assert [path.name for path in files.values()] == expected
    assert read_release(files) == {"date": "20210503", "name": "2021AA"}


def test_codes_of_a_source_are_ids_with_the_names_types_and_definitions_of_their_cuis(tmp_path):
    def atom(cui, code, name, kind="ET", sab="MSH", ts="S"):
        return f"{cui}|ENG|{ts}|L1|PF|S1|Y|A1||||{sab}|{kind}|{code}|{name}|0|N||"

    names = [
        atom("C0000002", "D2", "narrower", ts="P"),
        atom("C0000001", "D2", "heading", "MH"),
        atom("C0000001", "C5", "same cui", "NM"),
        atom("C0000001", "D2", "of another source", "PT", "SNOMEDCT_US", "P"),
        atom("C0000003", "D3", "of another source", "PT", "SNOMEDCT_US", "P"),
    ]
    types = [
        f"C000000{number}|{kind}|B2|x|AT1||"
        for number, kind in ((2, "T046"), (1, "T047"), (2, "T047"))
    ]
    definitions = [f"C0000002|A1|AT1||{sab}|Of {sab}.|N||" for sab in ("NCI", "MSH")]
    files = release(tmp_path, names, types, definitions)
    expected = [
        Concept("C5", "same cui", (), ("T047",), "", ("C0000001",)),
        Concept(
            "D2", "heading", ("narrower",), ("T046", "T047"), "Of MSH.", ("C0000002", "C0000001")
        ),
    ]
    for sources in ((), ("MSH",)):
        assert read(files, identifiers="MSH", sources=sources) == expected


CUIS = [f"C{number:07d}" for number in range(10, 16)]


def line(one, kind, two, suppress="N"):
    return f"{one}|A1|AUI|{kind}|{two}|A2|AUI||R1||MINI|MINI|||{suppress}||"


def write(path, *lines):
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
    return path


def build(folder, *triples, **settings):
    path = write(folder / "MRREL.RRF.gz", *(line(*triple) for triple in triples))
    count = write_relations(read_relations(path, **settings), pa.array(CUIS), folder)
    table = RelationTable.load(folder)
    assert len(table) == count
    return table


def test_other_relations_suppressed_lines_and_concepts_outside_are_left_out(tmp_path):
    triples = [
        (CUIS[0], "SY", CUIS[1]),
        (CUIS[0], "SIB", CUIS[2]),
        (CUIS[0], "SY", CUIS[3], "O"),
        (CUIS[0], "SY", CUIS[0]),
        (CUIS[0], "SY", "C9999999"),
        ("CL1", "SY", CUIS[4]),
        (CUIS[0], "PAR", CUIS[5]),
    ]
    rows = np.arange(6)
    table = build(tmp_path, *triples)
    assert len(table) == 2
    assert np.argwhere(table.related(rows[:, None], rows)).tolist() == [[0, 1], [1, 0]]


TRIPLES = st.tuples(
    st.sampled_from([*CUIS, "C9999999", "X"]),
    st.sampled_from(["SY", "PAR", "RO"]),
    st.sampled_from(CUIS),
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    triples=st.lists(TRIPLES, min_size=1, max_size=12),
    pairs_at_once=st.sampled_from([2, 4_000_000]),
)
def test_the_table_says_what_the_file_says(tmp_path, triples, pairs_at_once):
    table = build(tmp_path, *triples, pairs=pairs_at_once)
    inside = [triple for triple in triples if triple[0] in CUIS and triple[0] != triple[2]]
    known = {(one, two) for one, name, two in inside if name == "SY"}
    known |= {(two, one) for one, two in known}
    ids = [*CUIS, None]
    rows = np.array([*range(len(CUIS)), -1])
    expected = [[(one, two) in known for two in ids] for one in ids]
    assert table.related(rows[:, None], rows).tolist() == expected


def test_parents_in_a_file_of_an_earlier_version_are_no_synonyms():
    # A row, a related row, and in the lowest bits 0 for a synonym and 1 for a parent.
    pairs = np.array([((0 << 30 | 1) << 2) | 1, (0 << 30 | 2) << 2])
    assert RelationTable(pairs).related(np.zeros(2, int), np.array([1, 2])).tolist() == [
        False,
        True,
    ]


def stanza(number, *lines, name="a name", cui=None):
    xref = [f"xref: UMLS:{cui}"] if cui else []
    return "\n".join(["[Term]", f"id: X:{number}", f"name: {name}", *xref, *lines]) + "\n\n"


def write_bytes(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read_obo(tmp_path, content, **options):
    path = write_bytes(tmp_path / "x.obo", "format-version: 1.2\n\n" + content)
    return read_obo_concepts([path], **options)


def test_reads_the_miniature_ontology(tmp_path):
    path = write_obo(tmp_path / "x.obo")
    concepts, hierarchy, *_, report = read_obo_concepts([path], type_roots=[TYPE_ROOT])
    assert [(c.cui, c.semantic_types, (c.name, *c.synonyms)) for c in concepts] == [
        (cui, (BRANCHES[type_id],), names) for cui, (type_id, names) in VOCABULARY.items()
    ]
    assert list(hierarchy) == sorted(BRANCHES.values())
    assert hierarchy.name(BRANCHES["T047"]) == "Disease or Syndrome"
    assert hierarchy.chain(BRANCHES["T047"]) == [BRANCHES["T047"]]
    none = ("obsolete", "several_cuis", "merged_terms", "dropped_synonyms")
    assert report == dict.fromkeys(none, 0) | {
        "terms": 52,
        "without_cui": 12,
    }


def test_reads_escapes_comments_qualifiers_and_other_stanzas(tmp_path):
    content = (
        "! a comment\n[Term] \nid: X:1 ! the id\nname: alpha\\, beta ! a comment\n! another\n"
        'def: "Said to be \\"odd\\"." [ref:1] {source="y"}\n'
        'synonym: "gamma \\"g\\"" EXACT layperson [ref:1, ref:2]\n'
        'xref: UMLS_CUI:C0000001 "label" {source="z"}\nxref: SNOMEDCT_US:1\n'
        "relationship: part_of X:2\n\n"
        "[Typedef]\nid: part_of\nname: part of\nxref: UMLS:C0000009\nnot a tag value line\n"
    )
    assert read_obo(tmp_path, content)[0] == [
        Concept("C0000001", "alpha, beta", ('gamma "g"',), (), 'Said to be "odd".')
    ]


def test_only_the_scopes_asked_for_are_kept(tmp_path):
    scopes = [
        '"e" EXACT []',
        '"n" NARROW []',
        '"b" BROAD []',
        '"r" RELATED []',
        '"u" []',
        '"e" EXACT x []',
    ]
    content = stanza(1, *(f"synonym: {scope}" for scope in scopes), cui="C0000001")
    read_from = read_obo(tmp_path, content)
    assert read_from.concepts[0].synonyms == ("e",)
    assert read_from.report["dropped_synonyms"] == 4
    (concept,), *_ = read_obo(tmp_path, content, synonym_scopes=("EXACT", "RELATED"))
    assert concept.synonyms == ("e", "r", "u")  # without a scope means RELATED
    with pytest.raises(UserError, match="'exact'"):
        read_obo(tmp_path, content, synonym_scopes=("exact",))


def test_terms_are_dropped_merged_and_counted(tmp_path):
    stanzas = [
        stanza(1, "is_obsolete: true", name="gone", cui="C0000001"),
        stanza(2, name="no reference"),
        stanza(3, "xref: UMLS:0000003", "xref: UMLS:C00003", name="bad references"),
        stanza(4, 'synonym: "four" EXACT []', "xref: UMLS:C0000001", name="IV", cui="C0000004"),
        stanza(5, 'def: "Five." []', 'synonym: "IV" EXACT []', name="V", cui="C0000004"),
        stanza(6, name="one", cui="C0000001"),
    ]
    content = "".join(stanzas)
    concepts, *_, report = read_obo(tmp_path, content)
    # Term 4 counts for its first CUI only, so the other CUI has only the name of term 6.
    assert concepts == [
        Concept("C0000001", "one"),
        Concept("C0000004", "IV", ("V", "four"), (), "Five."),
    ]
    assert report == {
        "terms": 6,
        "obsolete": 1,
        "without_cui": 2,
        "several_cuis": 1,
        "merged_terms": 1,
        "dropped_synonyms": 0,
    }


def test_a_term_has_every_branch_it_is_or_descends_from(tmp_path):
    stanzas = [
        stanza(1, name="root"),
        stanza(2, "is_a: X:1 ! root", name="heart", cui="C0000002"),
        stanza(3, 'is_a: X:1 {source="x"} ! root', name="lung"),
        stanza(4, "is_a: X:3", "is_a: X:2", name="both", cui="C0000004"),
        stanza(5, "is_a: X:4", "is_a: X:6", name="deep, in a circle", cui="C0000005"),
        stanza(6, "is_a: X:5", name="circle", cui="C0000006"),
        stanza(7, name="elsewhere", cui="C0000007"),
        stanza(8, "is_a: X:1", "is_obsolete: true", name="obsolete branch"),
    ]
    content = "".join(stanzas)
    concepts, hierarchy, *_ = read_obo(tmp_path, content, type_roots=["X:1"])
    assert [(kind, hierarchy.name(kind)) for kind in hierarchy] == [
        ("X:2", "heart"),
        ("X:3", "lung"),
    ]
    assert {c.cui: c.semantic_types for c in concepts} == {
        "C0000002": ("X:2",),
        "C0000004": ("X:2", "X:3"),
        "C0000005": ("X:2", "X:3"),
        "C0000006": ("X:2", "X:3"),
        "C0000007": (),
    }
    assert len(read_obo(tmp_path, content)[1]) == 0
    with pytest.raises(UserError, match="obo_type_roots: X:11 .*x.obo.* X:1"):
        read_obo(tmp_path, content, type_roots=["X:11"])


def test_an_exact_match_goes_before_cross_references(tmp_path):
    content = (
        "[Term]\nid: X:1\nname: one\nxref: UMLS:C0000009\nxref: UMLS:C0000001\n"
        'property_value: skos:exactMatch UMLS:C0000001 {source="x"}\n'
        "property_value: skos:closeMatch UMLS:C0000007\n\n"
        "[Term]\nid: X:2\nname: two\nxref: UMLS:C0000009\n"
        'property_value: exactMatch "http://linkedlifedata.com/resource/umls/id/C0000002" '
        "xsd:anyURI\n\n"
        "[Term]\nid: X:3\nname: three\nproperty_value: exactMatch "
        "http://example.org/mesh/C0000005\n"
    )
    concepts, *_, report = read_obo(tmp_path, content)
    assert concepts == [Concept("C0000001", "one"), Concept("C0000002", "two")]
    assert report["without_cui"] == 1


def test_several_ontologies_become_one(tmp_path):
    first = (
        "ontology: one\ndata-version: 1.0\n"
        "property_value: dcterms:license https://example.org/cc0 xsd:anyURI\n\n"
        + stanza(1, name="root")
        + stanza(2, "is_a: X:1", 'synonym: "uno" EXACT []', name="one", cui="C0000001")
    )
    second = (
        "data-version: 2.0\nremark: no license\n\n"
        + stanza(2, 'def: "First." []', "is_a: X:3", name="One", cui="C0000001")
        + stanza(3, "is_a: X:1", name="branch")
        + stanza(4, "is_a: X:2", 'synonym: "uno" EXACT []', name="four", cui="C0000004")
    )
    paths = [write_bytes(tmp_path / "one.obo", first), write_bytes(tmp_path / "two.obo", second)]
    merged = read_obo_concepts(paths, type_roots=["X:1"])
    report = merged.report
    assert merged.concepts == [
        Concept("C0000001", "one", ("One", "uno"), ("X:2", "X:3"), "First."),
        Concept("C0000004", "four", ("uno",), ("X:2", "X:3")),
    ]
    assert list(merged.hierarchy) == ["X:2", "X:3"]
    assert merged.vocabularies == [
        {
            "file": "one.obo",
            "id": "one",
            "version": "1.0",
            "license": "https://example.org/cc0",
            "terms": 2,
        },
        {"file": "two.obo", "id": "", "version": "2.0", "license": "", "terms": 3},
    ]
    assert (report["terms"], report["merged_terms"]) == (5, 1)
    # The one that comes first gives the names.
    assert read_obo_concepts(paths[::-1]).concepts[0] == Concept(
        "C0000001", "One", ("one", "uno"), (), "First."
    )


GOOD_TERM = stanza(1, name="good", cui="C0000001")
MALFORMED_TERMS = [
    (b"[Term]\nid: X:2\nname: x\njust words\n", 9, "expected `tag: value`, found 'just words'"),
    (
        b"[Term]\nid: X:2\nname: x\nsynonym: bare EXACT []\n",
        9,
        "`synonym:` without a quoted string",
    ),
    (b'[Term]\nid: X:2\nname: x\nsynonym: " " EXACT []\n', 9, "`synonym:` without a quoted string"),
    (b"[Term]\nid: X:2\nname: caf\xe9\n", 8, "not UTF-8 (byte 0xe9 at column 10)"),
    (b"[Term]\nid: X:2\nname: x\nis_a:\n", 9, "`is_a:` without a value"),
    (b"[Term]\nid: X:2\n", 6, "[Term] needs"),
    (b"[Term]\nid: X:1\nname: x\n", 6, "[Term] needs"),
]


@pytest.mark.parametrize(("content", "line", "what"), MALFORMED_TERMS)
def test_a_malformed_line_is_named(tmp_path, content, line, what):
    path = write_bytes(
        tmp_path / "x.obo",
        GOOD_TERM.encode() + content + b"\n\n" + stanza(3, cui="C0000003").encode(),
    )
    with pytest.raises(UserError) as error:
        read_obo_concepts([path])
    assert str(error.value).startswith(f"{path}:{line}: {what}")


def test_broken_and_useless_files_are_named(tmp_path):
    packed = gzip.compress(write_obo(tmp_path / "good.obo").read_bytes())
    assert (
        read_obo_concepts([write_bytes(tmp_path / "good.obo.gz", packed)])[0]
        == read_obo_concepts([tmp_path / "good.obo"])[0]
    )
    for name, content in {
        "cut.gz": packed[:300],
        "page.html": "<html>\n",
        "bare.obo": stanza(1),
    }.items():
        with pytest.raises(UserError, match=name):
            read_obo_concepts([write_bytes(tmp_path / name, content)])
    with pytest.raises(UserError, match="absent.obo"):
        read_obo_concepts([tmp_path / "absent.obo"])


PIECES_OF_OBO = st.sampled_from(
    [
        "[Term]\n",
        "[",
        "id: ",
        "X:1",
        "X:2",
        "\n",
        "name: ",
        "x",
        "xref: UMLS:C0000001\n",
        "is_a: X:1\n",
        "synonym: ",
    ]
    + ['"', GOOD_TERM, 'synonym: "s" EXACT []\n', "is_obsolete: true\n", "\\", " ! ", "def: ", "\0"]
).map(str.encode)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(pieces=st.lists(st.one_of(PIECES_OF_OBO, st.binary(max_size=4)), max_size=25))
def test_whatever_an_ontology_it_is_concepts_or_a_user_error(tmp_path: Path, pieces):
    path = write_bytes(tmp_path / "x.obo", b"".join(pieces))
    try:
        concepts, *_ = read_obo_concepts([path])
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert [c.cui for c in concepts] == sorted({c.cui for c in concepts})
    assert all(c.name and c.name not in c.synonyms for c in concepts)
