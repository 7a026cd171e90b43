"""The bi-encoder: from short texts to unit vectors.

A mention may be read in its text, if the encoder was trained for it (umls-reranker train_encoder):

    [CLS] left context <start> mention <end> right context [SEP]
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from torch.nn import functional

from ..core.devices import (
    batch_mapper,
    bfloat16_advice,
    resolve_attention,
    resolve_device,
    resolve_dtype,
    to_device,
)
from ..core.errors import UserError
from ..core.json_files import read_json
from ..core.parallel import progress
from .batches import PackedTexts, divide_by_length
from .model_files import commit_of, resolve_model
from .packed_bert import PackedLayers, load_packed
from .pair_template import MARKERS
from .pretrained import load_pretrained, load_weights, loading, size_of
from .query_tokenizer import QueryTokenizer

# Tokens per forward pass: small batches fit a CPU's cache, a GPU needs many rows. Fixed, because
# the last bits of an index depend on it.
TOKEN_BUDGET = {"cpu": 2_048, "cuda": 65_536}
# Fixed for an index, because the last bits also depend on which texts share a batch.
CHUNK = 16_384
# Stored with an encoder that was trained on mentions in context.
CONTEXT_FILE = "context.json"


class BiEncoder:
    """A transformer encoder with pooling, loaded by `from_pretrained`; thread-safe.

    Args:
        body: computes pooled vectors of texts, on its device and in its dtype.
        tokenizer: its tokenizer.
        identity: values that decide the vectors up to rounding: ``model``, ``revision`` (a commit,
            if it is of the Hub), ``pooling``, ``max_length``.
        context_tokens: tokens of text that it reads on each side of a mention; 0 reads no context.
    """

    def __init__(
        self,
        body: PackedLayers | PaddedLayers,
        tokenizer: transformers.PreTrainedTokenizerBase,
        identity: dict[str, Any],
        context_tokens: int = 0,
    ) -> None:
        self.body = body
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
            pooling: ``"mean"`` over tokens (sentence-transformers models) or ``"cls"`` (SapBERT).
            max_length: maximum tokens of a text, special tokens included; longer ones are cut.
            device: ``"auto"`` uses a GPU if there is one; or ``"cpu"``, ``"cuda"``, ``"cuda:1"``,
                ``"mps"``.
            dtype: dtype of the weights and the transformer, ``"auto"``, ``"float32"``,
                ``"bfloat16"`` or ``"float16"``; pooling and normalization are in float32.

        Raises:
            UserError: the model cannot be found, reached or loaded, or a setting is invalid.
        """
        resolved_device = resolve_device(device)
        resolved_dtype = resolve_dtype(dtype, resolved_device, key="encoder_dtype", inference=True)
        folder = Path(resolve_model(model, revision))
        with loading(f"encoder {model} (revision {revision or 'main'})"):
            tokenizer = load_pretrained(transformers.AutoTokenizer, folder)
            body = load_packed(PackedLayers, folder, resolved_device, resolved_dtype)
            if body is None:
                body = PaddedLayers(
                    load_encoder_body(folder, resolved_device, resolved_dtype),
                    tokenizer.pad_token_id or 0,
                )
        longest = min(tokenizer.model_max_length, body.longest)
        if max_length > longest:
            raise UserError(
                f"encoder_max_length is {max_length} but {model} reads at most "
                f"{longest} tokens; lower it"
            )
        identity = {
            "model": model,
            "revision": commit_of(folder) or revision,
            "pooling": pooling,
            "max_length": max_length,
        }
        context = folder / CONTEXT_FILE
        context_tokens = read_json(context)["context_tokens"] if context.is_file() else 0
        require_length(model, max_length, context_tokens, body.longest)
        return cls(body, tokenizer, identity, context_tokens)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self.body.dimension

    def advice(self, dtype: str) -> str | None:
        """`bfloat16_advice` for an encoder that was loaded with this ``dtype``."""
        return bfloat16_advice(dtype, self.body.device, self.body.size, "--encoder_dtype bfloat16")

    def encode(
        self,
        texts: Sequence[str],
        contexts: tuple[Sequence[str], Sequence[str]] | None = None,
        *,
        token_budget: int | None = None,
        chunk_texts: int = CHUNK,
        desc: str | None = None,
    ) -> np.ndarray:
        """Unit vectors of `texts`; their inner products are cosines.

        Args:
            texts: n strings.
            contexts: n left and n right texts, for an encoder trained to read them.
            token_budget: maximum tokens per batch, including padding if the encoder pads; default
                2,048 on a CPU, 65,536 on a GPU.
            chunk_texts: number of texts that are tokenized and kept on the device together.
            desc: name of a progress bar; None: no bar.

        Returns:
            (n, dimension) float32, L2-normalized.

        Raises:
            UserError: a vector is not finite.
        """
        token_budget = token_budget or TOKEN_BUDGET.get(self.body.device.type, TOKEN_BUDGET["cuda"])
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        with progress(total=len(texts), desc=desc, unit=" texts") as bar:
            for start in range(0, len(texts), chunk_texts):
                chunk = slice(start, start + chunk_texts)
                around = [column[chunk] for column in contexts or ()]
                ids_of = self.queries.in_context if around else self.queries.plain
                ids = ids_of(texts[chunk], *around)
                lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
                batches = divide_by_length(lengths, token_budget, self.body.padded)
                computed = batch_mapper(self.body.device)(partial(self._unit_vectors, ids), batches)
                outputs = []
                for batch, output in zip(batches, computed, strict=True):
                    outputs.append(output)
                    bar.update(len(batch))
                # Waits for a GPU.
                vectors[start + np.concatenate(batches)] = torch.cat(outputs).cpu().numpy()
        if not np.isfinite(vectors).all():
            raise UserError(
                "the encoder gave non-finite embeddings; "
                "its weights are damaged or overflow float16"
            )
        return vectors

    def _unit_vectors(self, ids: Sequence[list[int]], batch: np.ndarray) -> Tensor:
        """Vectors of these rows of `ids`, longest first, (b, dimension) float32.

        Asynchronous on a GPU.
        """
        with torch.inference_mode():
            # The sum over tokens has the direction of the mean.
            pooled = self.body.pooled(
                PackedTexts.join([ids[row] for row in batch]), self.identity["pooling"]
            )
            return functional.normalize(pooled, dim=-1)


