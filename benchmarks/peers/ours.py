#!/usr/bin/env python
"""Rows of ours for the table: a run's model on its own candidates, and on those of a peer.

    python benchmarks/peers/ours.py runs/minilm-medmentions-cpu runs/peers
    python benchmarks/peers/ours.py runs/minilm-medmentions-cpu runs/peers --lists gilda bm25 fuzzy

The first form ranks the run's candidates by all features, without the cross-encoder, without the mentions' types, and
by names and CUIs. The run's model was fitted on the calibration documents, so thresholds are chosen on those of dev.

The second writes a peer's rows as labelled lists, EXPORT/lists/SYSTEM/SPLIT.jsonl, and ranks them in two ways:
+lists, by a model without a network that `umls-reranker calibrate --lists` makes of the first `--most` calibration
lists, with thresholds chosen on what it decides about documents held out in five folds; and +model, by the run's model
as it is, with thresholds chosen on dev.

With --turns, the run's `ConceptLinker` links test mentions when `speed.py` asks, and nothing is written.
"""

import argparse
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from peer import Export, Link, Mention, read_rows, take_turns, write_rows

WAYS = ("lists", "model")
OWN_INPUTS = ("types", "context", "training mentions")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder with a model")
    parser.add_argument("export", type=Path, help="folder that export.py wrote from it")
    parser.add_argument("--lists", nargs="+", metavar="SYSTEM", help="systems whose candidates are ranked")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="ways of ranking them (default: all)")
    parser.add_argument(
        "--most", type=int, default=5_000, help="number of calibration lists to fit on, or mentions to time"
    )
    parser.add_argument("--turns", choices=("ours", "ours_without_cross_encoder"), help="time it when asked to")
    arguments = parser.parse_args()
    if arguments.turns:
        link = linker_of(arguments.run, uses_network=arguments.turns == "ours")
        take_turns(link, Export(arguments.export).mentions("test"), arguments.most)
    elif not arguments.lists:
        rank_own(arguments.run, arguments.export)
    for system in arguments.lists or ():
        for way in arguments.ways:
            rank_lists(system, way, arguments.run / "model", Export(arguments.export), arguments.most)


def linker_of(run: Path, uses_network: bool) -> Link:
    """The run's linker as users call it, with or without its cross-encoder."""
    from umls_reranker.serving.linker import ConceptLinker

    linker = ConceptLinker.from_run(run)
    if not uses_network:
        linker.reranker.calibration = without_cross_encoder(linker.reranker.calibration)

    def link(mentions: Sequence[Mention]) -> list:
        return linker.link_batch(
            [mention.mention for mention in mentions],
            entity_types=[mention.semantic_types for mention in mentions],
            lefts=[mention.left for mention in mentions],
            rights=[mention.right for mention in mentions],
        )

    return link


def without_cross_encoder(calibration):
    """The calibration whose model of all inputs does not weigh the network."""
    return replace(calibration, models=[calibration.models[0].without_network])


def rank_own(run: Path, export: Path) -> None:
    """Write rows of the run's model on the run's candidates."""
    from umls_reranker.calibration.inputs import without
    from umls_reranker.core.stages import RunFolder, key_of_lists
    from umls_reranker.data.candidate_lists import CandidateLists
    from umls_reranker.data.concepts import ConceptTable
    from umls_reranker.serving.reranker import UMLSReranker

    reranker = UMLSReranker.from_pretrained(run / "model")
    calibration = reranker.calibration
    first, *fallbacks = calibration.models
    ways = {"ours": (calibration, ())}
    if first.uses_network and first.baseline is not None:
        ways["ours_without_cross_encoder"] = without_cross_encoder(calibration), ()
    for model in fallbacks:
        if model.name in ("no type", "names and CUIs"):
            ways[f"ours_{model.name.replace(' ', '_').lower()}"] = calibration, model.removed
    concepts, mentions = ConceptTable.load(run / "concepts"), RunFolder(run).splits("mentions")
    candidates, fields = RunFolder(run).splits("candidates"), reranker.template.candidate_fields
    for name, (reranker.calibration, removed) in ways.items():
        for split in ("dev", "test"):
            lists = CandidateLists.from_run(candidates[split], mentions[split], concepts, fields, key_of_lists(run))
            decisions = reranker.rank(without(lists, removed), f"{name}, {split}")
            write_rows(
                export / "rows" / name / f"{split}.jsonl", rows(lists, decisions, mentions[split]["mention_id"])
            )
        inputs = [entry for entry in OWN_INPUTS if entry != "types" or "entity_type" not in removed]
        write_facts(export / "rows" / name, inputs, "dev")


