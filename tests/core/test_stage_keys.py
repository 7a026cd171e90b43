"""Which stages a recipe key makes stale, and which changes prevent a killed run from being resumed."""

import pytest

from umls_reranker.core import stage_keys
from umls_reranker.core.errors import UserError
from umls_reranker.core.recipe import KEYS, SECTIONS, Recipe, keys_of
from umls_reranker.core.stages import RunFolder

# Stage -> the stages that read it.
READERS = {
    "concepts": "mentions encoder vectors index lexical mention_index",
    "mentions": "encoder mention_index candidates pairs",
    "encoder": "vectors index mention_index",
    "vectors": "index",
    "index": "candidates pairs",
    "lexical": "candidates pairs",
    "mention_index": "candidates pairs",
    "candidates": "checkpoints model report",
    "pairs": "checkpoints report",
    "checkpoints": "model",
    "model": "report",
    "report": "",
}
# Key -> the stages whose settings it is in; of each the stages that read it follow.
STALE = {
    "concept_source languages sources concept_types semantic_groups obo_type_roots obo_synonym_scopes": "concepts",
    "mention_source": "concepts mentions",
    "expected_mentions train_share dev_share calibration_share train_calibration_share "
    "expand_abbreviations": "mentions",
    "encoder_training_steps encoder_batch_size encoder_learning_rate encoder_dropout "
    "encoder_context_tokens": "encoder",
    "encoder encoder_revision encoder_pooling encoder_max_length": "encoder vectors mention_index",
    "encoder_dtype": "vectors mention_index",
    "index_factory": "index",
    "index_parameters retrievers": "candidates pairs",
    "candidates_per_mention": "candidates",
    "nearest_negatives same_type_negatives random_negatives cosine_floor neighbors "
    "positive_weight hard_negative_weight max_train_mentions": "pairs",
    "candidate_fields mention_types": "pairs checkpoints",
    "model model_revision start_from_encoder max_length context_tokens": "checkpoints",
    "learning_rate num_train_epochs max_steps global_batch_size weight_decay warmup_steps "
    "lr_scheduler_type bf16 fp16 tf32 eval_on_start loss eval_steps metric_for_best_model "
    "early_stopping_patience max_dev_pairs dropout head_learning_rate": "checkpoints",
    "features calibrator target_precision confidence exhaustive scoring_dtype": "model",
    "bootstrap_resamples": "report",
    "seed": "mentions encoder pairs checkpoints model report",
    # What lies at a path counts, not the path: these reach the stages as fingerprints, model and encoder as hashes.
    "umls_dir obo corpus candidate_lists train_documents dev_documents test_documents": "",
    # How a result is computed, and what is done with it.
    "per_device_train_batch_size gradient_accumulation_steps gradient_checkpointing save_total_limit report_to "
    "dataloader_num_workers": "",
    "device cache_dir overwrite dry_run run_name output_dir targets margin stage_minutes": "",
    "repo_id tag private": "",
    "served_model served_revision served_index accept_tier backend token_budget batch_mentions host "
    "port max_queue max_candidates max_request_mentions auto_truncate": "",
}
FIELDS = {name: key.field for name, key in KEYS.items()}
STAGES = {key: stages.split() for keys, stages in STALE.items() for key in keys.split()}
# Fields of transformers.TrainingArguments that are no keys, and whether they decide what is trained.
OTHERS = {
    "decide": "adam_beta1 adam_epsilon lr_scheduler_kwargs max_grad_norm neftune_noise_alpha optim optim_args "
    "optim_target_modules",
    "do not": "dataloader_persistent_workers dataloader_pin_memory ddp_timeout debug disable_tqdm "
    "eval_accumulation_steps full_determinism gradient_checkpointing_kwargs include_num_input_tokens_seen log_level "
    "logging_steps per_device_eval_batch_size project skip_memory_metrics torch_compile trackio_space_id",
}
FILES = {"MRCONSO": "1", "MRREL": "2", "MRCUI": "3", "corpus": "4", "train_documents": "5"}
# Everything that a recipe can have: all retrievers, an index that is not exact, an encoder of its own.
WHOLE = {
    "retrievers": ["dense", "lexical", "nearest_mentions"],
    "encoder_training_steps": 5,
    "index_factory": "IVF64,Flat",
    "global_batch_size": 64,
}


def plan(tmp_path, files=None, **values):
    """Stage -> `Stage` of a recipe."""
    recipe = Recipe.from_values(WHOLE | values)
    return stage_keys.planned_stages(recipe, tmp_path, files or FILES)


def stale(before, after):
    return {name for name in before if before[name].key != after[name].key}


def with_readers(stages):
    reached, waiting = set(), list(stages)
    while waiting:
        if (stage := waiting.pop()) not in reached:
            reached.add(stage)
            waiting += READERS[stage].split()
    return reached