class PaddedLayers:
    """Any transformers encoder that returns ``last_hidden_state``, called with padded batches.

    Args:
        model: the encoder, on its device and in its dtype.
        pad_token_id: padding token of its tokenizer.
    """

    padded = True

    def __init__(self, model: transformers.PreTrainedModel, pad_token_id: int) -> None:
        self.model = model.eval()
        self.pad_token_id = pad_token_id
        self.device = model.device
        self.dimension = model.config.hidden_size
        self.size = size_of(model.config)
        self.longest = model.config.max_position_embeddings

    def pooled(self, batch: PackedTexts, pooling: str) -> Tensor:
        """Pooled vectors, as `PackedLayers.pooled` returns them."""
        arrays = batch.padded(self.pad_token_id)
        inputs = {name: to_device(array, self.device) for name, array in arrays.items()}
        return pooled(self.model(**inputs).last_hidden_state, inputs["attention_mask"], pooling)


def load_encoder_body(
    folder: str | Path, device: torch.device, dtype: str
) -> transformers.PreTrainedModel:
    """Load a folder's encoder by transformers, without a head; errors are as for `load_weights`."""
    return load_weights(
        transformers.AutoModel,
        folder,
        dtype=dtype,
        attn_implementation=resolve_attention(None, device),
    ).to(device)


def require_length(model: str, max_length: int, context_tokens: int, longest: int) -> None:
    """Refuse mentions in context that would be longer than an encoder reads."""
    most = max_length + 2 * context_tokens + len(MARKERS)
    if context_tokens and most > longest:
        raise UserError(
            f"a mention of encoder_max_length {max_length} with {context_tokens} tokens "
            f"of context on each side has up to {most} tokens but {model} reads at most {longest}; "
            "lower encoder_max_length"
        )


def pooled(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Pool token vectors (n, w, h) with a mask (n, w) to the first or the sum, (n, h) float32."""
    hidden = hidden.float()
    return hidden[:, 0] if pooling == "cls" else (hidden * mask.unsqueeze(-1)).sum(dim=1)
