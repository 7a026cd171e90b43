"""Embed all concept names, index them with FAISS, and retrieve candidates for the mentions.

    umls-reranker build_index quickstart
    accelerate launch --config_file multi_gpu_bf16.yaml -m umls_reranker build_index RECIPE

Writes vectors/, index/, the indexes of the recipe's other retrievers, index.json, and lists/ (by
split, the mentions with their candidates) into the run folder. Several processes can share the
embedding; the vectors do not depend on their number. An interrupted run reuses its finished shards,
and another index is built without encoding again. Gold concepts not retrieved are never added.
"""

from umls_reranker.pipeline.indexes import build_index
from umls_reranker.pipeline.options import parse_recipe


def main() -> None:
    build_index(parse_recipe(__doc__, ("run", "index")))