def other(field, value):
    """Another value of a recipe key."""
    choices = [choice for choice in field.metadata["choices"] or () if [choice] != value and choice != value]
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return [*value, *(choices[:1] or ["other"])]
    if choices:
        return choices[0]
    return value + 1 if isinstance(value, int | float) else "other"


@pytest.mark.parametrize("name", OTHERS["decide"].split())
def test_a_field_of_the_trainer_makes_stale_what_is_trained(tmp_path, name):
    assert stale(plan(tmp_path), plan(tmp_path, **{name: 1})) == with_readers(["checkpoints"])
    assert plan(tmp_path)["checkpoints"].facts != plan(tmp_path, **{name: 1})["checkpoints"].facts


@pytest.mark.parametrize("name", OTHERS["do not"].split())
def test_a_field_of_the_trainer_may_say_how_a_result_is_computed(tmp_path, name):
    assert stale(plan(tmp_path), plan(tmp_path, **{name: 1})) == set()


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_the_table_names_every_key(section):
    assert keys_of(section).keys() <= STAGES.keys() <= FIELDS.keys()


@pytest.mark.parametrize(
    "field", [field for name, field in FIELDS.items() if name != "candidate_lists"], ids=lambda field: field.name
)
def test_a_key_makes_stale_what_it_decides(tmp_path, field):
    before = plan(tmp_path)
    value = Recipe.from_values(WHOLE).to_dict()[field.name]
    changed = other(field, value)
    if field.name == "retrievers":
        # Further ones are indexes of their own; the order of those that are there counts too.
        changed = [*value, "context"]
    after = plan(tmp_path, **{field.name: changed})
    assert stale(before, after) == with_readers(STAGES[field.name])


@pytest.mark.parametrize(
    ("file", "stages"),
    [("MRCONSO", "concepts"), ("MRREL", "concepts"), ("MRCUI", "mentions"), ("corpus", "mentions")]
    + [("train_documents", "mentions")],
)
def test_a_changed_file_makes_stale_what_is_read_from_it(tmp_path, file, stages):
    after = plan(tmp_path, FILES | {file: "changed"})
    assert stale(plan(tmp_path), after) == with_readers([stages])


def test_lists_of_ones_own_take_the_place_of_retrieval(tmp_path):
    def planned(content="7", **values):
        return plan(tmp_path, FILES | {"candidate_lists": content}, **{"candidate_lists": "lists"} | values)

    before = planned()
    assert list(before) == ["concepts", "mentions", "candidates", "pairs", "checkpoints", "model", "report"]
    assert stale(before, planned(candidate_lists="moved", retrievers=["dense"], encoder="other")) == set()
    assert stale(before, planned(content="changed")) == set(before)
    assert "concepts" not in stale(before, planned(dev_share=0.3)) >= {"mentions", "candidates", "pairs"}
    for stages in (stage_keys.encoder_stage, stage_keys.index_stages):
        with pytest.raises(UserError, match="candidate_lists, which replace encoder, index and retrieval"):
            stages(Recipe.from_values({"candidate_lists": "lists"}), RunFolder(tmp_path))


def test_every_union_has_dense_cosines(tmp_path):
    with pytest.raises(UserError, match=r"retrievers: \['lexical'\] lacks dense"):
        plan(tmp_path, retrievers=["lexical"])


@pytest.mark.parametrize("key", ["model", "encoder"])
def test_a_model_of_a_local_folder_counts_by_its_files(tmp_path, key):
    def at(name, weights, card=""):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_text(weights)
        (folder / "README.md").write_text(card)
        return plan(tmp_path, **{key: str(folder)})

    before = at("a", "1")
    assert stale(before, at("b", "1", "moved, and described")) == set()
    assert stale(before, at("a", "2")) == with_readers(STAGES[key])


def test_held_out_synonyms_leave_the_dictionary(tmp_path):
    from_ontology = {"mention_source": "held_out_synonyms"}
    before = plan(tmp_path, **from_ontology)
    assert "concepts" in stale(before, plan(tmp_path, **from_ontology, seed=14))
    # Shares only say which mention goes where.
    assert "concepts" not in stale(before, plan(tmp_path, **from_ontology, train_share=0.5))
    assert "concepts" in stale(before, plan(tmp_path))


@pytest.mark.parametrize("trained", [0, 5])
def test_another_index_encodes_no_name_again(tmp_path, trained):
    before = plan(tmp_path, encoder_training_steps=trained)
    for change in ({"index_factory": "HNSW32"}, {"index_parameters": "nprobe=9"}):
        after = plan(tmp_path, encoder_training_steps=trained, **change)
        assert stale(before, after).isdisjoint({"concepts", "mentions", "encoder", "vectors", "mention_index"})


