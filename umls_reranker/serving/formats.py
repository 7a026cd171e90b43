"""Ranked rows in the formats of other tools: SSSOM, FHIR, and OMOP with its vocabulary.

SSSOM is https://mapping-commons.github.io/sssom, version 1.0. The tables of OMOP are those of the
CDM 5.4, as Athena gives them: separated by tabs, without quoting; a table separated by commas is
read with quoting. The sheets are those of Usagi 1.4 (`WriteCodeMappingsToFile`).
"""

import csv
import io
import json
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from ..calibration.thresholds import TIERS
from ..core.arrays import hash_texts
from ..core.errors import UserError
from ..core.parallel import progress
from ..core.text_files import open_binary, start_of
from ..core.version import __version__
from ..lists.answers import FREQUENCY, Term, first_of, term_of
from ..lists.table import REVIEWED
from ..vocab.code_systems import LOCAL, OWN_URN, SYSTEMS, Code, code_of, code_system_of
from ..vocab.rrf_lines import passing_lines
from .review_sheet import ReviewSheet
from .rows import LinesFormat, OutputFormat, RankedRows, json_line

CandidateRow = Mapping[str, Any]
TOOL = "umls_reranker"
# Of a mapping in a sheet of Usagi.
APPROVED = "APPROVED"


@dataclass
class ConceptTally:
    """How often a concept was the answer for a string, or one of several candidates.

    Attributes:
        name: name of the concept.
        first_count: number of mentions whose first candidate it was: their answer.
        count: number of mentions.
        score_sum: sum of their scores.
        tier: the lowest of their tiers; None if they have none.
    """

    name: str
    first_count: int = 0
    count: int = 0
    score_sum: float = 0.0
    tier: str | None = None

    def add(self, answer: CandidateRow, is_first: bool) -> None:
        """Count a candidate of a mention; that of a reviewer has neither score nor tier."""
        self.first_count += is_first
        self.count += 1
        self.score_sum += answer.get("score", 0.0)
        tiers = filter(None, (self.tier, answer.get("tier")))
        self.tier = max(tiers, key=TIERS.index, default=None)

    @property
    def score(self) -> float:
        """Mean score of the mentions."""
        return round(self.score_sum / self.count, 6)


@dataclass
class StringTally:
    """The answers for a term.

    Attributes:
        mentions: number of all its mentions.
        frequency: how often its source has it, or else the number of mentions.
        concepts: id of a concept -> its count.
        reviewed: a row with the answer of a reviewer, which alone counts then; {} for none.
    """

    mentions: int = 0
    frequency: int = 0
    concepts: dict[str, ConceptTally] = field(default_factory=dict)
    reviewed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ranked(self) -> list[str]:
        """The concepts, those that were the answer most often first, then by score."""

        def place(cui: str) -> tuple[float, ...]:
            tally = self.concepts[cui]
            return -tally.first_count, -tally.count, -tally.score

        return sorted(self.concepts, key=place)

    @property
    def has_conflict(self) -> bool:
        """Whether mentions have different answers; further candidates are none."""
        return sum(tally.first_count > 0 for tally in self.concepts.values()) > 1

    @property
    def best(self) -> str:
        """The first of `ranked`, or "" for none."""
        return next(iter(self.ranked), "")

    def comment_on(self, concept: str) -> str:
        """The reviewer's, or for how many mentions a concept and which others were the answer.

        Args:
            concept: its id; "": there is none.
        """
        if self.reviewed:
            return self.reviewed["review_comment"]
        if not concept:
            return ""
        others = [
            f"{cui} ({tally.first_count})"
            for cui, tally in self.concepts.items()
            if cui != concept and tally.first_count
        ]
        text = f"{self.concepts[concept].first_count} of {self.mentions} mentions"
        return f"{text}; others: {', '.join(others)}" if others else text


class Mappings(OutputFormat):
    """A format of what is accepted or reviewed; a sheet of the rest lies beside it."""

    beside = ".candidates.csv"
    about_beside = "what is not accepted, to be reviewed"

    def write_beside(self, path: Path, parts: Iterable[RankedRows]) -> None:
        """Write the sheet."""
        sheet = ReviewSheet(self.settings)
        sheet.only_open = True
        sheet.write(path, parts)


