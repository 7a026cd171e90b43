import gzip

import pytest
from data_fixtures import VOCABULARY, write_rrf, write_semantic_network
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umls_reranker.core.errors import UserError
from umls_reranker.data import rrf_tables
from umls_reranker.data.columns import Concept
from umls_reranker.data.release import release_files
from umls_reranker.data.rrf import read_rrf_concepts
from umls_reranker.data.semantic_types import TypeHierarchy


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
    return read_rrf_concepts(release_files(folder, None), **options)


def read(folder, **options):
    return list(read_files(folder, **options)[0])


def test_reads_the_miniature_release(tmp_path):
    columns, report = read_files(write_rrf(tmp_path))
    concepts = list(columns)
    assert [(c.cui, (c.semantic_types[0], (c.name, *c.synonyms))) for c in concepts] == list(VOCABULARY.items())
    assert [c.cui for c in concepts if c.definition] == ["C9000002"]
    assert concepts[1].definition == "Too much sugar in the blood."
    assert report == {
        "names_read": 88,
        "names_kept": 88,
        "dropped": {"languages": 0, "suppressed": 0},
        "concepts": 40,
        "typed": 40,
        "types_of_unknown_concepts": 0,
        "definitions_of_unknown_concepts": 0,
        "skipped": 0,
        "reasons": {},
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
    assert (concept.name, *concept.synonyms) == (
        "best",
        "later atom",
        "variant",
        "synonym",
        "another synonym",
        "suppressible",
    )


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
    assert list(concepts) == [Concept("C0000001", "kept", (), ("T047",), "Kept.")]
    assert report["dropped"] == {"languages": 1, "sources": 1, "suppressed": 1}
    assert (report["names_read"], report["names_kept"]) == (5, 2)


def test_keeps_only_concepts_of_the_types_asked_for(tmp_path):
    types = ["C0000001|T047|B|D|A||", "C0000001|T184|B|D|A||", "C0000002|T023|B|D|A||", "C0000009|T047|B|D|A||"]
    names = [conso(cui, cui.lower()) for cui in ("C0000001", "C0000002", "C0000003")]
    folder = release(tmp_path, names, types)
    concepts, report = read_files(folder, semantic_types=["T184", "T999"])
    assert [c.cui for c in concepts] == ["C0000001"]
    assert (report["concepts"], report["typed"]) == (1, 1)
    assert [c.semantic_types for c in read(folder)] == [("T047", "T184"), ("T023",), ()]


def test_keeps_only_names_of_the_term_types_asked_for(tmp_path):
    names = [conso("C0000001", "preferred"), conso("C0000001", "short").replace("|PT|", "|AB|")]
    (concept,), report = read_files(release(tmp_path, names), term_types=["AB", "SY"])
    assert (concept.name, concept.synonyms) == ("short", ())
    assert report["dropped"]["term_types"] == 1


def test_keeps_only_concepts_of_the_groups_asked_for(tmp_path):
    network = write_semantic_network(tmp_path / "NET")
    hierarchy = TypeHierarchy.from_umls(network / "SRDEF", network / "SemGroups.txt")
    folder = write_rrf(tmp_path / "META")

    def kept(**keys):
        return {concept.cui for concept in read(folder, hierarchy=hierarchy, **keys)}

    of_type = {kind: {cui for cui, (own, _) in VOCABULARY.items() if own == kind} for kind in ("T047", "T184", "T023")}
    disorders = of_type["T047"] | of_type["T184"]
    for group in ("DISO", "group:DISO", "disorders", "diso"):
        assert kept(semantic_groups=[group]) == disorders
    assert kept(semantic_groups=["ANAT"], semantic_types=["T184"]) == of_type["T023"] | of_type["T184"]
    for wrong in ("DIS", "T047", "Disease or Syndrome"):
        with pytest.raises(
            UserError, match=f"semantic_groups: {wrong} is not a semantic group; use one of group:ACTI, "
        ):
            kept(semantic_groups=[wrong])
    without_groups = TypeHierarchy.from_umls(network / "SRDEF")
    with pytest.raises(UserError, match="DISO is not a semantic group; put SemGroups.txt next to SRDEF"):
        read(folder, semantic_groups=["DISO"], hierarchy=without_groups)
    with pytest.raises(ValueError, match="need a hierarchy"):
        read(folder, semantic_groups=["DISO"])


def test_the_definition_is_the_first_in_the_file(tmp_path):
    lines = [
        ("C0000001", "A", "first"),
        ("C0000001", "B", "second"),
        ("C0000002", "A", "only"),
        ("C9", "B", "strange"),
    ]
    definitions = [f"{cui}|A1|A|S|{sab}|{text}|N||" for cui, sab, text in lines]
    names = [conso(cui, cui.lower()) for cui in ("C0000001", "C0000002", "C0000003")]
    folder = release(tmp_path, names, definitions=definitions)
    concepts, report = read_files(folder)
    assert [c.definition for c in concepts] == ["first", "only", ""]
    assert report["definitions_of_unknown_concepts"] == 1


def test_types_of_concepts_without_a_name_are_counted(tmp_path):
    types = [f"{cui}|{tui}|B|D|A||" for cui in ("C0000001", "C7") for tui in ("T047", "T023", "T047")]
    (concept,), report = read_files(release(tmp_path, [conso("C0000001", "x")], types))
    assert concept.semantic_types == ("T047", "T023")
    assert report["types_of_unknown_concepts"] == 3


def test_a_release_in_the_parts_of_its_makers(tmp_path):
    folder = write_rrf(tmp_path)
    expected = read(folder)
    content = (folder / "MRCONSO.RRF").read_bytes()
    (folder / "MRCONSO.RRF").unlink()
    for part, (start, end) in {"aa": (0, 1000), "ab": (1000, 2500), "ac": (2500, None)}.items():
        (folder / f"MRCONSO.RRF.{part}.gz").write_bytes(gzip.compress(content[start:end]))
    assert read(folder) == expected


def test_unsorted_files_give_the_same_concepts(tmp_path):
    folder = write_rrf(tmp_path)
    expected = read(folder)
    for name in ("MRCONSO.RRF", "MRSTY.RRF"):
        lines = (folder / name).read_text().splitlines(keepends=True)
        # Reversed by concept, so that the order within a concept stays.
        (folder / name).write_text("".join(sorted(lines, key=lambda line: line[:8], reverse=True)))
    assert read(folder) == expected
    lines = (folder / "MRCONSO.RRF").read_text().splitlines(keepends=True)
    (folder / "MRCONSO.RRF").write_text("".join(lines[::2] + lines[1::2]))
    assert [c.cui for c in read(folder)] == [c.cui for c in expected]


def test_blocks_may_be_cut_anywhere(tmp_path, monkeypatch):
    folder = write_rrf(tmp_path)
    expected = read(folder)
    monkeypatch.setattr(rrf_tables, "BLOCK_BYTES", 97)
    assert read(folder) == expected


def test_gzip_line_ends_quotes_and_byte_order_mark(tmp_path):
    folder = release(tmp_path, [conso("C0000001", '"the" cold"'), conso("C0000001", "\u03b2 'x\\")])
    content = b"\xef\xbb\xbf" + (folder / "MRCONSO.RRF").read_bytes().replace(b"\n", b"\r\n")
    (folder / "MRCONSO.RRF").unlink()
    (folder / "MRCONSO.RRF.gz").write_bytes(gzip.compress(content))
    (concept,) = read(folder)
    assert (concept.cui, concept.name, concept.synonyms) == ("C0000001", '"the" cold"', ("\u03b2 'x\\",))


GOOD = conso("C0000001", "good").encode()
MALFORMED = [
    (conso("C0000002", "x").replace("|x|", "|", 1).encode(), "expected 18 fields, found 17"),
    (conso("C0000002", "x|y").encode(), "expected 18 fields, found 19"),
    (conso("C0000002", "x").encode()[:-1], "expected 18 fields, found 17"),
    (conso("C0000002", "x").encode()[:-2], "expected 18 fields, found 17 without a closing |"),
    (conso("C0000002", "x").encode()[:20], "expected 18 fields, found 5"),
    (conso("C0000002", "x").encode() + b"tail", "expected 18 fields, found 19 without a closing |"),
    (conso("", "x").encode(), "empty CUI"),
    (conso("C0000002", "").encode(), "empty STR"),
    (conso("C0000002", "caf").encode().replace(b"caf", b"caf\xe9"), "not UTF-8 (byte 0xe9 at column"),
    (b"C0000002|\xff\xfe", "not UTF-8 (byte 0xff at column 10)"),
    (b"\0\0\0", "expected 18 fields, found 1 without a closing |"),
]


@pytest.mark.parametrize(("line", "what"), MALFORMED)
def test_a_malformed_line_is_named_or_skipped(tmp_path, line, what):
    folder = release(tmp_path, [])
    (folder / "MRCONSO.RRF").write_bytes(GOOD + b"\n\n" + line + b"\n" + GOOD.replace(b"good", b"better") + b"\n")
    with pytest.raises(UserError) as error:
        read(folder)
    assert str(error.value).startswith(f"{folder / 'MRCONSO.RRF'}:3: {what}")
    (concept,), report = read_files(folder, on_error="skip")
    assert (concept.name, concept.synonyms) == ("good", ("better",))
    assert report["skipped"] == 1
    assert what.startswith(next(iter(report["reasons"])))


def test_line_numbers_count_over_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(rrf_tables, "BLOCK_BYTES", 200)
    folder = release(tmp_path, [GOOD.decode()] * 50 + ["C0000002|cut"])
    with pytest.raises(UserError, match=r"MRCONSO.RRF:51: expected 18 fields, found 2 without a closing"):
        read(folder)


def test_the_other_files_are_checked_too(tmp_path):
    folder = release(tmp_path, [GOOD.decode()], ["C0000001|T047|B|D|A|"])
    with pytest.raises(UserError, match=r"MRSTY.RRF:1: expected 6 fields, found 5"):
        read(folder)
    folder = release(tmp_path, [GOOD.decode()], definitions=["C0000001|A1|A|S|MINI|N||"])
    with pytest.raises(UserError, match=r"MRDEF.RRF:1: expected 8 fields, found 7"):
        read(folder)


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(UserError, match="MRCONSO.RRF does not exist; set the recipe key umls_dir"):
        read(tmp_path)
    folder = write_rrf(tmp_path / "META")
    with pytest.raises(UserError, match="did you mean .*META"):
        read(tmp_path)
    packed = gzip.compress((folder / "MRCONSO.RRF").read_bytes())
    (folder / "MRCONSO.RRF").unlink()
    (folder / "MRCONSO.RRF.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(UserError, match=r"MRCONSO.RRF.gz: the gzip stream is truncated"):
        read(folder, on_error="skip")
    (folder / "MRCONSO.RRF.gz").write_bytes(b"")
    with pytest.raises(UserError, match="MRCONSO.RRF.gz is empty"):
        read(folder)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"languages": ["SPA", "GER"]}, r"`languages: \[SPA, GER\]`; of LAT, the file has ENG"),
        ({"sources": ["SNOMEDCT_US"]}, r"`sources: \[SNOMEDCT_US\]`; of SAB, the file has MINI"),
        ({"semantic_types": ["T999"]}, "none of 40 concepts has a semantic type of T999; the file has T023, T047"),
    ],
)
def test_an_empty_result_names_the_filter(tmp_path, keys, message):
    with pytest.raises(UserError, match=message):
        read(write_rrf(tmp_path), **keys)


def test_an_empty_result_by_suppression_or_skipping(tmp_path):
    with pytest.raises(UserError, match="that pass the other filters are suppressed"):
        read(release(tmp_path, [conso("C0000001", "x", suppress="Y")]))
    with pytest.raises(UserError, match="contains no well-formed line"):
        read(release(tmp_path, ["not this"]), on_error="skip")


PIECES = st.sampled_from(
    [GOOD, conso("C0000002", "x").encode(), b"|", b"\n", b"\r\n", b"C0000003", b"ENG", b'"', b"\0"]
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.one_of(PIECES, st.binary(max_size=4)), min_size=1, max_size=12), skip=st.booleans())
def test_whatever_the_input_it_is_concepts_or_a_user_error(tmp_path, pieces, skip):
    folder = release(tmp_path, [])
    (folder / "MRCONSO.RRF").write_bytes(b"".join(pieces))
    try:
        concepts = read(folder, on_error="skip" if skip else "stop")
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert concepts == sorted(concepts, key=lambda concept: concept.cui)
    assert all(
        concept.cui and concept.name and len(set(concept.synonyms)) == len(concept.synonyms) for concept in concepts
    )
