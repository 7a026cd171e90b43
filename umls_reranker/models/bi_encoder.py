"""The bi-encoder: short texts in, unit vectors out.

A mention may be read in its text, which an encoder has to be trained for (scripts/train_encoder.py):

    [CLS] left context <start> mention <end> right context [SEP]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.devices import resolve_device, resolve_precision
from ..core.errors import UserError
from ..core.fetch import resolve_model
from ..core.files import read_json
from ..core.progress import progress
from .batching import batch_mapper, length_batches, token_batches
from .bi_encoder_networks import POOLINGS, EncoderNetwork, PackedEncoder, PaddedEncoder
from .pretrained import load_pretrained
from .template import MARKERS

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

__all__ = ["CONTEXT_FILE", "BiEncoder", "QueryTokenizer"]

# Tokens of one forward pass: small batches stay in a processor's cache, a GPU needs many rows to be busy. Not measured
# as that of scores is: the last bits of an index would depend on which size was faster that day.
TOKEN_BUDGET = {"cpu": 2_048, "cuda": 65_536}
# Texts tokenized and kept on the device together. Part of the last bits too (who shares a batch with whom), so fixed.
CHUNK = 16_384
# Beside the weights of an encoder that was trained on mentions in context.
CONTEXT_FILE = "context.json"


class QueryTokenizer:
    """Token ids of names, mentions, and mentions in context.

    Args:
        tokenizer: the encoder's.
        max_length: most tokens of a text, special tokens included; context comes on top.
        context_tokens: most tokens of text on each side of a mention in context.
        markers: the two tokens around a mention in context.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        context_tokens: int = 0,
        markers: tuple[str, str] = MARKERS,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.context_tokens = context_tokens
        self.pad_token_id: int = tokenizer.pad_token_id or 0
        self._markers = tuple(tokenizer.convert_tokens_to_ids(list(markers)))
        word, whole = (tokenizer.encode("a", add_special_tokens=special) for special in (False, True))
        start = next(i for i in range(len(whole)) if whole[i : i + len(word)] == word)
        self._head, self._tail = whole[:start], whole[start + len(word) :]

    def plain(self, texts: Sequence[str]) -> list[list[int]]:
        """One list of ids per text."""
        return self._ids(texts, True, truncation=True, max_length=self.max_length)

    def in_context(self, texts: Sequence[str], lefts: Sequence[str], rights: Sequence[str]) -> list[list[int]]:
        """One list of ids per mention with the text around it."""
        most, start, end = self.context_tokens, *self._markers
        room = self.max_length - len(self._head) - len(self._tail)
        columns = zip(*(self._ids(column, False) for column in (texts, lefts, rights)), strict=True)
        return [
            [*self._head, *left[max(0, len(left) - most) :], start, *mention[:room], end, *right[:most], *self._tail]
            for mention, left, right in columns
        ]

    def _ids(self, texts: Sequence[str], special: bool, **options: Any) -> list[list[int]]:
        if not len(texts):
            return []
        return self.tokenizer(
            list(texts),
            add_special_tokens=special,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
            **options,
        )["input_ids"]


