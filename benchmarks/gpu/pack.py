#!/usr/bin/env python
"""Pack what `run.py` needs into one archive: the package, real pairs, and weights in float16.

python benchmarks/gpu/pack.py gpu.tar.gz --pairs runs/quickstart/pairs
"""

import argparse
import json
import sys
import tarfile
import tempfile
from pathlib import Path

MOST_BYTES = 60_000_000
COLUMNS = ("mention_id", "mention", "name", "label", "weight")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archive", type=Path, help="the file to write, .tar.gz")
    parser.add_argument("--pairs", type=Path, required=True, help="pairs folder of a run")
    parser.add_argument(
        "--model", default="sentence-transformers/all-MiniLM-L6-v2", help="an encoder (BERT)"
    )
    arguments = parser.parse_args()
    import torch
    from datasets import Dataset
    from transformers import AutoModel, AutoTokenizer

    from umls_reranker.models.model_files import resolve_model
    from umls_reranker.models.pretrained import load_pretrained

    here = Path(__file__).parent
    package = here.parents[1] / "umls_reranker"
    source = resolve_model(arguments.model, None)
    pairs = [
        (number, row["entity"], *pair)
        for number, row in enumerate(Dataset.from_file(str(arguments.pairs / "train.arrow")))
        for pair in zip(row["names"], row["labels"], row["weights"], strict=True)
    ]
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        load_pretrained(AutoModel, source, dtype=torch.float16).save_pretrained(data / "model")
        load_pretrained(AutoTokenizer, source).save_pretrained(data / "model")
        columns = dict(zip(COLUMNS, zip(*pairs, strict=True), strict=True))
        (data / "pairs.json").write_text(json.dumps(columns), encoding="utf-8")
        with tarfile.open(arguments.archive, "w:gz") as archive:
            archive.add(data, "gpu/data")
            for name in ("run.py", "README.md"):
                archive.add(here / name, f"gpu/{name}")
            for path in [*package.rglob("*.py"), *package.rglob("*.json")]:
                archive.add(path, Path("gpu/umls_reranker") / path.relative_to(package))
    size = arguments.archive.stat().st_size
    print(f"{arguments.archive}: {size / 1e6:.1f} MB, {len(pairs):,} pairs")
    if size > MOST_BYTES:
        sys.exit(f"more than {MOST_BYTES / 1e6:.0f} MB; use a smaller model or fewer pairs")


if __name__ == "__main__":
    main()
