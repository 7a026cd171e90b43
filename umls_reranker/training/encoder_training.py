"""Fine-tune the bi-encoder: mentions, also in context, move toward the names of their concepts.

The loss is the in-batch softmax over cosines (InfoNCE; van den Oord et al. 2018): a query's own
name against the names of all other concepts in the batch (`encoder_data`).
"""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, Trainer, set_seed

from ..core.devices import in_threads, resolve_dtype
from ..core.files import weights_by_umask
from ..core.json_files import write_json
from ..core.keys import RunArguments
from ..lists.gold import trainable
from ..models.bi_encoder import CONTEXT_FILE, load_encoder_body, pooled, require_length
from ..models.model_files import resolve_model
from ..models.pair_template import MARKERS
from ..models.pretrained import load_pretrained, loading
from ..models.query_tokenizer import QueryTokenizer
from ..retrieval.arguments import EncoderArguments, IndexArguments
from ..vocab.concept_table import ConceptTable
from .checkpoints import last_complete_checkpoint
from .dropout import set_dropout
from .encoder_data import QueryCollator, QueryNamePairs, SharesOfBatches
from .loaders import loader_of_own_share
from .recipe_arguments import training_device
from .training_arguments import OneGpuArguments

# Cosines are divided by it before the softmax.
TEMPERATURE = 0.05
# Queries per step, each a negative for all others.
BATCH_SIZE = 192
# Tokens of text read on each side of a mention.
CONTEXT_TOKENS = 16


class QueryNameVectors(torch.nn.Module):
    """An encoder that embeds a batch of `QueryCollator` in one call.

    Args:
        encoder: the encoder.
        pooling: pooling of queries and names, ``mean`` or ``cls``.
    """

    def __init__(self, encoder: PreTrainedModel, pooling: str) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling

    def forward(
        self, groups: Sequence[dict[str, torch.Tensor]], position: torch.Tensor
    ) -> torch.Tensor:
        """Normalized vectors of b queries, then of their names, (2 b, h) float32."""
        # Each token of the batch is embedded once, ahead of the groups, which run in threads.
        used = torch.cat([group["input_ids"].flatten() for group in groups]).unique()
        words = self.encoder.get_input_embeddings()(used)
        # Threads that are started here do not know of it.
        device = words.device.type
        autocast = {
            "device_type": device,
            "dtype": torch.get_autocast_dtype(device),
            "enabled": torch.is_autocast_enabled(device),
        }

        def vectors_of(group: dict[str, torch.Tensor], words: torch.Tensor) -> torch.Tensor:
            numbers = torch.searchsorted(used, group["input_ids"])
            embedded = torch.nn.functional.embedding(numbers, words)
            mask = group["attention_mask"]
            with torch.autocast(**autocast):
                outputs = self.encoder(inputs_embeds=embedded, attention_mask=mask)
            return pooled(outputs.last_hidden_state, mask, self.pooling)

        vectors = torch.cat([*in_threads(vectors_of, groups, self.encoder, words)])
        return torch.nn.functional.normalize(vectors[position], dim=-1)


class EncoderTrainer(Trainer):
    """Trainer of `QueryNameVectors` with the in-batch softmax loss over `QueryNamePairs`.

    Each process embeds its share of a batch. All see the vectors of the whole batch, so that names
    of other processes are negatives too, and weights move as with one process.

    Args:
        batch_size: pairs of a batch, over all processes.
    """

    train_dataset: QueryNamePairs

    def __init__(self, *args: Any, batch_size: int, **options: Any) -> None:
        super().__init__(*args, **options)
        self.batch_size = batch_size

    def get_train_dataloader(self) -> DataLoader:
        """The share of this process of each batch of consecutive pairs."""
        args = self.args
        shares = SharesOfBatches(
            len(self.train_dataset), self.batch_size, args.process_index, args.world_size
        )
        loader = DataLoader(self.train_dataset, batch_sampler=shares, collate_fn=self.data_collator)
        return loader_of_own_share(loader, self.accelerator.device)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Mean negative log-likelihood of the whole batch's queries, nats."""
        rows = inputs["row"]
        queries, names = model(inputs["groups"], inputs["position"]).split(len(rows))
        processes = self.args.world_size
        if processes == 1:
            return name_loss(queries, names, rows)
        all_rows = gathered(self.accelerator, rows, padding=-1)
        loss = name_loss(
            with_gradients_of(queries, gathered(self.accelerator, queries), self.accelerator),
            with_gradients_of(names, gathered(self.accelerator, names), self.accelerator),
            all_rows,
        )
        # Its gradient here is that by this process's vectors alone. DistributedDataParallel takes
        # the mean over processes where the sum is meant, so the gradient is multiplied by their
        # number, and the value stays.
        return loss.detach() + processes * (loss - loss.detach())


