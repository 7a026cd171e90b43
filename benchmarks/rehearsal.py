#!/usr/bin/env python
"""Rehearse the reference training from end to end on made-up data: every stage to a published and served model.

    python benchmarks/rehearsal.py WORK                      # the size of UMLS and MedMentions
    python benchmarks/rehearsal.py WORK --dry_run            # what that needs
    python benchmarks/rehearsal.py small --scale 0.01
    python benchmarks/rehearsal.py small --scale 0.01 --grow names   # and ten times the names, in small/names

Runs recipes/rehearsal. A BERT of two layers and 64 dimensions replaces the cross-encoder; word pieces with random
vectors, averaged, replace SapBERT: 768 dimensions, so that index and memory are as in the real run. Two processes do
what can be shared. Training is killed twice and resumed, once by one process. Prints Markdown: minutes, processor
minutes, peak anonymous memory and disk of each stage, the longest time without a line of progress, and the thresholds
of all semantic types; with --grow, figures at both sizes, and how they grow. After being killed it resumes with the
same command.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from measured import disk, measured

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes" / "rehearsal" / "config.yaml"
COMMAND = [sys.executable, str(ROOT / "umls_reranker" / "__main__.py")]
SCRIPTS = ROOT / "scripts"
ROWS, DOCUMENTS, MENTIONS, PAIRS, LINKED = 17_000_000, 4_392, 352_496, 1_000_000, 2_000
RELATIONS = 9
# Factor of growth along an axis.
GROWTH = 10
REPO, TAG = "org/rehearsal", "v1.0.0"
# Bytes on disk of a row of the release with what is made of it, of a distinct name (its vector in single and in half
# precision), and of a mention with its candidates and pairs; as found at a thousandth.
BYTES = {"rows": 330, "names": 5_200, "mentions": 6_000}
# Distinct names per 100 rows, and distinct strings per 100 mentions.
DISTINCT_NAMES, DISTINCT_STRINGS = 50, 33
# Seconds in which a core scans a code of 768 dimensions, and refines what a query found; its float32 products.
SCAN, REFINEMENT, CORE_FLOPS = 5e-9, 5e-4, 4e10
# BERT-base without embeddings; tokens per name and per pair; an A100 in fp16 and the assumed share of its peak.
WEIGHTS, NAME_TOKENS, PAIR_TOKENS, A100_FLOPS, SHARE = 85e6, 10, 20, 312e12, 0.3


def word_pieces() -> list[str]:
    """A vocabulary of the elements that the made-up names consist of, and of letter trigrams: 30,522 as BERT's."""
    from itertools import product
    from string import ascii_lowercase, digits, punctuation

    import rrf_release as names

    listed = (names.MODIFIERS, names.SITES, names.ROOTS, names.PREFIXES, names.SUFFIXES, names.ENDINGS)
    words = {word for texts in listed for text in texts for word in re.findall(r"[a-z]+", text.lower())}
    letters = [*ascii_lowercase, *digits, *punctuation]
    pieces = [*sorted(words), *letters, *(first + second for first, second in product(ascii_lowercase, repeat=2))]
    pieces = [*pieces, *("".join(letters) for letters in product(ascii_lowercase, repeat=3))]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]", "[unused2]"]
    return list(dict.fromkeys([*special, *(prefix + piece for piece in pieces for prefix in ("", "##"))]))[:30_522]


