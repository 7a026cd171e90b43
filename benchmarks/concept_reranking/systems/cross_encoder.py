"""A CrossEncoder of sentence-transformers, fine-tuned on the lists of `train`, otherwise as it is.

Each mention brings its gold candidate and the first incorrect ones of its list, one epoch. The
variable BASE_MODEL names the model that it starts from, a folder or a Hub id; {configuration} in it
is replaced. The trained model stays beside the lists, and a second call reads it.
"""

import os
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

BASE_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
INCORRECT = 5
LONGEST_PAIR = 48
BATCH = 32
LEARNING_RATE = 5e-5
SEED = 13
TRAINED = "cross_encoder"
Row = dict[str, Any]


def scorer(folder: Path) -> Any:
    from sentence_transformers import CrossEncoder

    trained = folder / TRAINED
    if not trained.is_dir():
        train(folder, trained)
    model = CrossEncoder(str(trained), max_length=LONGEST_PAIR)

    def scores(rows: list[Row]) -> list[list[float]]:
        pairs = [
            (row["entity"], candidate["name"]) for row in rows for candidate in row["candidates"]
        ]
        distinct = list(dict.fromkeys(pairs))
        logits = model.predict(distinct, batch_size=BATCH, show_progress_bar=False).tolist()
        logit_of = dict(zip(distinct, logits, strict=True))
        return [
            [logit_of[row["entity"], candidate["name"]] for candidate in row["candidates"]]
            for row in rows
        ]

    return scores


def train(folder: Path, trained: Path) -> None:
    """Fine-tune by the library's trainer and its binary cross-entropy."""
    from datasets import Dataset
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder import (
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
    )
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    base = os.environ.get("BASE_MODEL", BASE_MODEL).format(configuration=folder.name)
    model = CrossEncoder(base, num_labels=1, max_length=LONGEST_PAIR)
    pairs = training_pairs(pq.read_table(folder / "train.parquet").to_pylist())
    arguments = CrossEncoderTrainingArguments(
        output_dir=str(trained.with_name(f".{TRAINED}.checkpoints")),
        num_train_epochs=1,
        per_device_train_batch_size=BATCH,
        learning_rate=LEARNING_RATE,
        warmup_steps=0.1,
        seed=SEED,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_steps=50,
    )
    CrossEncoderTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(pairs),
        loss=BinaryCrossEntropyLoss(model),
    ).train()
    model.save_pretrained(str(trained))


def training_pairs(rows: list[Row]) -> list[Row]:
    """Mention, name and label, in random order; a list without its gold concept brings nothing."""
    pairs = []
    for row in rows:
        gold_ids = {cui for part in row["cui"] for cui in part}
        gold = [one for one in row["candidates"] if one["cui"] in gold_ids]
        incorrect = [one for one in row["candidates"] if one["cui"] not in gold_ids]
        if not gold:
            continue
        for candidate in [gold[0], *incorrect[:INCORRECT]]:
            label = float(candidate["cui"] in gold_ids)
            pairs.append({"mention": row["entity"], "name": candidate["name"], "label": label})
    random.Random(SEED).shuffle(pairs)
    return pairs
