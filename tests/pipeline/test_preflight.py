"""What a run would refuse after hours is refused before its first stage, all at once; and its needs
are estimated.
"""

import importlib.util
import shutil
from types import SimpleNamespace

import pytest
from hub_server import HubServer, Repo
from huggingface_hub import constants
from tiny_models import tiny_cross_encoder

from umls_reranker.core.errors import UserError
from umls_reranker.pipeline.preflight import preflight
from umls_reranker.pipeline.recipe import Recipe


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Makes the recipe of a dictionary of 1,000 names, with further keys."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.txt").write_text("C1||cold, as thirty bytes a name\n"[:30] * 1_000)
    model = str(tiny_cross_encoder(tmp_path / "model"))
    keys = {
        "device": "cpu",
        "concept_source": "names",
        "names": "names.txt",
        "mention_source": "held_out_synonyms",
    }
    keys |= {
        "encoder": model,
        "model": model,
        "max_train_mentions": 1_000_000,
        "save_total_limit": 1,
    }
    return lambda **further: Recipe.from_values(keys | further)


def test_needs_are_estimated_from_files_and_configurations(recipe):
    told = preflight(recipe())
    assert "1,000 names" in told and "pairs 1.0 GB" in told
    assert "vectors 0.0 GB" in told and "checkpoints 0.0 GB" in told


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"report_to": ["trackio"]}, "report_to: trackio"),
        ({"lr_scheduler_type": "nonsense"}, "nonsense"),
        ({"optim": "nonsense"}, "nonsense"),
        ({"fp16": True}, "fp16"),
        ({"max_length": 4096}, "max_length: 4096"),
        ({"encoder_max_length": 4096}, "encoder_max_length: 4096"),
        ({"model": "./no-such"}, "model: .* ./no-such"),
        ({"names": "no.txt"}, "no.txt"),
        ({"index_factory": "Nonsense"}, "Nonsense"),
        ({"teacher": ["./no-teacher"]}, "./no-teacher"),
        ({"loss": "listwise_kl"}, "teacher: loss listwise_kl"),
        ({"teacher": ["model"]}, "teacher: loss bce"),
        ({"attn_implementation": "flash_attention_2"}, "model cannot be loaded.*Flash"),
        ({"fp16": True, "index_factory": "IVF64,Flat"}, "fp16.*nprobe"),
        (
            {"index_factory": "IVF64,Flat", "index_parameters": "nprobe=2"},
            "index_factory: 64 clusters",
        ),
    ],
)
def test_all_faults_are_told_at_once(recipe, monkeypatch, keys, named):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "trackio" else find(name)
    )
    with pytest.raises(UserError, match=named):
        preflight(recipe(**keys))


def test_models_on_the_hub_are_reached_and_checked_without_their_weights(
    recipe, monkeypatch, tmp_path
):
    on_hub = {"model": "org/base", "model_revision": "v1"}
    faults = {
        "max_length": 4096,
        "model_revision": "v2",
        "encoder": "org/none",
        "teacher": ["org/none"],
    }
    with HubServer() as hub:
        hub.connect(monkeypatch, tmp_path / "cache")
        files = {
            name: (tmp_path / "model" / name).read_bytes()
            for name in ("config.json", "model.safetensors")
        }
        repo = hub.repos["org/base"] = Repo()
        repo.tags["v1"] = repo.add(files)
        preflight(recipe(**on_hub))
        assert not any("model.safetensors" in line for line in hub.log)
        for key, value in faults.items():
            with pytest.raises(
                UserError, match=f"{key.partition('_rev')[0]}: .*(4096|v2|org/none)"
            ):
                preflight(recipe(**on_hub | {key: value}))
    # That config.json is in the cache by now does not help the training.
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(UserError, match="model: no connection"):
        preflight(recipe(**on_hub))


def test_a_disk_that_would_be_full_is_refused_unless_a_filter_may_leave_little(recipe, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5 * 10**7))
    with pytest.raises(UserError, match=r"output_dir.*0\.1 GB"):
        preflight(recipe())
    preflight(recipe(sources=["MSH"]))
