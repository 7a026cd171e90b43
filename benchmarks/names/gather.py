#!/usr/bin/env python
"""Gather the names that an encoder may learn, in clusters of synonyms.

    python benchmarks/names/gather.py runs/names/data

The folder gets

* ``concepts.json``: clusters, each with the ids of its concepts, and its names with their sources;
* ``held_out.json``: pairs to judge by, drawn before any training, whose mentions are in no cluster;
* ``documents.json``: the MedMentions documents whose mentions are among the names;
* ``report.json``: what was counted, and what was left out and why.

A name is in a cluster once, whatever its case. README.md says which sources are never read.
"""

import argparse
import csv
import gzip
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np

from umls_reranker.core.json_files import write_json
from umls_reranker.corpora.annotated_text import Mention
from umls_reranker.corpora.formats import read_corpus
from umls_reranker.pipeline.options import load_recipe
from umls_reranker.pipeline.sources import listed_documents
from umls_reranker.retrieval.trigram_weights import count_trigrams, weighted_trigrams
from umls_reranker.vocab.normal_form import normal_forms
from umls_reranker.vocab.normalization import normalize_name
from umls_reranker.vocab.rrf_tables import read_rrf_table

RECIPE = Path(__file__).parents[2] / "recipes" / "minilm-medmentions-cpu" / "config.yaml"
# All that is read of each file: others hold strings that models are measured on.
OPEN_SYNONYMS = ("CL", "DOID", "MEDQUAD", "MESH", "NCIT", "ORDO", "UBERON")
UMLS_OPEN = ("DOID", "MONDO", "NCI", "NIF", "ONCOTREE", "ORDO", "UBERON")
MEDMENTIONS = "MedMentions"
SEED = 13
HELD_OUT = 100
# A mention's text stands for a concept that has at least this share of its annotations.
AGREEMENT = 0.5
# A concept with more names of a source is broad: they are of narrower kinds, too.
BROAD = {"MEDQUAD": 40, "MESH": 40, MEDMENTIONS: 12}
LANGUAGE = re.compile(r"@[a-z]{2}$")
# A name of more concepts joins none of them.
MOST_SHARED = 3
MOST_NAMES = 80