def name_loss(queries: torch.Tensor, names: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood of each query's name among the names of other concepts, nats.

    Args:
        queries: (b, h) normalized vectors.
        names: (b, h) normalized vectors, a name for each query.
        rows: (b,) concept rows; -1 where there is no pair.
    """
    is_pair = rows >= 0
    queries = queries[is_pair]
    names = names[is_pair]
    rows = rows[is_pair]
    cosines = queries @ names.T / TEMPERATURE
    # Other names of the query's concept are not negatives.
    same = (rows[:, None] == rows[None]).fill_diagonal_(False)
    return torch.nn.functional.cross_entropy(
        cosines.masked_fill(same, float("-inf")), torch.arange(len(rows), device=rows.device)
    )


def gathered(accelerator: Accelerator, share: torch.Tensor, padding: int = 0) -> torch.Tensor:
    """The rows of all processes, without gradients; each process has as many, padded at its end."""
    padded = accelerator.pad_across_processes(share.detach(), dim=0, pad_index=padding)
    return accelerator.gather(padded)


def with_gradients_of(
    share: torch.Tensor, together: torch.Tensor, accelerator: Accelerator
) -> torch.Tensor:
    """The rows of all processes, with the gradients of this one's."""
    start = accelerator.process_index * (len(together) // accelerator.num_processes)
    return torch.cat([together[:start], share, together[start + len(share) :]])


def train_encoder(
    run: RunArguments,
    encoder: EncoderArguments,
    index: IndexArguments,
    mentions: datasets.Dataset,
    concepts: ConceptTable,
    folder: Path,
) -> dict[str, Any]:
    """Fine-tune the recipe's encoder into ``folder``, which `BiEncoder.from_pretrained` loads.

    Checkpoints are in ``folder/checkpoints`` until training ends. A killed run resumes from them.
    Every process of a launch calls this.

    Args:
        run: section of the recipe.
        encoder: section of the recipe.
        index: section of the recipe.
        mentions: the training split.
        concepts: the dictionary.
        folder: folder to write.

    Returns:
        Summary: steps, queries, mentions whose concept is in the dictionary, last steps' mean loss.

    Raises:
        UserError: no mention's concept is in the dictionary, or the encoder cannot be loaded.
    """
    set_seed(run.seed)
    arguments = _training_arguments(run, encoder, folder / "checkpoints")
    model, tokenizer = _load_base_encoder(index, arguments.device)
    if encoder.encoder_dropout is not None:
        set_dropout(model, encoder.encoder_dropout)
    table = mentions.select_columns(["mention", "left", "right"]).with_format("arrow")[:]
    gold = concepts.rows(trainable(mentions["cui"][:]))
    size = encoder.encoder_training_steps * BATCH_SIZE
    trainer = EncoderTrainer(
        model=QueryNameVectors(model, index.encoder_pooling),
        args=arguments,
        train_dataset=QueryNamePairs(table, gold, concepts, size, run.seed),
        processing_class=tokenizer,
        data_collator=QueryCollator(
            QueryTokenizer(tokenizer, index.encoder_max_length, CONTEXT_TOKENS)
        ),
        batch_size=BATCH_SIZE,
    )
    trainer.train(resume_from_checkpoint=last_complete_checkpoint(folder / "checkpoints"))
    if trainer.is_world_process_zero():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        weights_by_umask(folder)
        write_json(folder / CONTEXT_FILE, {"schema_version": 1, "context_tokens": CONTEXT_TOKENS})
        shutil.rmtree(folder / "checkpoints")
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    last_loss = losses[-1] if losses else None
    return {
        "steps": trainer.state.global_step,
        "queries": size,
        "mentions_in_dictionary": int((gold >= 0).sum()),
        "loss": last_loss,
    }


def _training_arguments(
    run: RunArguments, encoder: EncoderArguments, folder: Path
) -> OneGpuArguments:
    device = training_device(run)
    dtype = resolve_dtype("auto", device)
    return OneGpuArguments(
        output_dir=str(folder),
        seed=run.seed,
        use_cpu=device.type == "cpu",
        bf16=dtype == "bfloat16",
        fp16=dtype == "float16",
        learning_rate=encoder.encoder_learning_rate,
        max_steps=encoder.encoder_training_steps,
        weight_decay=0.01,
        warmup_steps=0.06,
        # At most; `SharesOfBatches` divides a batch.
        per_device_train_batch_size=BATCH_SIZE,
        remove_unused_columns=False,
        # An interrupted run resumes from the last checkpoint.
        save_steps=50,
        save_strategy="steps",
        save_total_limit=2,
        logging_steps=10,
        logging_nan_inf_filter=False,
        disable_tqdm=False,
        report_to="none",
    )


def _load_base_encoder(
    index: IndexArguments, device: torch.device
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The recipe's bi-encoder and its tokenizer, with the markers of a mention in context."""
    source = resolve_model(index.encoder, index.encoder_revision)
    with loading(f"encoder {index.encoder}"):
        tokenizer = load_pretrained(AutoTokenizer, source)
        model = load_encoder_body(source, device, "float32")
    longest = getattr(model.config, "max_position_embeddings", sys.maxsize)
    require_length(index.encoder, index.encoder_max_length, CONTEXT_TOKENS, longest)
    if tokenizer.add_special_tokens({"additional_special_tokens": list(MARKERS)}):
        model.resize_token_embeddings(len(tokenizer))
    pooler = getattr(model, "pooler", None)
    if pooler is not None:
        # Nothing reads it, and DistributedDataParallel would wait for its gradient.
        pooler.requires_grad_(False)
    return model, tokenizer