class FormatByString(Mappings):
    """A format with a row for each term: string and source code. All mentions are counted first.

    Memory holds the distinct terms. Of conflicting answers for a term, the most frequent one
    counts, but a reviewer's before all.

    Attributes:
        has_further: whether as many concepts of a mention count as the settings say, not one.
        strings: term -> its answers, in the order of first mentions.
    """

    has_further: ClassVar[bool] = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.strings: dict[Term, StringTally] = {}

    def write(self, path: Path, parts: Iterable[RankedRows]) -> None:
        """Count all answers, then write the lines of the strings."""
        depth = self.settings.top or 1 if self.has_further else 1
        for rows in parts:
            for row, answers in zip(rows.mappings(), rows.concepts(depth), strict=True):
                tally = self.strings.setdefault(term_of(row), StringTally())
                is_reviewed = bool(row.get(REVIEWED))
                if is_reviewed and not tally.reviewed:
                    tally.reviewed = row
                    tally.concepts.clear()
                tally.mentions += 1
                tally.frequency += int(first_of(row, FREQUENCY) or 1)
                for rank, answer in enumerate(answers):
                    if self.is_used(answer) and is_reviewed == bool(tally.reviewed):
                        tally.concepts.setdefault(
                            answer["cui"], ConceptTally(answer["name"] or "")
                        ).add(answer, is_first=rank == 0)
        # What no text could be read of.
        self.strings = {term: tally for term, tally in self.strings.items() if term.text}
        tallies = self.strings.values()
        self.counts.update(
            {
                "strings": len(tallies),
                "without an answer": sum(not tally.concepts for tally in tallies),
                "with conflicting answers": sum(tally.has_conflict for tally in tallies),
            }
        )
        with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            stream.writelines(self.lines())

    @abstractmethod
    def lines(self) -> Iterator[str]:
        """Yield the lines of the file, with their ends."""


def cells(values: Iterable[object], delimiter: str = ",") -> str:
    """A line of a table."""
    line = io.StringIO()
    # The writer quotes carriage returns and line feeds only if its own lines end in them.
    csv.writer(line, delimiter=delimiter, lineterminator="\r\n").writerow(values)
    return line.getvalue().removesuffix("\r\n") + "\n"


def source_of(term: Term) -> list[Code]:
    """The source's code of a term, if it has one; without a vocabulary, its prefix tells that."""
    if term.code and term.vocabulary:
        return [Code(SOURCE_OF_VOCABULARY.get(term.vocabulary, term.vocabulary), term.code)]
    return [code_of(term.code)] if term.code else []


SOURCE_OF_VOCABULARY = {system.omop: source for source, system in SYSTEMS.items() if system.omop}


# A tier says how sure the model is; `mappingRelation` claims no more than that there is one.
PREDICATES: dict[str | None, str] = {
    "high": "skos:exactMatch",
    "medium": "skos:closeMatch",
}
NAMESPACES = {
    "skos": "http://www.w3.org/2004/02/skos/core#",
    "semapv": "https://w3id.org/semapv/vocab/",
}
COLUMNS = (
    "subject_id",
    "subject_label",
    "subject_type",
    "predicate_id",
    "object_id",
    "object_label",
    "mapping_justification",
    "author_label",
    "mapping_date",
    "mapping_tool",
    "mapping_tool_version",
    "confidence",
    "similarity_score",
    "similarity_measure",
    "comment",
)


class Sssom(FormatByString):
    """A row for each term and code of its concept; a literal mapping if the term has no code.

    The confidence is the mean probability of the string's mentions, the predicate that of their
    lowest tier. A score that is not calibrated is a similarity.
    """

    name = "sssom"
    help = "SSSOM: TSV, a row for each string and source code"
    has_further = True

    def lines(self) -> Iterator[str]:
        namespaces: dict[str, str] = {}
        lines = [cells(COLUMNS, "\t")]
        for term, tally in self.strings.items():
            for concept in tally.ranked[: self.settings.top or 1]:
                for code in self.settings.codes.of(concept):
                    row = self._row(term, tally, concept, code)
                    lines.append(cells([row.get(column, "") for column in COLUMNS], "\t"))
                    systems = (code_system_of(each.source) for each in (code, *source_of(term)))
                    namespaces |= {system.prefix: system.namespace for system in systems}
        description = f"Answers of the model {self.settings.model} for mentions in text"
        yield (
            f"#mapping_set_id: urn:uuid:{uuid5(NAMESPACE_URL, ''.join(lines))}\n"
            "#license: https://w3id.org/sssom/license/unspecified\n"
            f"#mapping_set_description: {json.dumps(description)}\n"
            "#curie_map:\n"
        )
        for prefix, namespace in (NAMESPACES | dict(sorted(namespaces.items()))).items():
            yield f"#  {prefix}: {json.dumps(namespace)}\n"
        yield from lines

    def _row(self, term: Term, tally: StringTally, cui: str, code: Code) -> dict[str, object]:
        concept = tally.concepts[cui]
        sources = source_of(term)
        subject_id = sources[0].curie if sources else ""
        subject_type = "" if term.code else "rdfs literal"
        values = {
            "subject_id": subject_id,
            "subject_label": term.text,
            "subject_type": subject_type,
            "object_id": code.curie,
            "object_label": concept.name,
            "comment": tally.comment_on(cui),
        }
        if tally.reviewed:
            return values | {
                "predicate_id": PREDICATES["high"],
                "mapping_justification": "semapv:ManualMappingCuration",
                "author_label": tally.reviewed["reviewer"],
                "mapping_date": tally.reviewed["reviewed_on"],
            }
        score: dict[str, object] = {"confidence": concept.score}
        if concept.tier is None:
            score = {
                "similarity_score": concept.score,
                "similarity_measure": f"score of {TOOL}, not calibrated",
            }
        about_model = {
            "predicate_id": PREDICATES.get(concept.tier, "skos:mappingRelation"),
            "mapping_justification": "semapv:CompositeMatching",
            "mapping_tool": TOOL,
            "mapping_tool_version": __version__,
        }
        return values | about_model | score


