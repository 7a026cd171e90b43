"""The sapbert-medmentions recipe unchanged, with overrides only on the command line, trained by two
processes.
"""

import json

from pipeline_fixtures import ROOT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from umls_reranker.pipeline.stages import RunFolder

pytest_plugins = ["pipeline_fixtures"]

RECIPE = ROOT / "recipes" / "sapbert-medmentions" / "config.yaml"
STAGES = ("concepts", "mentions", "vectors", "index", "lists", "pairs", "checkpoints")


def test_the_reference_recipe_trains_on_two_processes(scripts, tmp_path):
    raw = scripts.materials
    overrides = {
        "output_dir": tmp_path,
        "umls_dir": raw / "META",
        "corpus": raw / "corpus.txt",
        "train_documents": raw / "train.txt",
        "dev_documents": raw / "dev.txt",
        "test_documents": raw / "test.txt",
        "expected_mentions": 120,
        "encoder": raw / "encoder",
        "model": raw / "model",
        "index_factory": "Flat",
        "index_parameters": "",
        "bf16": False,
        "device": "cpu",
        "global_batch_size": 15,
        "per_device_train_batch_size": 4,
        "max_steps": 6,
        "eval_steps": 3,
    }
    for script in ("prepare_data", "build_index", "mine_negatives"):
        outcome = scripts.run(script, RECIPE, **overrides)
        assert (outcome.code, outcome.errors) == (0, []), outcome.err
    options = [word for key, value in overrides.items() for word in (f"--{key}", value)]
    outcome = scripts.launch("train", RECIPE, *options)
    assert (outcome.code, outcome.errors) == (0, []), outcome.err

    run = tmp_path / "sapbert-medmentions"
    assert {path.name for path in run.iterdir()} == {
        *STAGES,
        "index.json",
        "stages.jsonl",
        ".lock",
        "tensorboard",
    }
    manifest = json.loads((run / "checkpoints" / "manifest.json").read_text())
    (events,) = (run / "tensorboard" / manifest["key"][:12]).iterdir()
    curve = EventAccumulator(str(events)).Reload().Scalars("train/loss")
    assert [event.step for event in curve] == list(
        range(1, 7)
    ) and f"'loss': '{curve[0].value:.4g}'" in outcome.out
    summary = manifest["summary"]
    assert (summary["processes"], summary["steps"], summary["dtype"]) == (2, 6, "float32")
    assert summary["train_pairs"] == sum(map(len, RunFolder(run).splits("pairs")["train"]["names"]))
    assert f"best checkpoint: step {summary['best_step']} of 6" in outcome.out
    assert (run / "checkpoints" / "checkpoint-best" / "model.safetensors").is_file()