def write_models(folder: Path) -> None:
    """Stand-ins of the bi-encoder (word pieces, averaged) and of the cross-encoder, as ordinary model folders."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizerFast

    torch.manual_seed(13)
    pieces = word_pieces()
    sizes = {"vocab_size": len(pieces), "max_position_embeddings": 128}
    encoder = BertModel(BertConfig(hidden_size=768, num_hidden_layers=0, **sizes), add_pooling_layer=False)
    for part in (encoder.embeddings.position_embeddings, encoder.embeddings.token_type_embeddings):
        part.weight.data.zero_()
    config = BertConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128, num_labels=1, **sizes
    )
    for name, model in {"encoder": encoder, "model": BertForSequenceClassification(config)}.items():
        path = folder / name
        path.mkdir(parents=True, exist_ok=True)
        (path / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
        BertTokenizerFast(str(path / "vocab.txt"), model_max_length=128).save_pretrained(path)
        model.save_pretrained(path)


class Rehearsal:
    """One rehearsal in a folder, with what was measured so far in ``measured.json``."""

    def __init__(self, options: argparse.Namespace, grow: str | None) -> None:
        self.work: Path = options.work / (grow or "")
        self.run = self.work / "runs" / "rehearsal"
        names, mentions = (GROWTH if grow == axis else 1 for axis in ("names", "mentions"))
        self.rows = round(ROWS * options.scale * names)
        self.documents = mentions * max(60, round(DOCUMENTS * options.scale))
        self.mentions = max(10 * self.documents, round(MENTIONS * options.scale) * mentions)
        self.pairs = mentions * max(1_000, round(PAIRS * options.scale))
        self.linked = mentions * max(20, round(LINKED * min(1, options.scale)))
        self.steps = options.steps
        # The recipe's number of clusters for a whole release, scaled by the square root of the size; the same when
        # names grow.
        self.shrink = math.sqrt(min(1.0, options.scale))
        self.file = self.work / "measured.json"
        self.size = {"scale": options.scale, "grow": grow, "steps": options.steps}

    def overrides(self) -> dict[str, Any]:
        """Recipe keys that depend on the folder and the scale."""
        from umls_reranker.core.recipe import load_recipe

        index = load_recipe(RECIPE).index
        clusters, probed = (int(re.search(r"\d+", text)[0]) for text in (index.index_factory, index.index_parameters))
        clusters, probed = (max(4, round(number * self.shrink)) for number in (clusters, probed))
        factory, parameters = (
            re.sub(r"\d+", str(number), text, count=1)
            for number, text in ((clusters, index.index_factory), (probed, index.index_parameters))
        )
        corpus = self.work / "corpus"
        return {
            "output_dir": self.work / "runs",
            "umls_dir": self.work / "META",
            "corpus": corpus / "corpus_pubtator.txt",
            "train_documents": corpus / "corpus_pubtator_pmids_trng.txt",
            "dev_documents": corpus / "corpus_pubtator_pmids_dev.txt",
            "test_documents": corpus / "corpus_pubtator_pmids_test.txt",
            "expected_mentions": self.mentions,
            "encoder": self.work / "models" / "encoder",
            "model": self.work / "models" / "model",
            "index_factory": factory,
            "index_parameters": parameters,
            "max_steps": self.steps,
            "eval_steps": max(1, self.steps // 4),
        }

    def script(self, name: str, processes: int = 1, **more: Any) -> list[Any]:
        launch = ["--accelerate_config", "cpu_two_processes"] if processes == 2 else []
        words = [word for key, value in (self.overrides() | more).items() for word in (f"--{key}", value)]
        return [*COMMAND, name, RECIPE, *words, *launch]

    def stages(self) -> Iterator[tuple[str, Sequence[Any], dict[str, Any]]]:
        """Title, command and options of `measured`, in order."""
        meta, here = self.work / "META", ROOT / "benchmarks"
        release = [sys.executable, here / "rrf_release.py", meta, "--rows", self.rows, "--relations", RELATIONS]
        size = ["--documents", self.documents, "--mentions", self.mentions]
        yield "synthetic release", release, {}
        yield "synthetic corpus", [sys.executable, here / "pubtator_corpus.py", meta, self.work / "corpus", *size], {}
        yield "prepare_data", self.script("prepare_data"), self.parts("concepts", "mentions")
        yield "prepare_data again, nothing to do", self.script("prepare_data"), {}
        yield "build_index, 2 processes", self.script("build_index", 2), self.parts("vectors", "index", "candidates")
        yield "mine_negatives, 2 processes", self.script("mine_negatives", 2), self.parts("pairs")
        for number, processes in enumerate((2, 1), start=1):
            yield f"train, {processes} processes, killed", self.script("train", processes), self.until(number)
        yield "train, 2 processes, resumed", self.script("train", 2), self.parts("checkpoints")
        yield "calibrate", self.script("calibrate"), self.parts("model")
        yield "evaluate", self.script("evaluate"), self.parts("report")
        yield "validate", self.script("validate"), {"codes": (0, 1)}
        yield "export_index", self.script("export_index", index_folder=self.work / "served"), {}
        yield "publish", self.script("publish", repo_id=REPO, tag=TAG), {"env": self.hub}
        output = self.work / "reranked.parquet"
        rerank = [*COMMAND, "rerank", REPO, self.work / "lists.parquet", output, "--revision", TAG, "--device", "cpu"]
        launch = ["--accelerate_config", "cpu_two_processes"]
        yield f"rerank {self.pairs:,} pairs by revision, 2 processes", [*rerank, *launch], {"env": self.hub}
        port = free_port()
        served = {"served_model": REPO, "served_revision": TAG, "served_index": self.work / "served", "port": port}
        words = [word for key, value in served.items() for word in (f"--{key}", value)]
        serve = [*COMMAND, "serve", ROOT / "recipes" / "production" / "config.yaml", *words, "--device", "cpu"]
        link = {"env": self.hub, "meanwhile": lambda: self.link(port), "codes": (0, -signal.SIGTERM)}
        yield f"serve, {self.linked:,} mentions linked by HTTP", serve, link

    def parts(self, *names: str) -> dict[str, Any]:
        return {"parts": {name: self.run / name / "manifest.json" for name in names}}

    def until(self, checkpoint: int) -> dict[str, Any]:
        """Options to kill training as soon as so many checkpoints were written."""

        def written() -> bool:
            steps = [int(path.parent.name.split("-")[1]) for path in self.checkpoints().glob("*/trainer_state.json")]
            return max(steps, default=0) >= checkpoint * max(1, self.steps // 4)

        return {"kill_when": written} | self.parts("checkpoints")

    def checkpoints(self) -> Path:
        from umls_reranker.core.files import partial_path

        return partial_path(self.run / "checkpoints")

    def go(self) -> dict[str, Any]:
        """Run what was not yet run; returns title -> part -> figures."""
        sys.path.insert(0, str(ROOT / "tests"))
        from hub_server import WRITER, HubServer

        self.work.mkdir(parents=True, exist_ok=True)
        done = json.loads(self.file.read_text()) if self.file.is_file() else {"size": self.size, "stages": {}}
        if done["size"] != self.size:
            raise SystemExit(
                f"{self.file} belongs to a rehearsal with {done['size']}; choose another folder or remove it"
            )
        with HubServer() as hub:
            self.hub = hub.environment(self.work / "hub", WRITER)
            stages = list(self.stages())
            if all(title in done["stages"] for title, *_ in stages):
                return done["stages"]
            for title, command, options in stages:
                # The local Hub is not persistent; publishing is fast.
                if title in done["stages"] and title != "publish":
                    continue
                print(f"== {title}", file=sys.stderr, flush=True)
                self.prepare(title)
                used, log = disk(self.work), self.work / "rehearsal.log"
                parts = options.pop("parts", {title: self.work / "none"})
                figures = measured(command, log, parts, **options)
                for part, own in figures.items():
                    own["disk"] = disk(self.run / part) if len(figures) > 1 else disk(self.work) - used
                done["stages"][title] = figures
                self.file.write_text(json.dumps(done, indent=1))
        return done["stages"]

    def prepare(self, title: str) -> None:
        """What a stage needs that no command makes."""
        if title == "prepare_data":
            write_models(self.work / "models")
        elif title == "publish":
            shutil.rmtree(self.work / "hub", ignore_errors=True)
        elif title.startswith("rerank"):
            self.write_lists()

    def write_lists(self) -> None:
        """Test mentions with their candidates, some again until there are pairs enough, as a pipeline gives them."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.parquet as pq

        from umls_reranker.core.stages import RunFolder

        candidates, mentions = (RunFolder(self.run).splits(name)["test"] for name in ("candidates", "mentions"))
        lists, given = candidates.with_format("arrow")[:], mentions.with_format("arrow")[:]
        cuis = lists["cuis"].combine_chunks()
        values = [lists[name].combine_chunks().values for name in ("cuis", "names")]
        rows = pa.StructArray.from_arrays(values, ["cui", "name"])
        columns = {"entity": given["mention"], "entity_type": given["semantic_types"]}
        table = pa.table(columns | {"candidates": pa.ListArray.from_arrays(cuis.offsets, rows)})
        wanted = max(1, round(self.pairs * len(table) / len(rows)))
        pq.write_table(table.take(pa.array(np.arange(wanted) % len(table))), self.work / "lists.parquet")

    def link(self, port: int) -> None:
        """Wait for the service, link test mentions by ten, and see that each has an answer."""
        from umls_reranker.core.stages import RunFolder

        address = f"http://127.0.0.1:{port}"
        for _ in range(6_000):
            try:
                urlopen(f"{address}/health", timeout=5).close()
                break
            except (URLError, OSError):
                time.sleep(0.1)
        rows = RunFolder(self.run).splits("mentions")["test"].to_list()
        answered = 0
        for start in range(0, self.linked, 10):
            some = [rows[number % len(rows)] for number in range(start, min(start + 10, self.linked))]
            mentions = [{name: row[name] for name in ("mention", "left", "right")} for row in some]
            body = json.dumps({"mentions": mentions, "top": 3}).encode()
            request = Request(f"{address}/link", body, {"Content-Type": "application/json"})
            with urlopen(request, timeout=600) as answer:
                answered += sum(map(bool, json.load(answer)))
        assert answered == self.linked, f"{answered} of {self.linked} mentions were linked"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def figures(stages: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, float]]]:
    """Name of every part of a stage, and its figures in minutes and megabytes."""
    for title, parts in stages.items():
        for part, own in parts.items():
            found = {"minutes": own["seconds"] / 60, "CPU minutes": own["cpu"] / 60}
            found |= {"peak anonymous memory, MB": own["peak"] / 1e6, "disk, MB": own["disk"] / 1e6}
            name = title if len(parts) == 1 else f"{title}: {part}"
            yield name, found | {"longest silence, s": own["silence"]}