class BiEncoder:
    """A transformer encoder with pooling, made with `from_pretrained`.

    Args:
        network: from token ids to vectors, on its device and in its precision.
        tokenizer: its tokenizer.
        identity: what decides the vectors apart from rounding: ``model``, ``revision``, ``pooling``, ``max_length``.
        context_tokens: tokens of text on each side that it was trained to read around a mention; 0 reads none.
    """

    def __init__(
        self,
        network: EncoderNetwork,
        tokenizer: PreTrainedTokenizerBase,
        identity: dict[str, str | int | None],
        context_tokens: int = 0,
    ) -> None:
        self.network = network
        self.queries = QueryTokenizer(tokenizer, identity["max_length"], context_tokens)
        self.identity = identity

    @classmethod
    def from_pretrained(
        cls,
        model: str,
        revision: str | None = None,
        *,
        pooling: str = "mean",
        max_length: int = 64,
        device: str = "auto",
        dtype: str = "auto",
    ) -> BiEncoder:
        """Load an encoder from a folder or the Hub (safetensors only).

        Args:
            model: local folder or Hub id, e.g. ``"cambridgeltl/SapBERT-from-PubMedBERT-fulltext"``.
            revision: Hub branch, tag or commit.
            pooling: ``"mean"`` over the tokens (sentence-transformers models) or ``"cls"`` (SapBERT).
            max_length: most tokens of a text, special tokens included; the rest of a longer text is not read.
            device: ``"auto"`` takes a GPU when there is one; or ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
            dtype: ``"auto"``, ``"float32"``, ``"bfloat16"`` or ``"float16"``, of the weights and the transformer;
                pooling and normalization are in float32.

        Raises:
            UserError: the model cannot be found, reached or loaded, or a setting has no meaning.
        """
        if pooling not in POOLINGS:
            raise UserError(f"encoder_pooling: {pooling!r} is unknown; use {' or '.join(POOLINGS)}")
        from safetensors import SafetensorError
        from transformers import AutoTokenizer

        place = resolve_device(device)
        precision = resolve_precision(dtype, place, key="encoder_precision")
        source = resolve_model(model, revision)
        try:
            tokenizer = load_pretrained(AutoTokenizer, source)
            network = PackedEncoder.from_folder(Path(source), place, precision, pooling)
            if network is None:
                network = PaddedEncoder.from_folder(
                    Path(source), place, precision, pooling, tokenizer.pad_token_id or 0
                )
        except (OSError, ValueError, SafetensorError) as error:
            reason = " ".join(str(error).split()).partition(". ")[0]
            raise UserError(
                f"encoder {model!r} (revision {revision or 'main'}) cannot be loaded: {reason}; "
                "it needs config.json, model.safetensors and tokenizer files"
            ) from None
        longest = min(tokenizer.model_max_length, network.longest)
        if max_length > longest:
            raise UserError(f"encoder_max_length is {max_length} but {model} reads at most {longest} tokens; lower it")
        identity = {"model": model, "revision": revision, "pooling": pooling, "max_length": max_length}
        context_file = Path(source) / CONTEXT_FILE
        context = read_json(context_file)["context_tokens"] if context_file.is_file() else 0
        return cls(network, tokenizer, identity, context)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self.network.dimension

    def encode(
        self,
        texts: Sequence[str],
        contexts: tuple[Sequence[str], Sequence[str]] | None = None,
        *,
        token_budget: int | None = None,
        desc: str | None = None,
    ) -> np.ndarray:
        """Vectors of `texts`, so that an inner product is a cosine.

        Args:
            texts: n strings.
            contexts: n texts left and n texts right of them, for an encoder that was trained to read them.
            token_budget: most tokens in a batch, padding included where the network pads; by default 2,048 on a
                processor, 65,536 on a GPU.
            desc: name of a progress bar; no bar without it.

        Returns:
            (n, dimension) float32, L2-normalized.
        """
        token_budget = token_budget or TOKEN_BUDGET.get(self.network.device.type, TOKEN_BUDGET["cuda"])
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        bar = progress(total=len(texts), desc=desc, unit=" texts") if desc else None
        with batch_mapper(self.network.device) as parallel_map:
            for start in range(0, len(texts), CHUNK):
                part = slice(start, start + CHUNK)
                if contexts is None:
                    encoded = self.queries.plain(texts[part])
                else:
                    encoded = self.queries.in_context(texts[part], contexts[0][part], contexts[1][part])
                batches, found = self._encode_chunk(encoded, token_budget, parallel_map, bar)
                vectors[start + batches] = found
        if bar is not None:
            bar.close()
        return vectors

    def _encode_chunk(
        self, encoded: list[list[int]], token_budget: int, parallel_map: Callable, bar: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers of the texts in the order they were computed, and their vectors."""
        import torch

        lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))

        def forward(batch: np.ndarray) -> torch.Tensor:
            return self.network([encoded[row] for row in batch])

        batches = (length_batches if self.network.padded else token_batches)(lengths, token_budget)
        outputs = []
        for batch, vectors in zip(batches, parallel_map(forward, batches), strict=True):
            outputs.append(vectors)
            if bar is not None:
                bar.update(len(batch))
        return np.concatenate(batches), torch.cat(outputs).cpu().numpy()
