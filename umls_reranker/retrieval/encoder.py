"""The bi-encoder: short texts in, unit vectors out.

A mention may be read in its text, which an encoder has to be trained for (scripts/train_encoder.py):

    [CLS] left context <start> mention <end> right context [SEP]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..batching import batch_mapper, length_batches
from ..devices import resolve_device, resolve_precision
from ..errors import UserError
from ..progress import progress
from ..resources import resolve_model
from ..stages import read_json
from ..template import MARKERS

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["CONTEXT_FILE", "BiEncoder", "QueryTokenizer", "padded", "pooled"]

POOLINGS = ("mean", "cls")
# Padded tokens of one forward pass: small batches stay in a processor's cache, a GPU needs many rows to be busy.
TOKEN_BUDGET = {"cpu": 2_048, "cuda": 65_536}
# Texts tokenized and kept on the device together. Part of the result's last bits (who is padded with whom), so fixed.
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


def padded(rows: Sequence[Sequence[int]], pad_token_id: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, w) int64 ids as wide as the longest row, and (n, w) bool, where they are no padding."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    mask = np.arange(lengths.max(initial=0)) < lengths[:, None]
    input_ids = np.full(mask.shape, pad_token_id, np.int64)
    input_ids[mask] = np.concatenate([np.empty(0, np.int64), *rows])
    return input_ids, mask


def pooled(hidden: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """(n, w, d) token vectors and (n, w) bool -> (n, d) float32 unit vectors."""
    import torch

    hidden = hidden.float()
    # A sum over the tokens points where their mean does.
    vectors = hidden[:, 0] if pooling == "cls" else (hidden * mask.unsqueeze(-1)).sum(dim=1)
    return torch.nn.functional.normalize(vectors, dim=-1)


class BiEncoder:
    """A transformer encoder with pooling, made with `from_pretrained`.

    Args:
        model: an encoder that returns ``last_hidden_state``, on its device and in its precision.
        tokenizer: its tokenizer.
        identity: what decides the vectors apart from rounding: ``model``, ``revision``, ``pooling``, ``max_length``.
        context_tokens: tokens of text on each side that it was trained to read around a mention; 0 reads none.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        identity: dict[str, str | int | None],
        context_tokens: int = 0,
    ) -> None:
        self.model = model.eval()
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
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModel, AutoTokenizer

        place = resolve_device(device)
        precision = resolve_precision(dtype, place, key="encoder_precision")
        source = resolve_model(model, revision)
        # On a CPU the plain attention is the faster one for texts of some ten tokens (1.3x in bfloat16).
        attention = "eager" if place.type == "cpu" else "sdpa"
        try:
            tokenizer = AutoTokenizer.from_pretrained(source)
            encoder = AutoModel.from_pretrained(
                source,
                dtype=getattr(torch, precision),
                attn_implementation=attention,
                use_safetensors=True,
            )
        except (OSError, ValueError, SafetensorError) as error:
            reason = " ".join(str(error).split()).partition(". ")[0]
            raise UserError(
                f"encoder {model!r} (revision {revision or 'main'}) cannot be loaded: {reason}; "
                "it needs config.json, model.safetensors and tokenizer files"
            ) from None
        longest = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
        if max_length > longest:
            raise UserError(f"encoder_max_length is {max_length} but {model} reads at most {longest} tokens; lower it")
        identity = {"model": model, "revision": revision, "pooling": pooling, "max_length": max_length}
        context_file = Path(source) / CONTEXT_FILE
        context = read_json(context_file)["context_tokens"] if context_file.is_file() else 0
        return cls(encoder.to(place), tokenizer, identity, context)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self.model.config.hidden_size

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
            token_budget: most tokens in a batch, padding included; by default 2,048 on a processor, 65,536 on a GPU.
            desc: name of a progress bar; no bar without it.

        Returns:
            (n, dimension) float32, L2-normalized.
        """
        token_budget = token_budget or TOKEN_BUDGET.get(self.model.device.type, TOKEN_BUDGET["cuda"])
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        bar = progress(total=len(texts), desc=desc, unit=" texts") if desc else None
        with batch_mapper(self.model.device) as parallel_map:
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
            rows = padded([encoded[row] for row in batch], self.queries.pad_token_id)
            return self._forward(*map(torch.from_numpy, rows))

        batches = length_batches(lengths, token_budget)
        outputs = []
        for batch, vectors in zip(batches, parallel_map(forward, batches), strict=True):
            outputs.append(vectors)
            if bar is not None:
                bar.update(len(batch))
        return np.concatenate(batches), torch.cat(outputs).cpu().numpy()

    def _forward(self, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(rows, width) int64 and bool -> (rows, dimension) float32 unit vectors on the model's device."""
        import torch

        with torch.inference_mode():
            input_ids, mask = input_ids.to(self.model.device), mask.to(self.model.device)
            hidden = self.model(input_ids=input_ids, attention_mask=mask.long()).last_hidden_state
            return pooled(hidden, mask, self.identity["pooling"])