class Fhir(Mappings, LinesFormat):
    """CodeableConcepts with a coding for each code of an accepted concept, and for its own id.

    One that is not accepted has only its text and the source's coding, which is the last of each.
    Extensions hold the score, the tier, and the ids of mention and document, but never the text
    around the mention.
    """

    name = "fhir"
    help = "FHIR: NDJSON, a CodeableConcept for each mention"

    def lines(self, rows: RankedRows) -> Iterator[bytes]:
        for row, answers in zip(rows.mappings(), rows.concepts(1), strict=True):
            answer = answers[0] if answers else {}
            yield json_line(self._concept(row, answer)) + b"\n"

    def _concept(self, row: Mapping[str, Any], answer: CandidateRow) -> dict[str, Any]:
        score = "uncalibrated-score" if answer.get("tier") is None else "score"
        values = (
            ("doc-id", "valueString", row.get("doc_id")),
            ("mention-id", "valueString", row.get("mention_id")),
            (score, "valueDecimal", answer.get("score")),
            ("tier", "valueCode", answer.get("tier")),
        )
        extensions = [
            _extension(name, kind, value) for name, kind, value in values if value not in (None, "")
        ]
        term = term_of(row)
        codings = self._codings(answer["cui"], answer["name"]) if self.is_used(answer) else []
        codings += [_coding(code, term.text) for code in source_of(term)]
        concept = {"extension": extensions, "coding": codings, "text": _text(term.text)}
        return {key: value for key, value in concept.items() if value}

    def _codings(self, cui: str, name: str | None) -> list[dict[str, str]]:
        own = code_of(cui, self.settings.codes.sources)
        others = [own] if own.source != LOCAL else []
        codes = dict.fromkeys([*self.settings.codes.of(cui), *others])
        # Other vocabularies may call the concept otherwise.
        displays = {own: name or ""}
        return [_coding(code, displays.get(code, "")) for code in codes]


def _extension(name: str, kind: str, value: Any) -> dict[str, Any]:
    """An extension with a value of one of FHIR's kinds."""
    if kind == "valueDecimal":
        return {"url": OWN_URN + name, kind: round(value, 6)}
    return {"url": OWN_URN + name, kind: _text(str(value))}


def _coding(code: Code, display: str) -> dict[str, str]:
    """A coding; the type code of FHIR has no other white space than single spaces."""
    coding = {
        "system": code_system_of(code.source).fhir,
        "code": " ".join(_text(code.code).split()),
        "display": _text(display),
    }
    return {key: value for key, value in coding.items() if value}


def _text(text: str) -> str:
    """The text without what no string of FHIR has."""
    return "".join(character for character in text if character >= " " or character in "\t\r\n")


class OmopConcept(NamedTuple):
    """A concept, whose ``standard_concept`` is "S" if others are mapped to it."""

    concept_id: int
    concept_name: str
    domain_id: str
    vocabulary_id: str
    concept_code: str
    standard_concept: str = "S"

    @property
    def code(self) -> Code:
        """Its code, with the UMLS's name of its vocabulary."""
        return Code(
            SOURCE_OF_VOCABULARY.get(self.vocabulary_id, self.vocabulary_id), self.concept_code
        )