def test_without_training_of_the_encoder_mentions_encode_no_name_again(tmp_path):
    plain = {"encoder_training_steps": 0}
    after = plan(tmp_path, FILES | {"corpus": "changed"}, **plain, expand_abbreviations=True)
    assert stale(plan(tmp_path, **plain), after).isdisjoint({"concepts", "vectors", "index", "lexical"})


def test_without_a_global_batch_what_makes_it_up_counts(tmp_path, monkeypatch):
    def checkpoints(**sizes):
        return plan(tmp_path, **{"global_batch_size": None} | sizes)["checkpoints"]

    whole = checkpoints(per_device_train_batch_size=32)
    assert whole.settings["global_batch_size"] == 32
    assert checkpoints(per_device_train_batch_size=16).key != whole.key
    assert checkpoints(per_device_train_batch_size=16, gradient_accumulation_steps=2).key == whole.key
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert checkpoints(per_device_train_batch_size=8).key == whole.key
    assert checkpoints(per_device_train_batch_size=8, global_batch_size=64).settings["global_batch_size"] == 64


# Resuming

# Stage -> changes after which a killed run of it is still resumed.
RESUMED = {
    "checkpoints": "per_device_train_batch_size gradient_accumulation_steps dataloader_num_workers "
    "save_total_limit report_to early_stopping_patience eval_on_start "
    "scoring_dtype bootstrap_resamples device features",
    "pairs": "nearest_negatives same_type_negatives random_negatives cosine_floor positive_weight "
    "hard_negative_weight candidate_fields mention_types learning_rate",
    "encoder": "encoder_dtype index_factory",
    "vectors": "index_factory index_parameters candidates_per_mention",
}
REFUSED = {
    "checkpoints": "learning_rate num_train_epochs max_steps global_batch_size weight_decay warmup_steps "
    "lr_scheduler_type bf16 fp16 tf32 loss eval_steps max_dev_pairs "
    "metric_for_best_model seed model model_revision max_length context_tokens mention_types candidate_fields "
    "dropout head_learning_rate hard_negative_weight candidates_per_mention",
    "pairs": "neighbors max_train_mentions seed index_parameters index_factory expand_abbreviations",
    "encoder": "encoder_batch_size encoder_learning_rate encoder_dropout encoder_context_tokens "
    "encoder_training_steps seed encoder encoder_max_length expand_abbreviations",
    "vectors": "encoder encoder_dtype encoder_pooling encoder_max_length languages",
}


@pytest.mark.parametrize("stage", RESUMED)
def test_what_hinders_resuming(tmp_path, stage):
    before = plan(tmp_path)[stage].facts
    values = Recipe.from_values(WHOLE).to_dict()

    def hinders(key):
        return plan(tmp_path, **{key: other(FIELDS[key], values[key])})[stage].facts != before

    assert [key for key in RESUMED[stage].split() if hinders(key)] == []
    assert [key for key in REFUSED[stage].split() if not hinders(key)] == []


@pytest.mark.parametrize("is_set", [True, False], ids=["unset later", "set later"])
@pytest.mark.parametrize(
    ("stage", "key"),
    [("checkpoints", "dropout"), ("checkpoints", "adam_epsilon"), ("encoder", "encoder_dropout")],
)
def test_a_key_that_may_be_left_out_hinders_resuming_both_ways(tmp_path, stage, key, is_set):
    killed, now = plan(tmp_path, **{key: 0.5})[stage], plan(tmp_path)[stage]
    if not is_set:
        killed, now = now, killed
    with pytest.raises(KeyboardInterrupt), killed.writing() as (folder, _):
        kept = folder / killed.keeps.replace("*", "1")
        kept.parent.mkdir(parents=True)
        kept.touch()
        raise KeyboardInterrupt
    assert killed.resumes()
    with pytest.raises(UserError, match=rf"{key}.*restore this setting to resume"):
        now.resumes()


def test_stages_of_minutes_are_not_resumed(tmp_path):
    kept = {name for name, stage in plan(tmp_path).items() if stage.facts is not None}
    assert kept == {"encoder", "vectors", "pairs", "checkpoints"}


@pytest.mark.parametrize("values", [{"encoder_training_steps": 0}, {"candidate_lists": "lists"}])
def test_a_run_without_an_encoder_of_its_own_cannot_start_from_it(tmp_path, values):
    for stage in plan(tmp_path, start_from_encoder=True).values():  # the encoder of an earlier recipe is there
        with stage.writing():
            pass
    recipe, run = Recipe.from_values(WHOLE | {"start_from_encoder": True} | values), RunFolder(tmp_path)
    for ask in (stage_keys.checkpoints_stage, lambda *given: stage_keys.prepared_stages(*given, FILES)):
        with pytest.raises(UserError, match="start_from_encoder: the recipe trains no encoder"):
            ask(recipe, run)
