"""Networks that compute logits of pairs, and how they and base models are loaded, never as code.

BERT is computed without padding, any other sequence classifier of transformers with padded batches.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..core.devices import batch_mapper, resolve_device, resolve_dtype, to_device
from ..core.errors import UserError
from ..core.json_files import read_json
from .arguments import ENCODER
from .model_files import resolve_model
from .pairs import PackedTexts, PairBatch, PairTemplate, TextGroup

# All but cuDNN's, PyTorch's choice on Hopper: it replans for each new batch size (about 30 ms).
KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


class _Layer(NamedTuple):
    """Weights of one layer; query, key and value are one matrix, (3 h, h), queries first."""

    qkv: tuple[Tensor, Tensor]
    attention_out: tuple[Tensor, Tensor]
    attention_norm: tuple[Tensor, Tensor]
    up: tuple[Tensor, Tensor]
    down: tuple[Tensor, Tensor]
    norm: tuple[Tensor, Tensor]


class PackedLayers:
    """Embeddings and layers of a BERT, over packed texts.

    Args:
        config: content of ``config.json``.
        weights: tensors by their names in `BertModel`, or in a model with a head (``bert.`` first).
        device: where to compute.
        dtype: dtype of weights and computation: float32, bfloat16 or float16.

    Attributes:
        dimension: length of a token's vector.
        size: number of layers times the square of their width.
        longest: maximum tokens of a text.

    Raises:
        KeyError: a weight is missing.
        TypeError: the configuration does not fit the weights.
        ValueError: the configuration does not fit the weights.
    """

    padded = False

    def __init__(
        self,
        config: Mapping[str, Any],
        weights: Mapping[str, Tensor],
        device: torch.device,
        dtype: str,
    ) -> None:
        prefix = "bert." if "bert.embeddings.word_embeddings.weight" in weights else ""

        def loaded(name: str) -> Tensor:
            return weights[prefix + name].to(device=device, dtype=getattr(torch, dtype))

        def both(name: str) -> tuple[Tensor, Tensor]:
            return loaded(f"{name}.weight"), loaded(f"{name}.bias")

        def layer(name: str) -> _Layer:
            queries_keys_values = [
                both(f"{name}.attention.self.{kind}") for kind in ("query", "key", "value")
            ]
            weights_of_kinds, biases_of_kinds = zip(*queries_keys_values, strict=True)
            return _Layer(
                qkv=(torch.cat(weights_of_kinds), torch.cat(biases_of_kinds)),
                attention_out=both(f"{name}.attention.output.dense"),
                attention_norm=both(f"{name}.attention.output.LayerNorm"),
                up=both(f"{name}.intermediate.dense"),
                down=both(f"{name}.output.dense"),
                norm=both(f"{name}.output.LayerNorm"),
            )

        self.device = device
        self._kernels = partial(sdpa_kernel, KERNELS) if device.type == "cuda" else nullcontext
        self.heads = config["num_attention_heads"]
        self.eps = config.get("layer_norm_eps", 1e-12)
        self.words = loaded("embeddings.word_embeddings.weight")
        self.positions = loaded("embeddings.position_embeddings.weight")
        self.types = loaded("embeddings.token_type_embeddings.weight")
        self.embedding_norm = both("embeddings.LayerNorm")
        self.longest, self.dimension = self.positions.shape
        count = config["num_hidden_layers"]
        self.layers = [layer(f"encoder.layer.{number}") for number in range(count)]
        self.size = count * self.dimension**2
        fits = self.heads > 0 and not self.dimension % self.heads
        if f"{prefix}encoder.layer.{count}.output.dense.weight" in weights or not fits:
            raise ValueError(
                "the numbers of layers or heads in the configuration and the weights differ"
            )

    @staticmethod
    def supports(config: Mapping[str, Any]) -> bool:
        """Whether this class computes the BERT of a configuration."""
        # What a configuration does not say is as here.
        computed = {"hidden_act": "gelu", "position_embedding_type": "absolute"}
        is_computed = all(config.get(key, value) == value for key, value in computed.items())
        is_encoder = config.get("model_type") == "bert" and not config.get("is_decoder")
        return is_encoder and is_computed and "quantization_config" not in config

    def pooled(self, batch: PackedTexts, pooling: str) -> Tensor:
        """Vectors of texts, (n, h) float32: the first token's (``cls``) or the sum (``mean``)."""
        if pooling == "cls":
            return self.first_tokens(batch).float()
        with self._kernels():
            hidden = self._through(self.layers, batch)
        tokens_of_groups = hidden.split([group.texts * group.length for group in batch.groups])
        sums = [
            tokens.view(group.texts, group.length, -1).sum(dim=1, dtype=torch.float32)
            for group, tokens in zip(batch.groups, tokens_of_groups, strict=True)
        ]
        return torch.cat(sums)

    def first_tokens(self, batch: PackedTexts) -> Tensor:
        """Vectors of each text's first token, (n, h)."""
        *lower, last = self.layers
        with self._kernels():
            hidden = self._through(lower, batch)
            first = hidden[to_device(batch.offsets[:-1], self.device)]
            return self._after_attention(
                last, self._attention_of_first(last, first, hidden, batch.groups), first
            )

    def _through(self, layers: list[_Layer], batch: PackedTexts) -> Tensor:
        hidden = functional.embedding(to_device(batch.ids, self.device), self.words)
        hidden += functional.embedding(to_device(batch.positions, self.device), self.positions)
        if batch.types is None:
            hidden += self.types[0]
        else:
            hidden += functional.embedding(to_device(batch.types, self.device), self.types)
        hidden = functional.layer_norm(hidden, self.words.shape[1:], *self.embedding_norm, self.eps)
        for layer in layers:
            attended = self._of_groups(functional.linear(hidden, *layer.qkv), batch.groups)
            hidden = self._after_attention(layer, attended, hidden)
        return hidden

    def _attention_of_first(
        self, layer: _Layer, first: Tensor, hidden: Tensor, groups: list[TextGroup]
    ) -> Tensor:
        """Attention output of each text's first token, (n, h)."""
        width = hidden.shape[1]
        weight, bias = layer.qkv
        query = functional.linear(first, weight[:width], bias[:width])
        key_value = functional.linear(hidden, weight[width:], bias[width:])
        return self._of_groups(key_value, groups, query)

    def _of_groups(
        self, projected: Tensor, groups: list[TextGroup], query: Tensor | None = None
    ) -> Tensor:
        """Attention output of each token, (t, h), or of queries, (n, h), over keys and values.

        Args:
            projected: (t, 3 h) queries, keys and values of the tokens, or (t, 2 h) without queries.
            groups: the texts.
            query: (n, h) the query of each text; None: those of all tokens.
        """
        outputs = []
        tokens_of_groups = projected.split([group.texts * group.length for group in groups])
        for group, tokens in zip(groups, tokens_of_groups, strict=True):
            # (texts, length, 2 or 3, heads, size) -> two or three of (texts, heads, length, size)
            by_head = tokens.view(group.texts, group.length, 2 + (query is None), self.heads, -1)
            parts = by_head.permute(2, 0, 3, 1, 4)
            if query is not None:
                parts = (query[group.rows].view(group.texts, self.heads, 1, -1), *parts)
            outputs.append(_attend(*parts).transpose(1, 2).reshape(-1, self.dimension))
        return torch.cat(outputs)

    def _after_attention(self, layer: _Layer, attended: Tensor, hidden: Tensor) -> Tensor:
        """The rest of a layer after attention, token by token."""
        width = hidden.shape[1:]
        # Not in place: in mixed precision the sums are float32.
        hidden = functional.linear(attended, *layer.attention_out) + hidden
        hidden = functional.layer_norm(hidden, width, *layer.attention_norm, self.eps)
        inner = functional.gelu(functional.linear(hidden, *layer.up))
        return functional.layer_norm(
            functional.linear(inner, *layer.down) + hidden, width, *layer.norm, self.eps
        )


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of (texts, heads, q, size) over (texts, heads, k, size); nothing is masked."""
    if query.device.type != "cpu" or query.dtype is torch.float32:
        return functional.scaled_dot_product_attention(query, key, value)
    if torch.is_grad_enabled():
        # Groups are small in training, and small products are slow in bfloat16.
        with torch.autocast("cpu", enabled=False):
            return functional.scaled_dot_product_attention(
                query.float(), key.float(), value.float()
            )
    # On a CPU in bfloat16, the fused kernel takes twice as long as its two matrix products.
    scale = query.shape[-1] ** -0.5
    scores = torch.matmul(query, key.transpose(-1, -2)).mul_(scale)
    return torch.matmul(scores.softmax(-1), value)


def load_packed(kind: Any, folder: Path, device: torch.device, dtype: str) -> Any:
    """Build a network from a folder's files without transformers, which is slow to import.

    Args:
        kind: `PackedLayers`, or a class that holds them and has the same constructor.
        folder: the model folder.
        device: as for `PackedLayers`.
        dtype: as for `PackedLayers`.

    Returns:
        The network; None if the folder has no valid model of this kind, which transformers may load
        or refuse.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not kind.supports(config):
            return None
        return kind(config, load_file(folder / "model.safetensors"), device, dtype)
    except (OSError, ValueError, TypeError, KeyError, SafetensorError):
        return None