def rank_lists(system: str, way: str, model: Path, export: Export, most: int) -> None:
    """Write rows of a peer's candidates, ranked by ours."""
    from umls_reranker.core.settings import CalibrationArguments
    from umls_reranker.data.labelled_lists import read_labelled_lists
    from umls_reranker.serving.recalibration import recalibrate, save_recalibrated
    from umls_reranker.serving.reranker import UMLSReranker
    from umls_reranker.serving.source_model import SourceModel

    name, is_fitted = f"{system}+{way}", way == "lists"
    source, folder = SourceModel.load(None if is_fitted else str(model)), export.folder / "rows" / name

    def lists_of(split: str, most: int | None = None):
        path = export.folder / "lists" / system / f"{split}.jsonl"
        write_rows(path, islice(labelled_lists(system, split, export), most))
        return read_labelled_lists(path, source.hierarchy, fitted_on=split == "calibration")

    reranker = source.reranker
    if is_fitted:
        labelled = lists_of("calibration", most)
        new = recalibrate(source, labelled, CalibrationArguments())
        write_rows(folder / "calibration.jsonl", rows(new.lists, new.after, labelled.mention_ids))
        place = export.scratch("models") / name
        shutil.rmtree(place, ignore_errors=True)
        save_recalibrated(source, new, place)
        reranker = UMLSReranker.from_pretrained(place)
    for split in ("test",) if is_fitted else ("dev", "test"):
        labelled = lists_of(split)
        decisions = reranker.rank(labelled.lists, f"{name}, {split}")
        write_rows(folder / f"{split}.jsonl", rows(labelled.lists, decisions, labelled.mention_ids))
    inputs = next(read_rows(export.folder / "rows" / system / "facts.json"))["inputs"]
    added = ["types", "calibration mentions"] if is_fitted else OWN_INPUTS
    write_facts(folder, [*dict.fromkeys([*inputs, *added])], "calibration" if is_fitted else "dev")


def labelled_lists(system: str, split: str, export: Export) -> Iterator[dict[str, Any]]:
    """A peer's rows as the rows that `umls-reranker calibrate --lists` reads."""
    concepts = {concept.cui: concept for concept in export.concepts()}
    mentions = {mention.mention_id: mention for mention in export.mentions(split)}
    for row in read_rows(export.folder / "rows" / system / f"{split}.jsonl"):
        mention = mentions[row["mention_id"]]
        candidates = []
        for cui, score, name in zip(row["cuis"], row["scores"], row["names"], strict=True):
            about = {"preferred_name": concepts[cui].name, "semantic_types": concepts[cui].semantic_types}
            candidates.append({"name": name or concepts[cui].name, "cui": cui, "linker_score": score} | about)
        text = {"entity": mention.mention, "left": mention.left, "right": mention.right}
        labels = {"doc_id": mention.doc_id, "cui": mention.cui, "mention_id": mention.mention_id}
        yield text | labels | {"entity_type": mention.semantic_types, "candidates": candidates}


def rows(lists, decisions, mention_ids: Sequence[int]) -> Iterator[dict[str, Any]]:
    """What was decided about each mention, by rank; ranks are by log-odds, confidence is the probability."""
    cuis, bounds = lists.cuis.to_list(), decisions.offsets.tolist()
    for mention_id, start, end in zip(mention_ids, bounds, bounds[1:], strict=False):
        order = decisions.order[start:end]
        confidence = {"confidence": decisions.probabilities[order[0]].item()} if len(order) else {}
        ranked = {"cuis": [cuis[row] for row in order], "scores": decisions.log_odds[order].tolist()}
        yield {"mention_id": mention_id} | ranked | confidence


def write_facts(folder: Path, inputs: Iterable[str], chosen_on: str) -> None:
    write_rows(folder / "facts.json", [{"inputs": [*inputs], "deviations": [], "chosen_on": chosen_on}])


if __name__ == "__main__":
    main()