# Concept -> normalized form of each name -> the name and its source.
Names = dict[str, dict[str, tuple[str, str]]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="folder to write")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    options = parser.parse_args()
    mentions = medmentions(options.data)["train"]
    documents = sorted({one.doc_id for one in mentions})
    report = {"mentions": len(mentions), "documents": len(documents)}
    names = named_concepts(options.data, mentions, report)
    clusters = join(names, report)
    drop_ambiguous(clusters, report)
    pairs = draw_pairs(clusters)
    set_aside = {pair["mention_form"] for pair in pairs}
    learned = []
    for cluster in clusters:
        forms = cluster["names"].items()
        if names := [name for form, name in forms if form not in set_aside]:
            learned.append({"ids": cluster["ids"], "names": names})
    sizes = [len(cluster["names"]) for cluster in learned]
    report |= {
        "clusters": len(learned),
        "clusters_with_synonyms": sum(size > 1 for size in sizes),
        "names": sum(sizes),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    files = {"concepts": learned, "held_out": pairs, "documents": documents, "report": report}
    for name, content in files.items():
        write_json(options.output / f"{name}.json", content)
    print(f"{report['names']:,} names in {report['clusters']:,} clusters")


def medmentions(data: Path) -> dict[str, list[Mention]]:
    """Mentions of the splits ``train`` and ``dev`` of the recipe `RECIPE`, and of no other."""
    recipe = load_recipe(RECIPE)
    corpus = data / "medmentions_st21pv"
    files = {
        "train_documents": (corpus / "corpus_pubtator_pmids_trng.txt",),
        "dev_documents": (corpus / "corpus_pubtator_pmids_dev.txt",),
    }
    split_of = listed_documents(recipe.mentions, files, recipe.run.seed)
    file = corpus / "corpus_pubtator.txt.gz"
    splits: dict[str | None, list[Mention]] = defaultdict(list)
    abbreviations = recipe.mentions.expand_abbreviations
    for mention in read_corpus([file], expand_abbreviations=abbreviations):
        splits[split_of.get(mention.doc_id)].append(mention)
    return {split: splits[split] for split in ("train", "dev")}


def source_names(data: Path, mentions: list[Mention]) -> Iterator[tuple[str, str, str]]:
    """Concept, name and source of every name of the sources."""
    file = data / "open_synonyms" / "synonyms.tsv.gz"
    with gzip.open(file, "rt", encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            if row["source"] in OPEN_SYNONYMS:
                # Those of MEDQUAD are CUIs.
                yield row["concept"].removeprefix("MEDQUAD:"), row["name"], row["source"]
    file = data / "umls_open" / "META" / "MRCONSO.RRF"
    for block in read_rrf_table("MRCONSO", file, ["CUI", "STR", "SAB"]):
        for row in block.to_pylist():
            if row["SAB"] in UMLS_OPEN:
                yield row["CUI"], row["STR"], row["SAB"]
    counts: dict[str, Counter] = defaultdict(Counter)
    for mention in mentions:
        if len(mention.cuis) == 1:
            counts[mention.text][mention.cuis[0][0]] += 1
    for text, concepts in counts.items():
        concept, count = concepts.most_common(1)[0]
        if count >= AGREEMENT * concepts.total():
            yield concept, text, MEDMENTIONS


def named_concepts(data: Path, mentions: list[Mention], report: dict) -> Names:
    """The names of each concept, without those of broad concepts."""
    names: Names = defaultdict(dict)
    for concept, name, source in source_names(data, mentions):
        form = normalize_name(name)
        if len(form) > 2 and not form.isdigit() and not LANGUAGE.search(name):
            names[concept].setdefault(form, (name, source))
    left_out: Counter = Counter()
    for concept, forms in names.items():
        sizes = Counter(source for _, source in forms.values())
        broad = {source for source, most in BROAD.items() if sizes[source] > most}
        left_out.update({source: sizes[source] for source in broad})
        names[concept] = {form: name for form, name in forms.items() if name[1] not in broad}
    report["names_of_broad_concepts_left_out"] = left_out
    names = {concept: forms for concept, forms in names.items() if forms}
    report["concepts"] = len(names)
    report["names_by_source"] = Counter(s for forms in names.values() for _, s in forms.values())
    return names


def join(names: Names, report: dict) -> list[dict]:
    """Join concepts of different vocabularies that share names, those that share most first.

    A cluster has at most one concept of a vocabulary, and at most `MOST_NAMES` names.
    """
    concepts = sorted(names)
    vocabulary = [one.split(":")[0] if ":" in one else "CUI" for one in concepts]
    sizes = [len(names[concept]) for concept in concepts]
    shared = shared_names(names, concepts)

    def strength(pair: tuple[int, int]) -> tuple:
        return -shared[pair], min(sizes[number] for number in pair), pair

    members = [[number] for number in range(len(concepts))]
    report["joined"] = 0
    for first, second in sorted(shared, key=strength):
        # One shared name is enough only for short lists: MeSH has names of narrower kinds.
        smaller, larger = sorted((sizes[first], sizes[second]))
        is_mesh = "MESH" in (vocabulary[first], vocabulary[second])
        most = 4 if is_mesh or smaller > 2 else MOST_NAMES
        count = shared[first, second]
        is_enough = count >= 0.4 * smaller if count > 1 else larger <= most
        joined = members[first] + members[second]
        is_mixed = len({vocabulary[number] for number in joined}) == len(joined)
        if is_enough and is_mixed and sum(sizes[number] for number in joined) <= MOST_NAMES:
            report["joined"] += 1
            for number in joined:
                members[number] = joined
    clusters = []
    for numbers in dict.fromkeys(tuple(sorted(one)) for one in members):
        cluster = {"ids": [concepts[number] for number in numbers], "names": {}}
        for concept in cluster["ids"]:
            for form, name in names[concept].items():
                cluster["names"].setdefault(form, name)
        clusters.append(cluster)
    return clusters


def shared_names(names: Names, concepts: list[str]) -> Counter:
    """Positions of two concepts, ascending -> the number of names that they share."""
    owners: dict[str, list[int]] = defaultdict(list)
    for number, concept in enumerate(concepts):
        for form in names[concept]:
            owners[form].append(number)
    return Counter(
        pair
        for form, numbers in owners.items()
        if len(numbers) <= MOST_SHARED and len(form) > 4
        for pair in combinations(numbers, 2)
    )


def drop_ambiguous(clusters: list[dict], report: dict) -> None:
    """Leave out names of MeSH, and short ones, that another cluster has, too."""
    clusters_of = Counter(form for cluster in clusters for form in cluster["names"])
    left_out: Counter = Counter()
    for cluster in clusters:
        for form, (_, source) in [*cluster["names"].items()]:
            if clusters_of[form] > 1 and (source == "MESH" or len(form) < 7):
                left_out[source] += 1
                del cluster["names"][form]
    report["ambiguous_names_left_out"] = left_out


def draw_pairs(clusters: list[dict]) -> list[dict]:
    """Names as mentions, each with a ``gold`` synonym and the most similar name of another cluster.

    The synonym differs in more than number, order or spelling of words; similar is by trigrams.
    """
    forms = [form for cluster in clusters for form in cluster["names"]]
    entries = [entry for cluster in clusters for entry in cluster["names"].values()]
    words = normal_forms([name for name, _ in entries])
    starts = np.cumsum([0, *(len(cluster["names"]) for cluster in clusters)]).tolist()
    codes, counts = count_trigrams(forms)
    frequencies = np.bincount(counts.indices, minlength=len(codes))
    vectors = weighted_trigrams([(codes, frequencies)], len(forms), len(forms)).weigh(forms)
    rng = random.Random(SEED)
    order = [number for number, cluster in enumerate(clusters) if len(cluster["names"]) > 1]
    rng.shuffle(order)
    pairs: list[dict] = []
    for number in order:
        rows = range(starts[number], starts[number + 1])
        options = [row for row in rows if entries[row][1] in OPEN_SYNONYMS]
        if not options:
            continue
        mention = rng.choice(options)
        synonyms = [row for row in rows if words[row] != words[mention]]
        if not synonyms:
            continue
        gold = rng.choice(synonyms)
        similarity = (vectors @ vectors[[mention]].T).toarray()[:, 0]
        similarity[rows] = -1
        nearest = int(similarity.argmax())
        # A name that equals the mention is no wrong answer.
        if forms[nearest] != forms[mention]:
            texts = {"mention": mention, "gold": gold, "other": nearest}
            pair = {key: entries[row][0] for key, row in texts.items()}
            pairs.append(pair | {"mention_form": forms[mention], "ids": clusters[number]["ids"]})
        if len(pairs) == HELD_OUT:
            break
    return pairs


if __name__ == "__main__":
    main()
