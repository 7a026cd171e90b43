"""``umls-reranker build_index`` with small shards; the process dies, as by ``kill -9``, when it has
encoded some.

    python tests/retrieval/build_index_in_shards.py NAMES_PER_SHARD SHARDS_BEFORE_DEATH RECIPE
    [--key value ...]

It prints how many texts it encodes at a time; -1 shards let it live.
"""

import os
import signal
import sys
from functools import partial

from umls_reranker.__main__ import main
from umls_reranker.models.bi_encoder import BiEncoder
from umls_reranker.retrieval.name_index import NameVectors

if __name__ == "__main__":
    size, lives, *words = sys.argv[1:]
    NameVectors.prepare = partial(NameVectors.prepare, shard=int(size))
    left = int(lives)
    encode = BiEncoder.encode

    def encode_or_die(self, texts, **settings):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        print(f"encoding {len(texts)} texts", flush=True)
        return encode(self, texts, **settings)

    BiEncoder.encode = encode_or_die
    sys.argv = ["umls-reranker", "build_index", *words]
    main()