@dataclass(frozen=True)
class OmopVocabulary:
    """CONCEPT.csv and CONCEPT_RELATIONSHIP.csv, which are read as streams at each question.

    Attributes:
        concepts: the first file.
        relationships: the second file.
    """

    concepts: Path
    relationships: Path

    def targets(self, codes: Iterable[Code]) -> dict[Code, list[OmopConcept]]:
        """Code -> the standard concepts that it maps to ('Maps to'); it lacks codes without any.

        Raises:
            UserError: a file is missing or cannot be read, or lacks a column.
        """
        wanted = {f"{code_system_of(code.source).omop}\t{code.code}": code for code in codes}
        concepts = self.concepts_of(
            wanted,
            lambda block: pc.binary_join_element_wise(
                block["vocabulary_id"], block["concept_code"], "\t"
            ),
        )
        pairs = self._pairs("concept_id_1", concepts)
        standard = self.concepts_of({target for _, target in pairs})
        targets: dict[Code, list[OmopConcept]] = {}
        for source, target in pairs:
            if target in standard and standard[target].standard_concept == "S":
                targets.setdefault(concepts[source].code, []).append(standard[target])
        return targets

    def sources(self, targets: Iterable[str]) -> dict[str, list[Code]]:
        """Target -> its own code, and then the codes that map to it; errors are those of `targets`.

        It lacks what is no concept.
        """
        ids = {*targets}
        pairs = self._pairs("concept_id_2", ids)
        concepts = self.concepts_of(ids.union(source for source, _ in pairs))
        codes = {target: [concepts[target].code] for target in ids if target in concepts}
        for source, target in pairs:
            if source in concepts and target in codes:
                codes[target].append(concepts[source].code)
        return codes

    def _pairs(self, column: str, ids: Collection[str]) -> list[tuple[str, str]]:
        """Ids of concepts and of those that they map to, with one of `ids` in a column."""
        pairs: list[tuple[str, str]] = []
        columns = ["concept_id_1", "concept_id_2", "relationship_id", "invalid_reason"]
        for block in _read(self.relationships, columns):
            block = passing_lines(
                passing_lines(block, "relationship_id", ["Maps to"]), "invalid_reason", [""]
            )
            block = block.filter(pc.is_in(block[column], pa.array([*ids], pa.string())))
            pairs += zip(
                block["concept_id_1"].to_pylist(), block["concept_id_2"].to_pylist(), strict=True
            )
        return pairs

    def concepts_of(
        self,
        keys: Iterable[str],
        keys_of: Callable[[pa.RecordBatch], pa.Array] = itemgetter("concept_id"),
    ) -> dict[str, OmopConcept]:
        """Id -> concept, of those with one of the keys (ids); errors are those of `targets`."""
        wanted = pa.array([*keys], pa.string())
        concepts = {}
        for block in _read(self.concepts, OmopConcept._fields):
            is_wanted = pc.is_in(keys_of(block), wanted)
            for row in block.filter(is_wanted).to_pylist():
                number = int(row["concept_id"])
                concepts[row["concept_id"]] = OmopConcept(**row | {"concept_id": number})
        return concepts


