#!/usr/bin/env python
"""Write a synthetic corpus in the format of full MedMentions, of a synthetic release's concepts.

    python benchmarks/rrf_release.py META --rows 17000000 --relations 9
    python benchmarks/pubtator_corpus.py META CORPUS --documents 4392 --mentions 352496

Writes corpus_pubtator.txt and the document lists of the three splits (60, 20 and 20 %). A mention
has a bare CUI and one type or several; one in twenty is UnknownType with a CUI that the release
lacks, some have a retired CUI. Mentions are names of their concept, as they are or changed a
little, or abbreviations that their document defines; few concepts are frequent and most are rare.
The same arguments give the same bytes.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset as ds

FIELDS = {"MRCONSO": 18, "MRSTY": 6, "MRCUI": 7}
FILLERS = (
    "was seen in most of the patients with",
    "did not change the course of",
    "at 20 \u00b5g/ml, in na\u00efve mice, preceded",
    "(p < 0.05) correlated with",
    "of Sj\u00f6gren\u2019s cohort; \u03b1-synuclein aside,",
    "was therefore compared with",
)
SPLITS = {"trng": 0.6, "dev": 0.2, "test": 0.2}


class Release:
    """The concepts of a release that the corpus annotates.

    Attributes:
        cuis: some of its CUIs, evenly spread.
        names, types: of each.
        retired: CUI -> a CUI that was merged into it.
    """

    def __init__(self, folder: Path, concepts: int) -> None:
        typed = read(folder, "MRSTY", (0, 1))
        known = typed["f0"].unique()
        chosen = known.take(
            pa.array(np.arange(0, len(known), max(1, len(known) // concepts))[:concepts])
        )
        self.retired = dict(rows(read(folder, "MRCUI", (5, 0), ds.field("f5").isin(chosen))))
        preferable = (ds.field("f1") == "ENG") & (ds.field("f16") == "N")
        names = by_cui(read(folder, "MRCONSO", (0, 14), preferable & ds.field("f0").isin(chosen)))
        types = by_cui(typed.filter(pc.is_in(typed["f0"], chosen)))
        self.cuis = sorted(names)
        self.names = [names[cui] for cui in self.cuis]
        self.types = [types[cui] for cui in self.cuis]


def by_cui(table: pa.Table) -> dict[str, list[str]]:
    values = defaultdict(list)
    for cui, value in rows(table):
        values[cui].append(value)
    return values


def rows(table: pa.Table) -> Iterator[tuple[str, str]]:
    return zip(*(column.to_pylist() for column in table.columns), strict=True)


def read(
    folder: Path, name: str, columns: tuple[int, int], where: ds.Expression | None = None
) -> pa.Table:
    """Two columns of a file."""
    fields = [f"f{number}" for number in range(FIELDS[name] + 1)]
    form = ds.CsvFileFormat(
        read_options=pa.csv.ReadOptions(column_names=fields),
        parse_options=pa.csv.ParseOptions(delimiter="|", quote_char=False, escape_char=False),
        convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(fields, pa.string())),
    )
    file = ds.dataset(folder / f"{name}.RRF", format=form)
    return file.to_table(columns=[f"f{number}" for number in columns], filter=where)


class Writer:
    """Documents, one after another, from one seeded generator."""

    def __init__(self, release: Release, seed: int) -> None:
        self.release = release
        self.random = np.random.default_rng(seed)
        self.unknown = 0

    def document(self, doc_id: int, mentions: int) -> str:
        """A title with one mention and an abstract with the others."""
        random = self.random
        # Of 35,000 concepts the most frequent thousand make up a third.
        concepts = (len(self.release.cuis) * random.random(mentions) ** 3).astype(int).tolist()
        chances = random.random((mentions, 3)).tolist()
        fillers = random.integers(0, len(FILLERS), mentions).tolist()
        text = ""
        annotated = []

        def annotate(mention: str, identifiers: str) -> None:
            annotated.append(
                f"{doc_id}\t{len(text)}\t{len(text) + len(mention)}\t{mention}\t{identifiers}"
            )

        for concept, (kind, change, pick), filler in zip(concepts, chances, fillers, strict=True):
            if len(annotated) == mentions:
                break
            names = self.release.names[concept]
            mention = self.changed(names[int(pick * len(names))], change)
            identifiers = self.identifiers(concept, kind)
            annotate(mention, identifiers)
            text += mention
            words = mention.split()
            short = "".join(word[0] for word in words).upper()
            if change > 0.85 and len(annotated) < mentions and len(words) > 2 and short.isalpha():
                text += " ("
                annotate(short, identifiers)
                text += f"{short})"
            text += "\n" if len(annotated) < 3 and "\n" not in text else f" {FILLERS[filler]} "
        # The title ends where the abstract begins, with one character between them.
        title, _, abstract = text.partition("\n")
        lines = [f"{doc_id}|t|{title}", f"{doc_id}|a|{abstract.rstrip()}.", *annotated]
        return "\n".join(lines) + "\n\n"

    def identifiers(self, concept: int, kind: float) -> str:
        """Types and CUI: unknown for one mention in twenty, retired for some others."""
        if kind < 0.05:
            self.unknown += 1
            return f"UnknownType\tC{9_500_000 + self.unknown % 400_000}"
        cui = self.release.cuis[concept]
        if kind < 0.5:
            cui = self.release.retired.get(cui, cui)
        return f"{','.join(self.release.types[concept])}\t{cui}"

    @staticmethod
    def changed(name: str, change: float) -> str:
        """A name as a text has it: mostly in lower case, sometimes a plural or a misspelling."""
        name = name.split(" (")[0].split(", NOS")[0].replace(" [Ambiguous]", "")
        if change < 0.5 or name.isupper():
            return name if change < 0.2 or name.isupper() else name.lower()
        if change < 0.65:
            return f"{name.lower()}s"
        if change < 0.75 and len(name) > 6:
            middle = len(name) // 2
            return name[:middle] + name[middle + 1] + name[middle] + name[middle + 2 :]
        return name.lower()


def write_corpus(release: Path, folder: Path, documents: int, mentions: int, seed: int) -> None:
    """Write the corpus; it has exactly so many documents and mentions."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng((seed, documents, mentions))
    # MedMentions: 34,724 concepts.
    writer = Writer(Release(release, max(200, mentions // 10)), seed)
    sizes = 2 + random.multinomial(
        mentions - 2 * documents, random.dirichlet(np.full(documents, 8.0))
    )
    ids = (20_000_000 + random.permutation(5 * documents)[:documents]).tolist()
    with (folder / "corpus_pubtator.txt").open("w", encoding="utf-8", newline="\n") as corpus:
        for doc_id, size in zip(ids, sizes.tolist(), strict=True):
            corpus.write(writer.document(doc_id, size))
    ends = np.cumsum([round(share * documents) for share in SPLITS.values()])[:-1]
    for split, documents_of_split in zip(SPLITS, np.split(np.array(ids), ends), strict=True):
        lines = "".join(f"{doc_id}\n" for doc_id in documents_of_split.tolist())
        (folder / f"corpus_pubtator_pmids_{split}.txt").write_text(lines)
    print(
        f"{mentions:,} mentions of {len(writer.release.cuis):,} concepts "
        f"in {documents:,} documents in {folder}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("release", type=Path, help="folder that rrf_release.py wrote")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--documents", type=int, default=4_392)
    parser.add_argument("--mentions", type=int, default=352_496)
    parser.add_argument("--seed", type=int, default=13)
    arguments = parser.parse_args()
    write_corpus(
        arguments.release, arguments.out, arguments.documents, arguments.mentions, arguments.seed
    )


if __name__ == "__main__":
    main()
