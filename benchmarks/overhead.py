"""Processor time of ranking besides the network: a network that computes nothing, real lists of a run's test split.

    python benchmarks/overhead.py runs/quickstart

Microseconds a pair by the door that the pairs come in at, for texts that were seen before and for others; and
milliseconds for one mention. Lists of other sizes than that of most are left out.
"""

import argparse
import time
from itertools import pairwise
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run folder")
    parser.add_argument("--mentions", type=int, default=512, help="mentions per batch (default: 512)")
    parser.add_argument("--rounds", type=int, default=9, help="repetitions; the best counts (default: 9)")
    options = parser.parse_args()
    import pyarrow as pa
    import torch

    from umls_reranker import UMLSReranker
    from umls_reranker.serving.cluster import RerankBatches

    reranker = UMLSReranker.from_pretrained(options.run / "model", device="cpu", dtype="float32")
    scorer, logits = reranker.scorer, torch.zeros(65_536)
    network = type(scorer.network)
    network.__call__ = lambda self, batch: logits[: len(batch.lengths)]
    network.threads, scorer.token_budget = 1, 1 << 30
    first, second = rows_of(options.run, options.mentions)
    size = len(first[0]["candidates"])
    bare = [row | {"candidates": [{"name": c["name"], "cui": c["cui"]} for c in row["candidates"]]} for row in first]
    arrow = RerankBatches.__new__(RerankBatches)
    arrow.reranker = reranker

    def objects(rows):
        return lambda: reranker.rerank_batch(*([row[key] for row in rows] for key in rows[0]))

    def table(rows):
        made = pa.Table.from_pylist(rows)
        return lambda: arrow(made)

    print(f"lists of {size}, {options.mentions} mentions per batch, {options.run / 'model'}\n")
    print("| input | texts | us per pair |\n|:---|:---|---:|")
    runs = {
        "Python objects": objects(first),
        "Python objects, name and CUI only": objects(bare),
        "Arrow table": table(first),
    }
    seconds = measured(objects(second), 1)
    print(f"| Python objects | new | {1e6 * seconds / len(second) / size:.1f} |")
    for name, run in runs.items():
        run()
        print(f"| {name} | cached | {1e6 * measured(run, options.rounds) / len(first) / size:.2f} |", flush=True)
    one = objects(first[:1])
    one()
    print(f"\none mention: {1e3 * measured(one, 20 * options.rounds):.2f} ms")


def rows_of(run: Path, count: int) -> tuple[list[dict], list[dict]]:
    """Two batches of test mentions as a user gives them, with all that the model weighs."""
    from umls_reranker.core.stage_keys import key_of_lists
    from umls_reranker.core.stages import RunFolder
    from umls_reranker.data.candidate_lists import CandidateLists, RetrievedList
    from umls_reranker.data.concepts import ConceptTable
    from umls_reranker.data.list_columns import FIELDS

    candidates, mentions = (RunFolder(run).splits(name)["test"] for name in ("candidates", "mentions"))
    sizes = np.array(list(map(len, candidates["cuis"])))
    rows = np.flatnonzero(sizes == np.bincount(sizes).argmax())[: 2 * count]
    concepts = ConceptTable.load(run / "concepts")
    lists = CandidateLists.from_run(candidates.select(rows), mentions.select(rows), concepts, FIELDS)
    columns = {
        "cui": lists.cuis.to_list(),
        "name": lists.names.to_list(),
        **{f"{name}_score": column.tolist() for name, column in lists.scores.items()},
        "preferred_name": lists.preferred_names.to_pylist(),
        "definition": lists.definitions.to_pylist(),
        "semantic_types": list(map(list, lists.candidate_types)),
    }
    items = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    lists_of = [RetrievedList(items[start:end], key_of_lists(run)) for start, end in pairwise(lists.offsets.tolist())]
    made = [
        {"entity": text, "candidates": own, "entity_type": list(types), "left": left, "right": right}
        for text, own, types, left, right in zip(
            lists.mentions, lists_of, lists.types, lists.lefts, lists.rights, strict=True
        )
    ]
    return made[: len(made) // 2], made[len(made) // 2 :]


def measured(run, rounds: int) -> float:
    """Fewest seconds of processor time."""
    seconds = []
    for _ in range(rounds):
        began = time.process_time()
        run()
        seconds.append(time.process_time() - began)
    return min(seconds)


if __name__ == "__main__":
    main()
