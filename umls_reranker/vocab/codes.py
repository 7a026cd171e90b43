"""Codes of vocabularies, by what names others know these, and the codes of an index's concepts.

Vocabularies have the names of the UMLS (SAB). Prefixes and namespaces are those of the Bioregistry,
systems those of HL7 Terminology (FHIR), vocabulary ids those of the OMOP CDM.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.arrow_files import arrow_writer, one_chunk, open_arrow
from ..core.errors import UserError
from .concept_columns import ConceptColumns
from .concept_folder import is_index
from .concept_table import ConceptTable
from .concepts import CONCEPT_SCHEMA, NameLists, table_of_lists
from .distinct_lists import distinct_lists
from .name_files import read_name_lists
from .ontology import cuis_of, read_ontology
from .rrf import CODE_PREFERENCES, by_cui, filtered_lines, release_files

OBO = "http://purl.obolibrary.org/obo/"
BIOPORTAL = "http://purl.bioontology.org/ontology/"
# Of what nobody else has a name for.
OWN_URN = "urn:umls-reranker:"
UMLS = "UMLS"
# The vocabulary of an id that is no code of any.
LOCAL = ""


class CodeSystem(NamedTuple):
    """A vocabulary as others know it.

    Attributes:
        prefix: prefix of its CURIEs.
        namespace: what the prefix stands for.
        fhir: ``system`` of its codings; "" if there is none.
        omop: its ``vocabulary_id``; "" if there is none.
        form: regular expression of its codes, where an id without a prefix may be one.
    """

    prefix: str
    namespace: str
    fhir: str
    omop: str = ""
    form: str = ""

    @property
    def has_prefixed_codes(self) -> bool:
        """Whether the prefix is a part of its codes, such as ``HP:0000118``."""
        return self.namespace.startswith(OBO) and bool(self.form)


SYSTEMS = {
    UMLS: CodeSystem(
        prefix="UMLS",
        namespace="http://linkedlifedata.com/resource/umls/id/",
        fhir="http://terminology.hl7.org/CodeSystem/umls",
        form=r"C\d{7}",
    ),
    "SNOMEDCT_US": CodeSystem(
        prefix="SNOMEDCT",
        namespace="http://snomed.info/id/",
        fhir="http://snomed.info/sct",
        omop="SNOMED",
        form=r"\d{6,18}",
    ),
    "ICD10CM": CodeSystem(
        prefix="ICD10CM",
        namespace=f"{BIOPORTAL}ICD10CM/",
        fhir="http://hl7.org/fhir/sid/icd-10-cm",
        omop="ICD10CM",
        form=r"[A-Z]\d[0-9A-Z](\.[0-9A-Z]{1,4})?",
    ),
    "ICD10": CodeSystem(
        prefix="ICD10",
        namespace=f"{BIOPORTAL}ICD10/",
        fhir="http://hl7.org/fhir/sid/icd-10",
        omop="ICD10",
        form=r"[A-Z]\d\d(\.\d)?",
    ),
    "ICD9CM": CodeSystem(
        prefix="ICD9CM",
        namespace=f"{BIOPORTAL}ICD9CM/",
        fhir="http://hl7.org/fhir/sid/icd-9-cm",
        omop="ICD9CM",
    ),
    "RXNORM": CodeSystem(
        prefix="RXNORM",
        namespace=f"{BIOPORTAL}RXNORM/",
        fhir="http://www.nlm.nih.gov/research/umls/rxnorm",
        omop="RxNorm",
        form=r"\d{1,8}",
    ),
    "LNC": CodeSystem(
        prefix="LOINC",
        namespace="https://loinc.org/",
        fhir="http://loinc.org",
        omop="LOINC",
        form=r"\d{1,5}-\d",
    ),
    "MSH": CodeSystem(
        prefix="MESH",
        namespace="http://id.nlm.nih.gov/mesh/",
        fhir="https://www.nlm.nih.gov/mesh",
        omop="MeSH",
        form=r"[CD]\d{6}(\d{3})?",
    ),
    "OMIM": CodeSystem(
        prefix="OMIM",
        namespace="https://omim.org/entry/",
        fhir="http://www.omim.org",
        form=r"\d{6}",
    ),
    "HPO": CodeSystem(
        prefix="HP",
        namespace=f"{OBO}HP_",
        fhir="http://human-phenotype-ontology.org",
        form=r"HP:\d{7}",
    ),
    "MONDO": CodeSystem(
        prefix="MONDO",
        namespace=f"{OBO}MONDO_",
        fhir=f"{OBO}mondo.owl",
        form=r"MONDO:\d{7}",
    ),
    "NCI": CodeSystem(
        prefix="NCIT",
        namespace=f"{OBO}NCIT_",
        fhir="http://ncicb.nci.nih.gov/xml/owl/EVS/Thesaurus.owl",
    ),
    "ATC": CodeSystem(
        prefix="ATC",
        namespace=f"{BIOPORTAL}ATC/",
        fhir="http://www.whocc.no/atc",
        omop="ATC",
        form=r"[A-Z](\d\d([A-Z]([A-Z](\d\d)?)?)?)?",
    ),
    LOCAL: CodeSystem(prefix="local", namespace="urn:local:", fhir=""),
}
SOURCE_OF_PREFIX = {system.prefix: source for source, system in SYSTEMS.items()} | {"MIM": "OMIM"}

# Further registered ontologies, whose terms stand at addresses of the OBO Foundry.
OF_OBO_FOUNDRY = """
    BTO CHEBI CL CLO DOID ECTO ENVO GO IDO MAXO MP NCBITaxon
    OBA OBI OGMS PATO PR SO SYMP UBERON VO XCO
