#!/usr/bin/env python
"""Rerank mentions and their candidates from a JSON Lines, CSV, TSV, Parquet or Arrow file of any size.

    umls-reranker rerank MODEL input.jsonl output.jsonl
    accelerate launch --config_file FILE -m umls_reranker rerank MODEL input.parquet output.parquet

One line (or row) per mention: {"entity": "cold", "candidates": [{"name": "Common Cold", "cui": "C0009443"}, "Cold"],
"entity_type": "T047", "left": "", "right": ""}; the last three are optional. CSV and TSV have one candidate per row
(mention_id, mention, cui, name, score) and become JSON Lines with one line per mention. MODEL is a folder, a Hub id,
or a recipe that names one (umls-reranker recipes copy production). The input may be a folder of files. Each output
line repeats the input line and adds "ranked". A row that cannot be ranked gets "error" in its place, and the exit code
is 1. The output appears only when it is complete.
"""

from pathlib import Path

from umls_reranker.pipeline.command import DICTIONARY_HELP, CommandParser, run_script


def make_parser() -> CommandParser:
    parser = CommandParser(__doc__)
    parser.add_argument("model", help="folder or Hub id of the reranker, or a recipe that names it")
    parser.add_argument(
        "input", type=Path, help="file or folder: .jsonl, .json, .csv, .tsv, .parquet, .arrow; - is stdin"
    )
    parser.add_argument("output", type=Path, help="file to write; its extension sets the format")
    parser.add_argument("--revision", help="tag, branch or commit on the Hub")
    parser.add_argument("--device", help="cpu, cuda, ... (default: the recipe's, or a GPU if available)")
    parser.add_argument("--dtype", help="auto, float32, bfloat16 or float16 (default: the recipe's, or auto)")
    parser.add_argument("--backend", help="torch, or onnx as written by umls-reranker export (default: torch)")
    parser.add_argument("--token_budget", type=int, help="tokens per forward pass (default: 1024, on a GPU 65536)")
    parser.add_argument("--accept_tier", help="lowest tier that is accepted: medium or high (default: medium)")
    parser.add_argument("--exhaustive", action="store_true", help="also score pruned candidates (else logit is null)")
    parser.add_argument("--batch_mentions", type=int, default=1024, help="mentions ranked together (default: 1024)")
    parser.add_argument("--dictionary", type=Path, help=DICTIONARY_HELP)
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    return parser


def main() -> int:
    options = make_parser().parse_args()
    from umls_reranker import UMLSReranker
    from umls_reranker.calibration.thresholds import TIERS
    from umls_reranker.core.arrays import started_processes
    from umls_reranker.hub.download import BUILT_IN
    from umls_reranker.serving.bulk import BulkJob, OneProcess

    further = {"overwrite": options.overwrite, "dictionary": options.dictionary}
    job = BulkJob(options.input, options.output, options.batch_mentions, **further)
    settings = served(options)
    processes = OneProcess()
    if started_processes() > 1:
        from umls_reranker.core.devices import sharing_processes

        processes = sharing_processes(settings["device"])
        settings["device"] = str(processes.device)
    model = settings.pop("model")
    reranker = UMLSReranker.from_pretrained(model, exhaustive=options.exhaustive, **settings)
    counts = job.run(reranker, processes)
    # A launcher kills the other processes when one ends with an error: only the process that wrote the output tells.
    if not processes.is_main_process:
        return 0
    ranked, gold = counts["ranked"], counts["gold"]
    print(f"{ranked:,} mentions ranked, {counts['error']:,} with an error, written to {options.output}")
    if job.first_error:
        print(f"the first error: {job.first_error}")
    if ranked:
        of_tiers = {tier: counts[tier] for tier in TIERS}
        without = ranked - sum(of_tiers.values())
        of_tiers |= {"no candidates": without} if without else {}
        tiers = ", ".join(f"{tier} {count / ranked:.1%}" for tier, count in of_tiers.items())
        of_gold = f"; acc@1 {counts['correct'] / gold:.3f} of {gold:,} with a gold concept" if gold else ""
        print(f"{tiers}; accepted {counts['accepted'] / ranked:.1%}{of_gold}")
    if counts["candidates"] and not counts["known"] and len(reranker.calibration.counts):
        print("caution: the model has counted no concept of these candidates; are ids missing, or of another kind?")
    if model == BUILT_IN:
        print(f"scores and tiers are not calibrated for your lists: umls-reranker calibrate {BUILT_IN} --lists FILE")
    return int(counts["error"] > 0)


def served(options) -> dict:
    """What to load: from the command line, else from the recipe if one is given."""
    from umls_reranker.pipeline.recipe import load_served

    recipe = load_served(options.model)
    serving = recipe.serving
    settings = {"model": serving.served_model, "revision": serving.served_revision, **recipe.run.scoring}
    settings |= {name: getattr(serving, name) for name in ("backend", "token_budget", "accept_tier")}
    names = ("revision", "device", "dtype", "backend", "token_budget", "accept_tier")
    return settings | {name: getattr(options, name) for name in names if getattr(options, name) is not None}


if __name__ == "__main__":
    run_script(main)
