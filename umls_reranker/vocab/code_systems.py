"""The vocabularies of codes, and by what names others know them.

Vocabularies have the names of the UMLS (SAB). Prefixes and namespaces are those of the Bioregistry,
systems those of HL7 Terminology (FHIR), vocabulary ids those of the OMOP CDM.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import quote

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
OBO_FOUNDRY_PREFIXES = """
    BTO CHEBI CL CLO DOID ECTO ENVO GO IDO MAXO MP NCBITaxon
    OBA OBI OGMS PATO PR SO SYMP UBERON VO XCO
"""
ONTOLOGY_NAMESPACES = {prefix: f"{OBO}{prefix}_" for prefix in OBO_FOUNDRY_PREFIXES.split()}
ONTOLOGY_NAMESPACES["ORDO"] = "http://www.orpha.net/ORDO/Orphanet_"


def code_system_of(source: str) -> CodeSystem:
    """The system of a vocabulary.

    One without an entry has a namespace of this package, unless it is a registered ontology, and
    for FHIR the name of the specification.
    """
    prefix = re.sub(r"[^\w.-]|^(?=\d)", "_", source)
    return SYSTEMS.get(source) or CodeSystem(
        prefix=prefix,
        namespace=ONTOLOGY_NAMESPACES.get(prefix, f"{OWN_URN}{prefix}:"),
        fhir=f"http://www.nlm.nih.gov/research/umls/{prefix.lower()}",
    )


class Code(NamedTuple):
    """A code, such as ``73211009`` or ``HP:0000118``, and its vocabulary, such as SNOMEDCT_US."""

    source: str
    code: str

    @property
    def curie(self) -> str:
        """The code with the prefix of its vocabulary; what a URI may not have is escaped."""
        prefix = code_system_of(self.source).prefix
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
        if re.fullmatch(code_system_of(source).form, concept_id):
            return Code(source, concept_id)
    return Code(LOCAL, concept_id)