# From cosines to log-odds: one over the temperature that encoders of names are trained with.
COSINE_SCALE = 20
# Small batches fit a CPU's cache; a GPU needs many rows.
TOKEN_BUDGET = {"cpu": 1_024, "cuda": 65_536}


def load_pretrained(kind: Any, folder: str | Path, **options: Any) -> Any:
    """``kind.from_pretrained`` of a local folder, without the Hub and without code from the folder.

    Args:
        kind: an Auto class of transformers.
        folder: the local folder.
        options: further options of ``from_pretrained``.

    Raises:
        UserError: the folder has its own code (``auto_map``) or an adapter.
        OSError: from transformers, if the folder does not hold such a model.
        ValueError: likewise.
        SafetensorError: likewise.
    """
    for path in (Path(folder) / "config.json", Path(folder) / "tokenizer_config.json"):
        content = read_json(path) if path.is_file() else {}
        if not isinstance(content, dict):
            raise UserError(f"{path} must be a mapping; write or download it again")
        # transformers would not run it either, but silently load another network.
        if "auto_map" in content:
            raise UserError(
                f"{path} requires custom code (auto_map), which is never run; "
                "use an architecture that transformers includes"
            )
    adapter = Path(folder) / "adapter_config.json"
    if adapter.is_file():
        raise UserError(
            f"{adapter} belongs to an adapter, and adapters are not loaded; "
            "merge it into the weights (peft's merge_and_unload) and save the merged model"
        )
    try:
        return kind.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **options
        )
    except (OSError, ValueError, SafetensorError):
        raise
    except Exception as error:
        # transformers and tokenizers check little of what they read.
        raise ValueError(f"{type(error).__name__}: {error}") from error


