#!/usr/bin/env python
"""Rehearse the reference training on synthetic data, up to a published and served model.

    python benchmarks/rehearsal.py WORK                      # the size of UMLS and MedMentions
    python benchmarks/rehearsal.py small --scale 0.01
    python benchmarks/rehearsal.py WORK --best               # the recipe sapbert-medmentions-best

Runs recipes/rehearsal. A BERT of two layers and 64 dimensions replaces the cross-encoder; word
pieces with random vectors, averaged, replace SapBERT: 768 dimensions, so that index and memory are
as in the real run. With --best they get one layer, and the cross-encoder starts from them, as in
the recipe. Two processes do what can be shared. Prints Markdown: minutes, CPU minutes, peak
anonymous memory and disk of each command, and of each stage where a command makes several. After
being killed it resumes with the same command. Needs the extras serve and test.
"""

import argparse
import importlib.util
import json
import math
import re
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from string import ascii_lowercase, digits, punctuation
from typing import Any

import rrf_release
import yaml
from measured import ROOT, Taken, disk, measured
from scoring import answer, free_port, wait_for

RECIPE = ROOT / "recipes" / "rehearsal" / "config.yaml"
REFERENCE = ROOT / "recipes" / "sapbert-medmentions" / "config.yaml"
BEST = ROOT / "recipes" / "sapbert-medmentions-best" / "config.yaml"
# How a reference run is calibrated and judged, which what is published here is not.
CALIBRATION_KEYS = ("features", "calibrator", "targets")
# What the last stages import, of the extra serve.
SERVING = ("fastapi", "uvicorn")
# What the substitute models and a CPU need.
SUBSTITUTED = {
    "run_name": "rehearsal",
    "encoder_pooling": "mean",
    "bf16": False,
    "device": "cpu",
    "targets": [],
}
COMMAND = [sys.executable, "-m", "umls_reranker"]
CONFIG = ROOT / "accelerate_configs" / "cpu_two_processes.yaml"
TWO_PROCESSES = [
    sys.executable,
    "-m",
    "accelerate.commands.launch",
    "--config_file",
    CONFIG,
    *COMMAND[1:],
]
ROWS = 17_000_000
RELATIONS = 9
DOCUMENTS = 4_392
MENTIONS = 352_496
LINKED = 2_000
REPO = "org/rehearsal"
TAG = "v1.0.0"


def word_pieces() -> list[str]:
    """A vocabulary of the synthetic names' elements and of letter trigrams: 30,522 as BERT's."""
    pieces = sorted(
        {word for text in rrf_release.ELEMENTS for word in re.findall(r"[a-z]+", text.lower())}
    )
    pieces += [*ascii_lowercase, *digits, *punctuation]
    for length in (2, 3):
        pieces += ["".join(letters) for letters in product(ascii_lowercase, repeat=length)]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]", "[unused2]"]
    return list(
        dict.fromkeys([*special, *(prefix + piece for piece in pieces for prefix in ("", "##"))])
    )[:30_522]


