#!/usr/bin/env python
"""Train an encoder on the clusters of `gather.py`: names of a cluster become alike.

    python benchmarks/names/train.py runs/names/data runs/names/base

The loss is InfoNCE (van den Oord et al. 2018) of cosines. A batch has a pair of synonyms of some
clusters and of clusters near each of them, so that its negatives are hard. Clusters with a normal
form in common are no negatives.

At the end ``encoder_SHARE`` is written for each of --shares: an encoder whose weights are such a
share of the trained ones and the rest of the model's, since training on names alone forgets what
else the model knows. Run again, an interrupted training goes on.
"""

import argparse
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from pairs import MAX_TOKENS, SEED, Names, nearest_clusters
from torch.nn import functional
from transformers import AutoTokenizer

from umls_reranker.core.devices import resolve_device, to_device
from umls_reranker.core.files import partial_path, replace_folder, written
from umls_reranker.core.parallel import progress
from umls_reranker.models.batches import PackedTexts
from umls_reranker.models.bi_encoder import BiEncoder, load_encoder_body, pooled
from umls_reranker.models.model_files import MINILM, resolve_model
from umls_reranker.training.dropout import set_dropout

TEMPERATURE = 0.05
WARMUP_STEPS = 50
# Share of the steps in which the rate falls to zero.
DECAY = 0.3
# Names that are padded together.
GROUP = 64
# Also those of the printed loss.
SAVE_STEPS = 50


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder that gather.py wrote")
    parser.add_argument("output", type=Path, help="folder of the training")
    parser.add_argument("--model", default=MINILM, help="encoder with mean pooling")
    parser.add_argument("--steps", type=int, default=427)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--seeds", type=int, default=48, help="clusters drawn for a batch")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.5])
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    source = resolve_model(options.model)
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = load_encoder_body(source, resolve_device(), "float32").train()
    set_dropout(model, 0.0)
    train(model, tokenizer, options)
    for share in options.shares:
        mixed = load_encoder_body(source, torch.device("cpu"), "float32")
        with torch.no_grad():
            for own, trained in zip(mixed.parameters(), model.parameters(), strict=True):
                own.lerp_(trained.cpu(), share)
        folder = options.output / f"encoder_{share:g}"
        mixed.half().save_pretrained(partial_path(folder))
        tokenizer.save_pretrained(partial_path(folder))
        replace_folder(partial_path(folder), folder)


def train(model, tokenizer, options: argparse.Namespace) -> None:
    """Train in place, from the last checkpoint of the folder if there is one."""
    names = Names(options.data / "concepts.json", tokenizer)
    optimizer = torch.optim.AdamW(
        model.parameters(), options.lr, weight_decay=0.01, betas=(0.9, 0.98), fused=True
    )
    checkpoint = options.output / "state.pt"
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=model.device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    neighbors = near_clusters(options.output / "neighbors.npy", names, options.model)
    losses: list[float] = []
    batches = enumerate(islice(names.seed_batches(options.seeds), start, options.steps), start)
    bar = progress(batches, total=options.steps - start, desc="training", unit="step")
    for step, seeds in bar:
        for group in optimizer.param_groups:
            group["lr"] = options.lr * rate(step, options.steps)
        rows, related = names.batch(seeds, neighbors, np.random.default_rng([SEED, step]))
        loss = contrast(model, names, rows, related, tokenizer.pad_token_id)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        bar.set_postfix(loss=f"{np.mean(losses[-SAVE_STEPS:]):.3f}")
        done = step + 1
        if done % SAVE_STEPS == 0 or done == options.steps:
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": done,
            }
            with written(checkpoint) as partial:
                torch.save(state, partial)


def rate(step: int, steps: int) -> float:
    """Share of the learning rate: it rises, stays, and falls to zero."""
    return min(1.0, (step + 1) / WARMUP_STEPS, (1 - step / steps) / DECAY)


def near_clusters(file: Path, names: Names, model: str) -> np.ndarray:
    """Those of the file, which the encoder finds before it is trained."""
    if not file.exists():
        encoder = BiEncoder.from_pretrained(model, max_length=MAX_TOKENS)
        nearest = nearest_clusters(names, encoder, np.random.default_rng(SEED))
        with written(file) as partial, partial.open("wb") as stream:
            np.save(stream, nearest)
    return np.load(file)


def contrast(
    model, names: Names, rows: np.ndarray, related: np.ndarray, pad_id: int
) -> torch.Tensor:
    """Mean negative log-likelihood, nats, of each name's partner among all names of the batch.

    Args:
        model: the encoder.
        names: all names.
        rows: (2 b,) those of the batch, as from `Names.batch`.
        related: (b, b) bool, likewise.
        pad_id: id of the padding token.
    """
    texts = [names.ids[row] for row in rows]
    order = np.argsort([-len(text) for text in texts], kind="stable")
    vectors = []
    for start in range(0, len(order), GROUP):
        group = PackedTexts.join([texts[number] for number in order[start : start + GROUP]])
        inputs = {name: to_device(of, model.device) for name, of in group.padded(pad_id).items()}
        with torch.autocast(model.device.type, torch.bfloat16):
            hidden = model(**inputs).last_hidden_state
        vectors.append(pooled(hidden, inputs["attention_mask"], "mean"))
    unit = functional.normalize(torch.cat(vectors)[np.argsort(order)], dim=-1)
    cosines = unit @ unit.T / TEMPERATURE
    partner = np.roll(np.arange(len(rows)), len(rows) // 2)
    form = names.form[rows]
    is_masked = np.tile(related, (2, 2)) | (form[:, None] == form)
    is_masked[np.arange(len(rows)), partner] = False
    masked = cosines.masked_fill(to_device(is_masked, model.device), float("-inf"))
    return functional.cross_entropy(masked, to_device(partner, model.device))


if __name__ == "__main__":
    main()