@contextmanager
def loading(model: str) -> Iterator[None]:
    """Turn errors of transformers about a model that cannot be loaded into a `UserError`."""
    try:
        yield
    except SafetensorError as error:
        raise UserError(
            f"{model} cannot be loaded: the weights are corrupt ({error}); download them again"
        ) from None
    except (OSError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise UserError(
            f"{model} cannot be loaded: {reason}; "
            "it needs config.json, model.safetensors and tokenizer files"
        ) from None


def load_weights(kind: Any, folder: str | Path, **options: Any) -> Any:
    """Load the model of a folder of safetensors.

    Args:
        kind: an Auto class of transformers.
        folder: the local folder.
        options: further options of ``from_pretrained``.

    Raises:
        UserError: weights and configuration do not fit.
        OSError: the model is missing or damaged.
        ValueError: likewise.
        SafetensorError: likewise.
    """
    options |= {"use_safetensors": True, "output_loading_info": True}
    model, info = load_pretrained(kind, folder, **options)
    # Many encoders have no pooler, and it is not used.
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
    # transformers would initialize missing weights at random, and ignore additional ones.
    missing += sorted(key for key in info["unexpected_keys"] if ".layer." in key)
    if missing:
        raise UserError(
            f"{folder}: config.json and the weights do not match (one of them lacks {missing[0]}); "
            "download or write the model again"
        )
    return model


def load_model(folder: Path) -> transformers.PreTrainedModel:
    """Load the float32 model of a folder of safetensors.

    Raises:
        UserError: the model is missing, damaged, or has more than one logit, or weights and
            configuration do not fit.
    """
    with loading(str(folder)):
        model = load_weights(
            transformers.AutoModelForSequenceClassification, folder, dtype="float32"
        )
    if model.config.num_labels != 1:
        raise UserError(
            f"{folder}: the model has {model.config.num_labels} outputs; a reranker has one logit"
        )
    return model.eval()


def load_base_model(
    model: str,
    revision: str | None,
    template: PairTemplate,
    attention: str | None = None,
    layers: int = 0,
) -> tuple[transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase]:
    """Load the base model with a new head of one logit, and its tokenizer with the markers.

    Args:
        model: Hub id or local folder.
        revision: tag, branch or commit on the Hub.
        template: how it reads pairs.
        attention: ``attn_implementation`` of transformers; None: its own choice.
        layers: ``num_hidden_layers`` of the recipe.

    Raises:
        UserError: the model cannot be found or reached, its weights are damaged, or it has not that
            many layers.
    """
    source = resolve_model(model, revision)
    with loading(f"model {model}"):
        tokenizer = load_pretrained(transformers.AutoTokenizer, source)
        cross_encoder = load_pretrained(
            transformers.AutoModelForSequenceClassification,
            source,
            num_labels=1,
            use_safetensors=True,
            dtype="float32",
            attn_implementation=attention,
        )
    keep_layers(cross_encoder, layers)
    require_readable("max_length", template.max_length, cross_encoder.config, model)
    if template.prepare_tokenizer(tokenizer):
        cross_encoder.resize_token_embeddings(len(tokenizer))
    return cross_encoder, tokenizer


def keep_layers(model: Any, count: int) -> None:
    """Keep so many layers, evenly spaced, the first and the last among them; 0: all.

    Raises:
        UserError: it has fewer, or is not built like BERT.
    """
    if not count:
        return
    layers = getattr(getattr(model.base_model, "encoder", None), "layer", ())
    if count > len(layers):
        raise UserError(f"num_hidden_layers: the base has no {count} layers like those of BERT")
    last = len(layers) - 1
    steps = max(1, count - 1)
    # Rounded up.
    kept = [-(-number * last // steps) for number in range(count)]
    model.base_model.encoder.layer = nn.ModuleList(layers[number] for number in kept)
    model.config.num_hidden_layers = count


def size_of(config: transformers.PreTrainedConfig) -> int:
    """Number of layers times the square of their width; 0 for a network without such numbers."""
    return getattr(config, "num_hidden_layers", 0) * getattr(config, "hidden_size", 0) ** 2


def require_readable(
    key: str, tokens: int, config: transformers.PreTrainedConfig, model: str
) -> None:
    """Refuse texts longer than a model can read; the message names the key of the recipe."""
    longest = getattr(config, "max_position_embeddings", tokens)
    if tokens > longest:
        raise UserError(f"{key}: {tokens} is more than the {longest} tokens that {model} can read")


class TorchNetwork(ABC):
    """Maps batches of pairs to logits in PyTorch; thread-safe. See also `OnnxNetwork`.

    Args:
        device: where to compute.
        dtype: dtype of all layers but the last, which always computes in float32: otherwise logits
            near 5 would have steps of 0.03 and tie different candidates.

    Attributes:
        padded: whether a batch costs (longest pair x pairs) instead of its tokens.
        reads_pairs: whether it reads the texts of a pair together; an encoder does not.
        token_budget: usual tokens per forward pass, padding included.
        size: number of layers times the square of their width.
    """

    backend = "torch"
    size: int
    padded: bool
    reads_pairs = True

    def __init__(self, device: torch.device, dtype: str) -> None:
        self.device = device
        self.dtype = dtype
        self.token_budget = TOKEN_BUDGET.get(device.type, TOKEN_BUDGET["cuda"])

    @abstractmethod
    def __call__(self, batch: PairBatch) -> Tensor:
        """Logits, (n,) float32, on the device; a GPU computes them asynchronously."""

    @property
    def threads(self) -> int:
        """Number of batches that `map` computes at a time."""
        return torch.get_num_threads() if self.device.type == "cpu" else 1

    def map(
        self, forward: Callable[[np.ndarray], Tensor], batches: Sequence[np.ndarray]
    ) -> Iterable[Tensor]:
        """Results of `forward` for each batch in order, several at a time."""
        # Set anew: a process forked after the network was loaded has none of its threads.
        return batch_mapper(self.device)(forward, batches)

    def collect(self, outputs: Sequence[Tensor]) -> np.ndarray:
        """The logits of several batches, in order; waits for a GPU."""
        return torch.cat(list(outputs)).cpu().numpy()


def input_names(
    model: transformers.PreTrainedModel, tokenizer: transformers.PreTrainedTokenizerBase
) -> list[str]:
    """The inputs that a model accepts, of the three possible ones: always ids and their mask."""
    read = {*signature(model.forward).parameters} & {*tokenizer.model_input_names}
    return ["input_ids", "attention_mask", *({"token_type_ids"} & read)]


class PackedNetwork(TorchNetwork):
    """A network with packed batches; arguments and errors are those of `PackedLayers`.

    Attributes:
        architectures: those of the configurations that it computes.
    """

    padded = False
    architectures: list[str]

    def __init__(
        self,
        config: Mapping[str, Any],
        weights: Mapping[str, Tensor],
        device: torch.device,
        dtype: str,
    ) -> None:
        super().__init__(device, dtype)
        self.body = PackedLayers(config, weights, device, dtype)
        self.size = self.body.size
        self.read_head(weights)

    @classmethod
    def supports(cls, config: Mapping[str, Any]) -> bool:
        """Whether this class computes the network of a configuration."""
        return config.get("architectures") == cls.architectures and PackedLayers.supports(config)

    def read_head(self, weights: Mapping[str, Tensor]) -> None:
        """Keep what a network has above the layers: nothing."""


class PackedBert(PackedNetwork):
    """A BERT of one logit."""

    architectures = ["BertForSequenceClassification"]

    def read_head(self, weights: Mapping[str, Tensor]) -> None:
        """Keep the pooler and the last layer."""
        if weights["classifier.weight"].shape[0] != 1:
            raise ValueError("a reranker has one logit")

        def linear(name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
            return (
                weights[f"{name}.weight"].to(self.device, dtype),
                weights[f"{name}.bias"].to(self.device, dtype),
            )

        self.pooler = linear("bert.pooler.dense", self.body.words.dtype)
        self.head = linear("classifier", torch.float32)

    def __call__(self, batch: PairBatch) -> Tensor:
        with torch.inference_mode():
            return self.logits(batch)

    def logits(self, batch: PairBatch) -> Tensor:
        """Logits, (n,) float32, that have gradients if the weights do."""
        pooled = functional.linear(self.body.first_tokens(batch), *self.pooler).tanh_()
        return functional.linear(pooled.float(), *self.head).squeeze(-1)


class PackedEncoder(PackedNetwork):
    """A BERT encoder, for logits that are scaled cosines of the mean vectors of two texts."""

    reads_pairs = False
    architectures = ENCODER

    def __call__(self, batch: PackedTexts) -> Tensor:
        """Unit vectors, (n, h) float32, on the device."""
        with torch.inference_mode():
            return functional.normalize(self.body.pooled(batch, "mean"), dim=-1)

    def logits(self, rows: np.ndarray, vectors: Sequence[Tensor], text_of: np.ndarray) -> Tensor:
        """Logits of n pairs, (n,) float32, on the device.

        Args:
            rows: (k,) the texts, in the order of their vectors.
            vectors: the vectors, batch by batch.
            text_of: (2, n), the texts of each pair.
        """
        row_of = to_device(np.argsort(rows)[text_of], self.device)
        first, second = torch.cat(list(vectors))[row_of]
        return COSINE_SCALE * (first * second).sum(dim=-1)


class PaddedModel(TorchNetwork):
    """Any transformers model, called with padded batches.

    Args:
        model: a model with ``num_labels=1``.
        tokenizer: defines the padding token and whether the model uses token types.
        device: as for `TorchNetwork`.
        dtype: as for `TorchNetwork`.
    """

    padded = True

    def __init__(
        self,
        model: transformers.PreTrainedModel,
        tokenizer: transformers.PreTrainedTokenizerBase,
        device: torch.device,
        dtype: str,
    ) -> None:
        super().__init__(device, dtype)
        # transformers wraps `to`, which hides its first argument.
        self.model = model.to(device=device, dtype=getattr(torch, dtype))  # type: ignore[call-arg]
        self.size = size_of(model.config)
        self._pad_id = tokenizer.pad_token_id or 0
        self._inputs = input_names(model, tokenizer)
        if dtype != "float32":
            _keep_last_layer_in_float32(model)

    def __call__(self, batch: PairBatch) -> Tensor:
        arrays = batch.padded(self._pad_id)
        inputs = {name: to_device(arrays[name], self.device) for name in self._inputs}
        with torch.inference_mode():
            return self.model(**inputs).logits.squeeze(-1).float()


def load_network(
    folder: Path, device: str | None, dtype: str | None
) -> tuple[TorchNetwork, Tokenizer]:
    """Load the fastest network for the model in a folder, and its tokenizer.

    Raises:
        UserError: the folder has no valid model of one logit.
    """
    with loading(str(folder)):
        tokenizer = load_pretrained(transformers.AutoTokenizer, folder)
    resolved_device = resolve_device(device)
    resolved_dtype = resolve_dtype(dtype, resolved_device, inference=True)
    network = (
        load_packed(PackedBert, folder, resolved_device, resolved_dtype)
        or load_packed(PackedEncoder, folder, resolved_device, resolved_dtype)
        or PaddedModel(load_model(folder), tokenizer, resolved_device, resolved_dtype)
    )
    return network, tokenizer.backend_tokenizer


def _keep_last_layer_in_float32(model: transformers.PreTrainedModel) -> None:
    heads = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear) and module.out_features == 1
    ]
    if not heads:
        raise UserError(
            f"{type(model).__name__} does not end in a linear layer with one output; "
            "score it in float32"
        )
    heads[-1].float().register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