def write_models(folder: Path, dimension: int, layers: int) -> None:
    """Stand-ins for bi-encoder (averaged word pieces) and cross-encoder, as ordinary folders.

    Args:
        folder: where they are written.
        dimension: of the bi-encoder's vectors.
        layers: of the bi-encoder. Without any, no mention reads its name, so no cross-encoder can
            start from it.
    """
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizerFast

    torch.manual_seed(13)
    pieces = word_pieces()
    sizes = {"vocab_size": len(pieces), "max_position_embeddings": 128}
    averaging = BertConfig(
        hidden_size=dimension, num_hidden_layers=layers, intermediate_size=128, **sizes
    )
    encoder = BertModel(averaging, add_pooling_layer=False)
    encoder.embeddings.position_embeddings.weight.data.zero_()
    encoder.embeddings.token_type_embeddings.weight.data.zero_()
    config = BertConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        num_labels=1,
        **sizes,
    )
    for name, model in {"encoder": encoder, "model": BertForSequenceClassification(config)}.items():
        path = folder / name
        path.mkdir(parents=True, exist_ok=True)
        (path / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
        BertTokenizerFast(str(path / "vocab.txt"), model_max_length=128).save_pretrained(path)
        model.save_pretrained(path)


class Rehearsal:
    """One rehearsal in a folder, with what was measured so far in ``measured.json``."""

    def __init__(
        self, work: Path, scale: float, steps: int, best: bool = False, dimension: int = 768
    ) -> None:
        self.work = work.resolve()
        self.scale = scale
        self.steps = steps
        self.best = best
        self.dimension = dimension
        self.recipe = BEST if best else RECIPE
        self.rows = round(ROWS * scale)
        self.documents = max(60, round(DOCUMENTS * scale))
        self.mentions = max(10 * self.documents, round(MENTIONS * scale))
        self.linked = max(20, round(LINKED * min(1, scale)))
        self.file = self.work / "measured.json"

    def command(self, name: str, processes: int = 1, **more: Any) -> list[Any]:
        """A command of the package with the recipe's keys that depend on folder and scale."""
        corpus = self.work / "corpus"
        recipe = yaml.safe_load(self.recipe.read_text(encoding="utf-8"))
        values = {
            "output_dir": self.work / "runs",
            "umls_dir": self.work / "META",
            "corpus": corpus / "corpus_pubtator.txt",
            "expected_mentions": self.mentions,
            "encoder": self.work / "models" / "encoder",
            "max_steps": self.steps,
            "eval_steps": max(1, self.steps // 4),
        }
        if self.best:
            values |= SUBSTITUTED | {
                "encoder_training_steps": min(self.steps, recipe["encoder_training_steps"])
            }
        else:
            values["model"] = self.work / "models" / "model"
        for split, ending in {"train": "trng", "dev": "dev", "test": "test"}.items():
            values[f"{split}_documents"] = corpus / f"corpus_pubtator_pmids_{ending}.txt"
        # Clusters, and how many are searched, by the square root of the size.
        shrink = math.sqrt(min(1.0, self.scale))
        for key in ("index_factory", "index_parameters"):
            number = int(re.search(r"\d+", recipe[key])[0])
            values[key] = recipe[key].replace(str(number), str(max(4, round(number * shrink))), 1)
        options = {
            key: (value or ["[]"]) if isinstance(value, list) else [value]
            for key, value in (values | more).items()
        }
        words = [word for key, value in options.items() for word in (f"--{key}", *value)]
        return [*(TWO_PROCESSES if processes == 2 else COMMAND), name, self.recipe, *words]

    def stages(self) -> Iterator[tuple[str, Sequence[Any], dict[str, Any]]]:
        """Title, command and options of `measured`, in order."""
        meta = self.work / "META"
        release = [
            ROOT / "benchmarks" / "rrf_release.py",
            meta,
            "--rows",
            self.rows,
            "--relations",
            RELATIONS,
        ]
        yield "synthetic release", [sys.executable, *release], {}
        corpus = [ROOT / "benchmarks" / "pubtator_corpus.py", meta, self.work / "corpus"]
        corpus += ["--documents", self.documents, "--mentions", self.mentions]
        yield "synthetic corpus", [sys.executable, *corpus], {}
        yield "prepare_data", self.command("prepare_data"), {}
        yield "prepare_data again, nothing to do", self.command("prepare_data"), {}
        if self.best:
            yield "train_encoder", self.command("train_encoder"), {}
        for name, processes in (("build_index", 2), ("mine_negatives", 1), ("train", 2)):
            yield f"{name}, {processes} processes", self.command(name, processes), {}
        recipe = yaml.safe_load((BEST if self.best else REFERENCE).read_text(encoding="utf-8"))
        keys = {key: recipe[key] for key in CALIBRATION_KEYS if key in recipe}
        name = recipe["run_name"]
        # A substitute model that has learned nothing is refused, and none reaches a target.
        refused = {"codes": (0, 2)}
        missed = {"codes": (0, 1)}
        yield f"calibrate as {name}", self.command("calibrate", **keys), refused
        if (self.work / "runs" / "rehearsal" / "model").is_dir():
            yield f"evaluate as {name}", self.command("evaluate", **keys), {}
            yield f"validate as {name}", self.command("validate", **keys), missed
        for name in ("calibrate", "evaluate", "validate"):
            yield name, self.command(name), {}
        yield "export_index", self.command("export_index", index_folder=self.work / "served"), {}
        yield "publish", self.command("publish", repo_id=REPO, tag=TAG), {"env": self.hub}
        lists = self.work / "runs" / "rehearsal" / "lists" / "test.arrow"
        rerank = [
            *TWO_PROCESSES,
            "rerank",
            REPO,
            lists,
            self.work / "reranked.parquet",
            "--revision",
            TAG,
        ]
        rerank += ["--device", "cpu", "--overwrite"]
        yield "rerank test lists by revision, 2 processes", rerank, {"env": self.hub}
        port = free_port()
        serve = [
            *COMMAND,
            "serve",
            ROOT / "recipes" / "production" / "config.yaml",
            "--device",
            "cpu",
        ]
        serve += ["--port", port, "--served_index", self.work / "served"]
        serve += ["--served_model", REPO, "--served_revision", TAG]
        link = {
            "env": self.hub,
            "meanwhile": lambda: self.link(port),
            "codes": (0, -signal.SIGTERM),
        }
        yield f"serve, {self.linked:,} mentions linked by HTTP", serve, link

    def go(self) -> dict[str, Any]:
        """Run what was not yet run; returns title -> figures."""
        sys.path.insert(0, str(ROOT / "tests"))
        from hub_server import WRITER, HubServer

        self.work.mkdir(parents=True, exist_ok=True)
        if not (self.work / "models").exists():
            write_models(self.work / "models", self.dimension, layers=1 if self.best else 0)
        done = json.loads(self.file.read_text()) if self.file.is_file() else {}
        with HubServer() as hub:
            self.hub = hub.environment(self.work / "hub", WRITER)
            for title, command, options in self.stages():
                # The local Hub is not persistent; publishing is fast.
                if title in done and title != "publish":
                    continue
                if title == "publish":
                    shutil.rmtree(self.work / "hub", ignore_errors=True)
                print(f"== {title}", file=sys.stderr, flush=True)
                used = disk(self.work)
                run = self.work / "runs" / "rehearsal"
                stages: dict[str, Taken] = {}
                log = {"stages": run / "stages.jsonl", "by_stage": stages}
                taken = measured(command, self.work / "rehearsal.log", **log, **options)
                done[title] = taken._asdict() | {"disk": disk(self.work) - used}
                for name, taken in stages.items():
                    done[f"{title}: {name}"] = taken._asdict() | {"disk": disk(run / name)}
                self.file.write_text(json.dumps(done, indent=1))
        return done

    def link(self, port: int) -> None:
        """Wait for the service, link names of the release by ten, and see that all have answers."""
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/health", tries=1_200)
        with (self.work / "META" / "MRCONSO.RRF").open(encoding="utf-8") as lines:
            names = [
                line.split("|")[14] for line, _ in zip(lines, range(self.linked), strict=False)
            ]
        for start in range(0, self.linked, 10):
            mentions = [{"mention": name} for name in names[start : start + 10]]
            body = json.dumps({"mentions": mentions, "top": 3}).encode()
            assert all(json.loads(answer(f"{address}/link", body))), f"not all linked: {mentions}"


def stages_table(stages: dict[str, Any]) -> str:
    lines = [
        "| stage | minutes | CPU minutes | peak anonymous memory, MB | disk, MB |",
        "|---|" + "---:|" * 4,
    ]
    for name, taken in stages.items():
        cells = (taken["seconds"] / 60, taken["cpu"] / 60, taken["peak"] / 1e6, taken["disk"] / 1e6)
        lines.append(f"| {name} | " + " | ".join(f"{value:,.1f}" for value in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, help="folder for all output; the full size takes 49 GB")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full size")
    parser.add_argument("--steps", type=int, default=400, help="optimizer steps of training")
    parser.add_argument("--best", action="store_true", help="rehearse sapbert-medmentions-best")
    parser.add_argument(
        "--dimension",
        type=int,
        default=768,
        help="of vectors; 384 halves disk and the index's memory",
    )
    options = parser.parse_args()
    if absent := [name for name in SERVING if importlib.util.find_spec(name) is None]:
        parser.error(
            f"{' and '.join(absent)}: not installed, and needed at the end; "
            'pip install -e ".[serve,test]"'
        )
    rehearsal = Rehearsal(
        options.work, options.scale, options.steps, options.best, options.dimension
    )
    print(stages_table(rehearsal.go()))


if __name__ == "__main__":
    main()