"""
NAMESPACES = {prefix: f"{OBO}{prefix}_" for prefix in OF_OBO_FOUNDRY.split()}
NAMESPACES["ORDO"] = "http://www.orpha.net/ORDO/Orphanet_"


def system_of(source: str) -> CodeSystem:
    """The system of a vocabulary.

    One without an entry has a namespace of this package, unless it is a registered ontology, and
    for FHIR the name of the specification.
    """
    prefix = re.sub(r"[^\w.-]|^(?=\d)", "_", source)
    return SYSTEMS.get(source) or CodeSystem(
        prefix=prefix,
        namespace=NAMESPACES.get(prefix, f"{OWN_URN}{prefix}:"),
        fhir=f"http://www.nlm.nih.gov/research/umls/{prefix.lower()}",
    )


class Code(NamedTuple):
    """A code, such as ``73211009`` or ``HP:0000118``, and its vocabulary, such as SNOMEDCT_US."""

    source: str
    code: str

    @property
    def curie(self) -> str:
        """The code with the prefix of its vocabulary; what a URI may not have is escaped."""
        prefix = system_of(self.source).prefix
        return f"{prefix}:{quote(self.code.removeprefix(f'{prefix}:'))}"


def code_of(concept_id: str, sources: Iterable[str] = ()) -> Code:
    """The code that a concept's id is.

    >>> code_of("C0011860"), code_of("MESH:D003924"), code_of("D003924", ["MSH"])
    (Code(source='UMLS', code='C0011860'), Code(source='MSH', code='D003924'), \
Code(source='MSH', code='D003924'))

    Args:
        concept_id: the id, with the prefix of its vocabulary or without.
        sources: vocabularies that an id without a prefix may be of, if it has their form.

    Returns:
        The code; its vocabulary is `LOCAL` if nothing tells it.
    """
    prefix, mark, code = concept_id.partition(":")
    if mark:
        source = SOURCE_OF_PREFIX.get(prefix.upper(), prefix)
        is_whole = source not in SYSTEMS or SYSTEMS[source].has_prefixed_codes
        if is_whole:
            code = concept_id
        return Code(source, code)
    for source in (UMLS, *sources):
        if re.fullmatch(system_of(source).form, concept_id):
            return Code(source, concept_id)
    return Code(LOCAL, concept_id)


# In an index folder.
CODES_FOLDER = "codes"
CODES_FILE = "codes.arrow"
# Between vocabulary and code.
SEPARATOR = ":"
# A list for each concept.
CODE_LISTS = pa.list_(pa.string())
# Atoms that have no code in their vocabulary have this one.
NO_CODE = "NOCODE"
# The vocabularies whose codes are kept where none are named.
USUAL_SOURCES = tuple(source for source in SYSTEMS if source not in (UMLS, LOCAL))


def read_codes(
    path: Path, sources: Sequence[str], cuis: pa.Array | None = None
) -> tuple[pa.Array, pa.ListArray]:
    """CUIs, by default those of the file, and the codes of each, those of preferred atoms first.

    Codes of suppressed atoms are left out; names in all languages count. Memory holds the atoms of
    `sources`.

    Args:
        path: MRCONSO.
        sources: vocabularies (SAB) whose codes are read.
        cuis: the concepts.

    Raises:
        UserError: as `rrf.read_table`.
    """
    filters = {"SAB": sources, "SUPPRESS": ["N"]}
    fields = ["CUI", "SAB", "CODE"]
    atoms, _ = filtered_lines("MRCONSO", path, fields, filters, CODE_PREFERENCES)
    atoms = atoms.filter(pc.not_equal(atoms["CODE"], NO_CODE))
    codes = pc.binary_join_element_wise(atoms["SAB"], atoms["CODE"], SEPARATOR)
    return by_cui(atoms.append_column("code", codes), "code", cuis)


def read_obo_codes(paths: Sequence[Path]) -> dict[str, list[Code]]:
    """CUI -> what a concept of an ontology is elsewhere: the ids of its terms, and its CUI.

    The further CUIs of its terms, none of which has their names, follow the CUI.

    Raises:
        UserError: as `ontology.read_ontology`.
    """
    ids: dict[str, list[Code]] = {}
    cuis: dict[str, list[Code]] = {}
    for path in paths:
        for term in read_ontology(path).terms.values():
            of_term = cuis_of(term)
            if of_term:
                cui = of_term[0]
                ids.setdefault(cui, []).append(code_of(term.id))
                cuis.setdefault(cui, []).extend(Code(UMLS, each) for each in of_term)
    return {cui: list(dict.fromkeys([*terms, *cuis[cui]])) for cui, terms in ids.items()}


def write_codes(
    folder: Path,
    cuis: pa.Array,
    dictionaries: Iterable[Mapping[str, Sequence[Path]]],
    sources: Sequence[str] = (),
) -> dict[str, int]:
    """Write the codes of concepts whose ids are CUIs.

    Args:
        folder: folder to write into.
        cuis: the concepts of the index, in their order.
        dictionaries: the files that they were read from, by name: ``MRCONSO`` or ``obo``.
        sources: vocabularies (SAB) of a release whose codes are kept; by default `USUAL_SOURCES`.

    Returns:
        The number of codes of each vocabulary.

    Raises:
        UserError: the releases have no code of a vocabulary of `sources`.
    """
    rows = []
    texts = []
    for files in dictionaries:
        if "obo" in files:
            known = read_obo_codes(files["obo"])
            of_terms = [list(map(SEPARATOR.join, known.get(cui, ()))) for cui in cuis.to_pylist()]
            lists = pa.array(of_terms, CODE_LISTS)
        else:
            _, lists = read_codes(files["MRCONSO"][0], sources or USUAL_SOURCES, cuis)
        rows.append(pc.list_parent_indices(lists).to_numpy())
        texts.append(pc.list_flatten(lists))
    lists = distinct_lists(np.concatenate(rows), pa.chunked_array(texts), len(cuis))
    parts = pc.split_pattern(pc.list_flatten(lists), SEPARATOR, max_splits=1)
    counted = pc.value_counts(pc.list_element(parts, 0)).to_pylist()
    counts = {item["values"]: item["counts"] for item in counted}
    if missing := [source for source in sources if source not in counts]:
        raise UserError(
            f"no concept has a code of {missing[0]}; there are {', '.join(counts) or 'none'}"
        )
    schema = pa.schema({"codes": CODE_LISTS}, metadata={"sources": " ".join(counts)})
    with arrow_writer(folder / CODES_FILE, schema) as writer:
        writer.write_table(pa.table([lists], schema=schema))
    return counts


class ConceptCodes:
    """The codes of concepts in chosen vocabularies.

    Args:
        sources: the vocabularies (SAB), in the order in which their codes are wanted; without any,
            the code of a concept is its id.
        concepts: concepts whose codes are known.
        lists: their codes; None: they are their alternate ids (`code_of`).
    """

    def __init__(
        self,
        sources: Sequence[str] = (),
        concepts: ConceptColumns | None = None,
        lists: pa.Array | None = None,
    ) -> None:
        self.sources = tuple(sources)
        self._concepts = concepts or ConceptColumns(CONCEPT_SCHEMA.empty_table())
        self._lists = lists
        self._known: dict[str, tuple[Code, ...]] = {}

    @classmethod
    def load(cls, folder: Path, sources: Sequence[str] | None = None) -> ConceptCodes:
        """Open the codes in an index or run folder; by default all that it has.

        Raises:
            UserError: it lacks those of a vocabulary.
        """
        concepts = ConceptTable.load(folder / "concepts")
        path = folder / CODES_FOLDER / CODES_FILE
        if not path.is_file():
            if sources and code_of(concepts.cuis[0].as_py()).source == UMLS:
                raise UserError(
                    f"{folder} has no codes of its concepts; "
                    "make it again with umls-reranker index --codes"
                )
            codes = cls(sources or (), concepts)
            for source in codes.sources:
                known = (code.source for cui in concepts.cuis for code in codes.of(cui.as_py()))
                if source not in known:
                    raise UserError(f"{folder}: no id is a code of {source}; check --codes")
            return codes
        table = open_arrow(path)
        known = table.schema.metadata[b"sources"].decode().split()
        for source in sources or ():
            if source not in known:
                raise UserError(
                    f"{folder} has no codes of {source}, only of {', '.join(known)}; "
                    "make it again with umls-reranker index --codes"
                )
        return cls(sources or known, concepts, one_chunk(table["codes"]))

    @classmethod
    def read(cls, dictionary: Path, sources: Sequence[str] | None = None) -> ConceptCodes:
        """Read the codes in a dictionary: an index, folder META of a release, or a file of names.

        Raises:
            UserError: as `load`, `read_codes` and `concepts.read_name_lists`.
        """
        if is_index(dictionary):
            return cls.load(dictionary, sources)
        if not dictionary.is_dir():
            return cls(sources or (), ConceptColumns(table_of_lists(read_name_lists(dictionary))))
        path = release_files(dictionary, required=["MRCONSO"])["MRCONSO"]
        sources = sources or USUAL_SOURCES
        cuis, lists = read_codes(path, sources)
        return cls(sources, ConceptColumns(table_of_lists(NameLists(cuis, lists))), lists)

    def of(self, concept_id: str) -> tuple[Code, ...]:
        """The codes of a concept, best first; its own id if it has none in these vocabularies."""
        if concept_id not in self._known:
            own = code_of(concept_id, self.sources)
            codes = [
                code for code in (own, *self._stored(concept_id)) if code.source in self.sources
            ]
            codes.sort(key=lambda code: self.sources.index(code.source))
            self._known[concept_id] = tuple(dict.fromkeys(codes)) or (own,)
        return self._known[concept_id]

    def concepts_with(self, codes: Collection[Code]) -> dict[Code, list[str]]:
        """Code -> the ids of the concepts that have it or are it; without codes that none has."""
        concepts: dict[Code, list[str]] = {}
        wanted = {SEPARATOR.join(code): code for code in codes}
        if self._lists is not None:
            texts = pc.list_flatten(self._lists)
            is_wanted = pc.is_in(texts, pa.array(wanted, pa.string()))
            rows = pc.list_parent_indices(self._lists).filter(is_wanted)
            cuis = self._concepts.cuis.take(rows).to_pylist()
            for cui, text in zip(cuis, texts.filter(is_wanted).to_pylist(), strict=True):
                concepts.setdefault(wanted[text], []).append(cui)
            return concepts
        for code in codes:
            row = self._concepts.rows([code.code, code.curie, SEPARATOR.join(code)]).max()
            if row >= 0:
                concepts[code] = [self._concepts.cuis[row].as_py()]
        return concepts

    def _stored(self, concept_id: str) -> list[Code]:
        rows = self._concepts.rows([concept_id])
        if rows[0] < 0:
            return []
        if self._lists is None:
            return [
                code_of(other, self.sources)
                for other in self._concepts.column("alternates", rows)[0].as_py()
            ]
        return [Code(*text.split(SEPARATOR, 1)) for text in self._lists[rows[0]].as_py()]