def _read(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield record batches of the columns (string), "" where a cell is empty."""
    parsing = arrow_csv.ParseOptions()
    header = start_of(path).split(b"\n", 1)[0]
    if b"\t" in header:
        parsing = arrow_csv.ParseOptions(delimiter="\t", quote_char=False)
    convert = arrow_csv.ConvertOptions(
        include_columns=columns, column_types=dict.fromkeys(columns, pa.string())
    )
    with open_binary(path) as stream, progress(desc=f"reading {path.name}", unit=" lines") as bar:
        try:
            for block in arrow_csv.open_csv(stream, parse_options=parsing, convert_options=convert):
                yield block
                bar.update(len(block))
        except (pa.ArrowInvalid, KeyError) as error:
            raise UserError(
                f"{path} is no table with the columns {', '.join(columns)} ({error}); "
                "give CONCEPT.csv and CONCEPT_RELATIONSHIP.csv of an OMOP vocabulary"
            ) from None


# Of source_code, in characters.
LONGEST_CODE = 50
NO_CONCEPT = OmopConcept(0, "No matching concept", "Metadata", "None", "No matching concept")


def source_code(term: Term) -> str:
    """The code of a term, or of one without the string; a longer one becomes beginning and hash."""
    string = term.code or term.text
    suffix = f"~{int(hash_texts([string])[0]):016x}"
    return string if len(string) <= LONGEST_CODE else string[: LONGEST_CODE - len(suffix)] + suffix


class Omop(FormatByString):
    """source_to_concept_map: a row for each term and standard concept, 0 where there is none.

    Of the codes of a term's concept the first one that maps to a standard concept counts. Targets
    that a reviewer approved in Usagi stay.
    """

    name = "omop"
    help = "OMOP: CSV of source_to_concept_map; needs --omop_concepts"
    header: ClassVar[tuple[str, ...]] = (
        "source_code",
        "source_concept_id",
        "source_vocabulary_id",
        "source_code_description",
        "target_concept_id",
        "target_vocabulary_id",
        "valid_start_date",
        "valid_end_date",
        "invalid_reason",
    )

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        if not self.settings.omop_concepts:
            raise UserError(
                f"--format {self.name} needs --omop_concepts CONCEPT.csv CONCEPT_RELATIONSHIP.csv, "
                "files of an OMOP vocabulary, for the integers of its concepts"
            )
        self.vocabulary = OmopVocabulary(*self.settings.omop_concepts)

    def lines(self) -> Iterator[str]:
        codes_of = {}
        for best in {tally.best for tally in self.strings.values()}:
            codes = self.settings.codes.of(best)
            codes_of[best] = [code for code in codes if code_system_of(code.source).omop]
        targets = self.vocabulary.targets(chain.from_iterable(codes_of.values()))
        reviewed = [tally.reviewed.get("reviewed_targets", ()) for tally in self.strings.values()]
        known = self.vocabulary.concepts_of({*chain.from_iterable(reviewed)})
        yield cells(self.header)
        for (term, tally), approved in zip(self.strings.items(), reviewed, strict=True):
            mapped = [known[target] for target in approved if target in known]
            if not mapped:
                targets_of_codes = map(targets.get, codes_of[tally.best])
                mapped = next(filter(None, targets_of_codes), [])
            self.counts["unmapped"] += not mapped
            for target in mapped or [NO_CONCEPT]:
                yield cells(map(self.cell, self.row(term, tally, target, mapped)))

    def row(
        self, term: Term, tally: StringTally, target: OmopConcept, targets: list[OmopConcept]
    ) -> list[object]:
        """The cells for one of the targets of a term."""
        return [
            source_code(term),
            0,
            term.vocabulary or TOOL,
            term.text[:255],
            target.concept_id,
            target.vocabulary_id,
            "1970-01-01",
            "2099-12-31",
            "",
        ]


class Usagi(Omop):
    """A sheet of Usagi, approved where reviewed; else unchecked, and all of it: people decide."""

    name = "usagi"
    help = "Usagi: CSV to review; needs --omop_concepts"
    beside = ""
    header = (
        "sourceCode",
        "sourceName",
        "sourceFrequency",
        "sourceAutoAssignedConceptIds",
        "ADD_INFO:cui",
        "matchScore",
        "mappingStatus",
        "equivalence",
        "statusSetBy",
        "statusSetOn",
        "conceptId",
        "conceptName",
        "domainId",
        "mappingType",
        "comment",
        "createdBy",
        "createdOn",
        "assignedReviewer",
    )

    def is_used(self, answer: CandidateRow) -> bool:
        return bool(answer.get("cui"))

    def row(
        self, term: Term, tally: StringTally, target: OmopConcept, targets: list[OmopConcept]
    ) -> list[object]:
        """The cells for one of the targets of a term."""
        best = tally.best
        score = tally.concepts[best].score if best else 0.0
        status = APPROVED if tally.reviewed else "UNCHECKED"
        day = np.datetime64(tally.reviewed.get("reviewed_on") or "1970-01-01", "ms")
        values = {
            "sourceCode": source_code(term),
            "sourceName": term.text,
            "sourceFrequency": tally.frequency,
            "sourceAutoAssignedConceptIds": ";".join(str(each.concept_id) for each in targets),
            "ADD_INFO:cui": best,
            "matchScore": score,
            "mappingStatus": status,
            "equivalence": "UNREVIEWED",
            "statusSetBy": tally.reviewed.get("reviewer"),
            "statusSetOn": int(day.astype(np.int64)),
            "conceptId": target.concept_id,
            "conceptName": target.concept_name,
            "domainId": target.domain_id,
            "mappingType": "MAPS_TO",
            "comment": tally.comment_on(best),
            "createdBy": TOOL,
            "createdOn": 0,
        }
        return [values.get(column, "") for column in self.header]
