import gzip
from pathlib import Path

import pytest
from data_fixtures import BRANCHES, TYPE_ROOT, VOCABULARY, write_obo
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umls_reranker.core.errors import UserError
from umls_reranker.vocab.concepts import Concept
from umls_reranker.vocab.ontology import read_obo_concepts


def stanza(number, *lines, name="a name", cui=None):
    xref = [f"xref: UMLS:{cui}"] if cui else []
    return "\n".join(["[Term]", f"id: X:{number}", f"name: {name}", *xref, *lines]) + "\n\n"


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(tmp_path, content, **options):
    path = write(tmp_path / "x.obo", "format-version: 1.2\n\n" + content)
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
    assert read(tmp_path, content)[0] == [
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
    read_from = read(tmp_path, content)
    assert read_from.concepts[0].synonyms == ("e",)
    assert read_from.report["dropped_synonyms"] == 4
    (concept,), *_ = read(tmp_path, content, synonym_scopes=("EXACT", "RELATED"))
    assert concept.synonyms == ("e", "r", "u")  # without a scope means RELATED
    with pytest.raises(UserError, match="'exact'"):
        read(tmp_path, content, synonym_scopes=("exact",))


def test_terms_are_dropped_merged_and_counted(tmp_path):
    content = (
        stanza(1, "is_obsolete: true", name="gone", cui="C0000001")
        + stanza(2, name="no reference")
        + stanza(3, "xref: UMLS:0000003", "xref: UMLS:C00003", name="bad references")
        + stanza(4, 'synonym: "four" EXACT []', "xref: UMLS:C0000001", name="IV", cui="C0000004")
        + stanza(5, 'def: "Five." []', 'synonym: "IV" EXACT []', name="V", cui="C0000004")
        + stanza(6, name="one", cui="C0000001")
    )
    concepts, *_, report = read(tmp_path, content)
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
    content = (
        stanza(1, name="root")
        + stanza(2, "is_a: X:1 ! root", name="heart", cui="C0000002")
        + stanza(3, 'is_a: X:1 {source="x"} ! root', name="lung")
        + stanza(4, "is_a: X:3", "is_a: X:2", name="both", cui="C0000004")
        + stanza(5, "is_a: X:4", "is_a: X:6", name="deep, in a circle", cui="C0000005")
        + stanza(6, "is_a: X:5", name="circle", cui="C0000006")
        + stanza(7, name="elsewhere", cui="C0000007")
        + stanza(8, "is_a: X:1", "is_obsolete: true", name="obsolete branch")
    )
    concepts, hierarchy, *_ = read(tmp_path, content, type_roots=["X:1"])
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
    assert len(read(tmp_path, content)[1]) == 0
    with pytest.raises(UserError, match="obo_type_roots: X:11 .*x.obo.* X:1"):
        read(tmp_path, content, type_roots=["X:11"])


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
    concepts, *_, report = read(tmp_path, content)
    assert concepts == [Concept("C0000001", "one"), Concept("C0000002", "two")]
    assert report["without_cui"] == 1


def test_relations_lead_to_the_nearest_concepts_above(tmp_path):
    content = (
        stanza(1, name="root", cui="C0000001")
        + stanza(2, "is_a: X:1", name="no CUI")
        + stanza(3, "is_a: X:2", "is_a: X:9", cui="C0000003")
        + stanza(4, "is_a: X:3", "is_a: X:2", cui="C0000004")
        + stanza(5, "is_a: X:6", name="circle without CUI")
        + stanza(6, "is_a: X:5", "is_a: X:4", name="circle without CUI")
        + stanza(7, "is_a: X:5", "is_a: X:7", cui="C0000007")
        + stanza(8, "is_a: X:3", cui="C0000003")
    )
    assert read(tmp_path, content).parents == [
        ("C0000003", "C0000001"),
        ("C0000004", "C0000003"),
        ("C0000004", "C0000001"),
        ("C0000007", "C0000004"),
        ("C0000003", "C0000003"),  # two terms of one concept; left out when relations are written
    ]


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
    paths = [write(tmp_path / "one.obo", first), write(tmp_path / "two.obo", second)]
    merged = read_obo_concepts(paths, type_roots=["X:1"])
    report = merged.report
    assert merged.concepts == [
        Concept("C0000001", "one", ("One", "uno"), ("X:2", "X:3"), "First."),
        Concept("C0000004", "four", ("uno",), ("X:2", "X:3")),
    ]
    assert list(merged.hierarchy) == ["X:2", "X:3"]
    assert merged.parents == [("C0000004", "C0000001")]
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


GOOD = stanza(1, name="good", cui="C0000001")
MALFORMED = [
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


@pytest.mark.parametrize(("content", "line", "what"), MALFORMED)
def test_a_malformed_line_is_named(tmp_path, content, line, what):
    path = write(
        tmp_path / "x.obo", GOOD.encode() + content + b"\n\n" + stanza(3, cui="C0000003").encode()
    )
    with pytest.raises(UserError) as error:
        read_obo_concepts([path])
    assert str(error.value).startswith(f"{path}:{line}: {what}")


def test_broken_and_useless_files_are_named(tmp_path):
    packed = gzip.compress(write_obo(tmp_path / "good.obo").read_bytes())
    assert (
        read_obo_concepts([write(tmp_path / "good.obo.gz", packed)])[0]
        == read_obo_concepts([tmp_path / "good.obo"])[0]
    )
    for name, content in {
        "cut.gz": packed[:300],
        "page.html": "<html>\n",
        "bare.obo": stanza(1),
    }.items():
        with pytest.raises(UserError, match=name):
            read_obo_concepts([write(tmp_path / name, content)])
    with pytest.raises(UserError, match="absent.obo"):
        read_obo_concepts([tmp_path / "absent.obo"])


PIECES = st.sampled_from(
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
    + ['"', GOOD, 'synonym: "s" EXACT []\n', "is_obsolete: true\n", "\\", " ! ", "def: ", "\0"]
).map(str.encode)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(pieces=st.lists(st.one_of(PIECES, st.binary(max_size=4)), max_size=25))
def test_whatever_the_input_it_is_concepts_or_a_user_error(tmp_path: Path, pieces):
    path = write(tmp_path / "x.obo", b"".join(pieces))
    try:
        concepts, *_ = read_obo_concepts([path])
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert [c.cui for c in concepts] == sorted({c.cui for c in concepts})
    assert all(c.name and c.name not in c.synonyms for c in concepts)