def stages_table(stages: Mapping[str, Any]) -> str:
    rows = list(figures(stages))
    lines = [f"| stage | {' | '.join(rows[0][1])} |", "|---|" + "---:|" * len(rows[0][1])]
    for name, own in rows:
        lines.append(f"| {name} | " + " | ".join(f"{value:,.1f}" for value in own.values()) + " |")
    return "\n".join(lines)


def growth_table(first: Mapping[str, Any], grown: Mapping[str, Any], times: float) -> str:
    """Each figure at both sizes, the exponent of its growth, and at `times` the first size on a straight line."""
    kinds = ("minutes", "CPU minutes", "peak anonymous memory, MB", "disk, MB")
    lines = [f"| stage | {' | '.join(f'{kind} | exponent | whole' for kind in kinds)} |", "|---|" + "---:|" * 12]
    for (name, own), (_, other) in zip(figures(first), figures(grown), strict=True):
        cells = []
        for kind in kinds:
            few, many = own[kind], other[kind]
            exponent = f"{math.log(many / few, GROWTH):.2f}" if few > 0 and many > 0 else ""
            whole = few + (many - few) / (GROWTH - 1) * (times - 1)
            cells += [f"{few:,.2f} -> {many:,.2f}", exponent, f"{whole:,.0f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def thresholds_table(model: Path) -> str:
    """Acceptance threshold of every semantic type and the level that it comes from."""
    from umls_reranker.calibration.thresholds import load_thresholds
    from umls_reranker.core.files import read_json

    # The first model is for mentions with all inputs.
    table = next(iter(load_thresholds(read_json(model / "thresholds.json")).values()))
    lines = ["| type | gold pairs | accept | from | low | from |", "|---|---:|---:|---|---:|---|"]
    for kind in sorted(kind["id"] for kind in table.hierarchy.to_dict()["types"]):
        row = table.for_type(kind)
        support = table.rows[kind].support_positives if kind in table.rows else 0
        levels = [level if level != kind else "own" for level in (row.accept_level, row.low_level)]
        lines.append(f"| {kind} | {support:,} | {row.accept:.3f} | {levels[0]} | {row.low:.3f} | {levels[1]} |")
    return "\n".join(lines)


def needs(rehearsal: Rehearsal) -> str:
    """What a rehearsal will write and take, by arithmetic."""
    names = DISTINCT_NAMES / 100 * rehearsal.rows
    keys = rehearsal.overrides()
    clusters, probed = (int(re.search(r"\d+", keys[key])[0]) for key in ("index_factory", "index_parameters"))
    # Training and test mentions when mining, all that is held out for candidates: the test mentions twice.
    searched = 1.2 * DISTINCT_STRINGS / 100 * rehearsal.mentions
    searching = searched * (names * probed / clusters * SCAN + REFINEMENT) / 2
    products = 2 * 768 * clusters * (names + 10 * max(262_144, 64 * clusters))
    parts = {"rows": rehearsal.rows, "names": names, "mentions": rehearsal.mentions}
    size = sum(BYTES[name] * number for name, number in parts.items())
    free = shutil.disk_usage(rehearsal.work if rehearsal.work.exists() else Path.cwd()).free
    return (
        f"{rehearsal.rows:,} rows of MRCONSO, about {names:,.0f} distinct names, {rehearsal.mentions:,} mentions in "
        f"{rehearsal.documents:,} documents; about {size / 1e9:.1f} GB on disk ({free / 1e9:.1f} GB are free). On two "
        f"idle cores clustering and filling the index take about {products / CORE_FLOPS / 2 / 60:.0f} minutes, "
        f"searching {searching / 60:.0f}; the other stages are not estimated"
    )


def on_one_a100(rehearsal: Rehearsal) -> str:
    """What SapBERT-base adds on one A100, by arithmetic: operations and hours."""
    forward = 2 * WEIGHTS
    names, mentions = DISTINCT_NAMES / 100 * rehearsal.rows, rehearsal.mentions
    work = {
        "encoding all names": names * NAME_TOKENS * forward,
        "training, 3 epochs of ten pairs per training mention": 3 * 0.6 * mentions * 10 * PAIR_TOKENS * 3 * forward,
        "scoring 32 candidates of all held-out mentions": 0.4 * mentions * 32 * PAIR_TOKENS * forward,
    }
    head = f"| SapBERT-base on one A100, {SHARE:.0%} of its peak | PFLOP | hours |\n|---|---:|---:|\n"
    lines = [f"| {name} | {f / 1e15:.1f} | {f / A100_FLOPS / SHARE / 3600:.2f} |" for name, f in work.items()]
    return head + "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder for all output")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full size")
    parser.add_argument("--grow", choices=("names", "mentions"), help="also run with ten times as many of these")
    parser.add_argument("--steps", type=int, default=400, help="optimizer steps of training")
    parser.add_argument("--dry_run", action="store_true", help="print the requirements and stop")
    options = parser.parse_args()
    rehearsals = [Rehearsal(options, grow) for grow in dict.fromkeys((None, options.grow))]
    print("\n".join(map(needs, rehearsals)), file=sys.stderr)
    if options.dry_run:
        return
    stages = [rehearsal.go() for rehearsal in rehearsals]
    if options.grow:
        first = rehearsals[0]
        whole = {"names": ROWS / first.rows, "mentions": MENTIONS / first.mentions}[options.grow]
        print(growth_table(*stages, whole))
        return
    (rehearsal,) = rehearsals
    print(f"{stages_table(*stages)}\n\n{on_one_a100(rehearsal)}\n\n{thresholds_table(rehearsal.run / 'model')}")


if __name__ == "__main__":
    main()
