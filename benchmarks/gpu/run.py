#!/usr/bin/env python
"""Measure training and scoring on one GPU in under ten minutes, offline; writes Markdown.

    python run.py                                    # in the unpacked archive of pack.py
    python run.py --device cpu --quick               # in small, on a processor

It needs torch, transformers, accelerate, numpy and safetensors. What else is compared is left out,
and named, where sentence-transformers is not installed.
"""

import argparse
import gc
import importlib.util
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path
from types import SimpleNamespace

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "UMLS_RERANKER_PROGRESS": "0",
}
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

import numpy as np
import torch
import transformers
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    TrainerCallback,
)
from transformers import BertForSequenceClassification as Bert

from umls_reranker.core.devices import resolve_device, resolve_dtype
from umls_reranker.models.cross_encoder import PairScorer
from umls_reranker.models.pair_template import PairTemplate
from umls_reranker.models.pairs import PairEncoder
from umls_reranker.models.pretrained import load_pretrained
from umls_reranker.training.pair_dataset import TokenizedPairs
from umls_reranker.training.trainer import RerankerTrainer
from umls_reranker.training.training_arguments import OneGpuArguments

transformers.utils.logging.disable_progress_bar()
# Sections that would start later than this, in seconds, are skipped.
LAST_START = 500
TEMPLATE = PairTemplate(48)
# The reference training: the training split of MedMentions, ten pairs a mention, three epochs.
REFERENCE_PAIRS = 3 * 2_100_000
# Of sentence-transformers.
THEIR_BATCH = 64
FULL = SimpleNamespace(
    rows=None,
    matrix=8_192,
    batch=64,
    steps=500,
    warm_up=50,
    batches=(1, 32, 64, 256, 1_024),
    batch_steps=30,
    bert={},
    pairs=131_072,
    budgets=(16_384, 65_536, 262_144),
    scored_batches=(1, 32, 64),
    repeats=100,
)
QUICK = SimpleNamespace(
    rows=400,
    matrix=256,
    batch=8,
    steps=10,
    warm_up=2,
    batches=(1, 4),
    batch_steps=3,
    bert={
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 2,
        "intermediate_size": 128,
    },
    pairs=500,
    budgets=(512, 2_048),
    scored_batches=(1, 32, 64),
    repeats=3,
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, to check that everything runs"
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(__file__).parent / "data",
        help="folder of model and pairs",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("gpu.md"),
        help="Markdown file to write (default: gpu.md)",
    )
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=list(PARTS), help="sections to run"
    )
    options = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(options, Path(scratch))
        options.output.write_text("", encoding="utf-8")
        failed = False

        def write(text: str) -> None:
            print(text, flush=True)
            with options.output.open("a", encoding="utf-8") as output:
                output.write(text + "\n")

        write(f"# GPU benchmark\n\n{bench.machine()}\n")
        for title in options.only:
            start = time.perf_counter()
            write(f"## {title}\n")
            if start - began > LAST_START:
                write("Not measured: out of time.\n")
                continue
            try:
                for line in PARTS[title](bench):
                    write(line)
            except Exception as error:
                traceback.print_exc()
                write(f"\n**Failed:** {type(error).__name__}: {str(error).splitlines()[:1]}")
                failed = True
            write(f"\n{time.perf_counter() - start:.0f} s.\n")
        write(f"In total: {time.perf_counter() - began:.0f} s.")
    sys.exit(failed)


class Bench:
    """What all parts share: device, sizes, pairs, and what earlier parts leave for later ones."""

    def __init__(self, options: argparse.Namespace, scratch: Path) -> None:
        self.options = options
        self.scratch = scratch
        self.device = resolve_device(options.device)
        self.on_gpu = self.device.type == "cuda"
        self.sizes = QUICK if options.quick else FULL
        # As auto chooses; sentence-transformers uses it too.
        self.usual = resolve_dtype("auto", self.device)
        precisions = ["float32", self.usual, "float16"] if self.on_gpu else ["float32", self.usual]
        self.precisions = list(dict.fromkeys(precisions))
        self.tokenizer = load_pretrained(AutoTokenizer, options.data / "model")
        columns = json.loads((options.data / "pairs.json").read_text(encoding="utf-8"))
        self.columns = {name: column[: self.sizes.rows] for name, column in columns.items()}
        self.pairs = Pairs(self.columns, self.tokenizer)
        self.peak = dict.fromkeys(self.precisions, float("nan"))

    def machine(self) -> str:
        place = (
            torch.cuda.get_device_name(self.device) if self.on_gpu else f"{platform.machine()} CPU"
        )
        versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
        if self.on_gpu:
            versions += f", CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        pairs = f"{len(self.pairs):,} pairs of {self.pairs.pairs.lengths.mean():.1f} tokens"
        return f"{date.today()}: {place}, Python {platform.python_version()}, {versions}; {pairs}."

    def wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()

    def seconds(self, run: Callable[[], object], rounds: int = 3) -> float:
        """Of the best round, after one that is not counted."""
        run()
        best = float("inf")
        for _ in range(rounds):
            self.wait()
            began = time.perf_counter()
            run()
            self.wait()
            best = min(best, time.perf_counter() - began)
        return best

    def memory(self) -> str:
        """GB at the highest since the last call."""
        if not self.on_gpu:
            return "-"
        gc.collect()
        peak = torch.cuda.max_memory_allocated()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return f"{peak / 1e9:.2f}"

    def minilm(self) -> torch.nn.Module:
        """The packed encoder in float32, with a fresh head."""
        torch.manual_seed(13)
        return load_pretrained(
            AutoModelForSequenceClassification,
            self.options.data / "model",
            num_labels=1,
            dtype="float32",
        )

    def bert_base(self) -> torch.nn.Module:
        """A BERT of base size, with random weights."""
        torch.manual_seed(13)
        return Bert(BertConfig(vocab_size=len(self.tokenizer), num_labels=1, **self.sizes.bert))

    def folder(self, name: str) -> Path:
        """A model folder for scoring: `bert-base`, or `minilm` as the float32 training left it."""
        folder = self.scratch / name
        if not folder.exists():
            model = self.bert_base() if name == "bert-base" else self.minilm()
            model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        return folder

    def cross_encoder(self, name: str, precision: str, **options: object) -> PairScorer:
        return PairScorer.from_folder(
            self.folder(name), TEMPLATE, str(self.device), precision, **options
        )

    def trained(
        self, model: torch.nn.Module, precision: str, steps: int, batch: int, warm_up: int
    ) -> "Watch":
        """Train a model, and what was seen of it."""
        arguments = OneGpuArguments(
            output_dir=str(self.scratch / "training"),
            use_cpu=not self.on_gpu,
            bf16=precision == "bfloat16",
            fp16=precision == "float16",
            per_device_train_batch_size=batch,
            max_steps=steps,
            learning_rate=1e-4 if model.config.hidden_size < 768 else 2e-5,
            warmup_steps=0.06,
            logging_steps=max(1, steps // 10),
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=13,
        )
        trainer = RerankerTrainer(model, arguments, self.pairs, processing_class=self.tokenizer)
        trainer.remove_callback(transformers.PrinterCallback)
        watch = Watch(self, trainer, warm_up)
        trainer.add_callback(watch)
        trainer.train()
        return watch


class Pairs(TokenizedPairs):
    """Pairs, each a list of its own."""

    def __init__(
        self, columns: dict[str, list], tokenizer: transformers.PreTrainedTokenizerBase
    ) -> None:
        encoder = PairEncoder(tokenizer.backend_tokenizer, TEMPLATE)
        self.pairs, _ = encoder.encode(columns["mention"], columns["name"])
        self.offsets = np.arange(len(self.pairs) + 1)
        self.labels = np.array(columns["label"], np.float32)
        weights = np.array(columns["weight"], np.float32)
        self.weights = weights / weights.mean()
        self.teacher = np.full(len(weights), np.nan, np.float32)


class Watch(TrainerCallback):
    """Seconds of the steps after the first ones, and the steps that a scaled loss skipped."""

    def __init__(self, bench: Bench, trainer: transformers.Trainer, warm_up: int) -> None:
        self.bench = bench
        self.trainer = trainer
        self.warm_up = warm_up
        self.skipped = 0

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self.skipped += self.trainer.accelerator.optimizer_step_was_skipped
        if state.global_step == self.warm_up:
            self.bench.wait()
            self.began = time.perf_counter()
        elif state.global_step == args.max_steps:
            self.bench.wait()
            steps = args.max_steps - self.warm_up
            self.pairs_per_second = (
                steps * args.train_batch_size / (time.perf_counter() - self.began)
            )


def row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def header(*titles: str) -> str:
    return f"{row(*titles)}\n|:---|{'---:|' * (len(titles) - 1)}"


def matrix_weights(model: torch.nn.Module) -> int:
    """Weights of the layers' matrix products."""
    return sum(
        w.numel() for name, w in model.named_parameters() if ".layer." in name and w.ndim == 2
    )


def rate(
    bench: Bench, model: torch.nn.Module, precision: str, tokens_per_second: float, passes: int
) -> list[str]:
    """TFLOP/s, and their share of the measured peak, without padding.

    `passes` is 1 forward, and 3 with backward.
    """
    tflops = 2 * passes * matrix_weights(model) * tokens_per_second / 1e12
    return [f"{tflops:.3g}", f"{tflops / bench.peak[precision]:.1%}"]


def peaks(bench: Bench) -> Iterator[str]:
    size = bench.sizes.matrix
    yield header("product of two square matrices", "size", "TFLOP/s")
    for precision in bench.precisions:
        left, right = torch.randn(
            2, size, size, device=bench.device, dtype=getattr(torch, precision)
        ).unbind()
        bench.peak[precision] = (
            2 * size**3 / bench.seconds(partial(torch.mm, left, right), 10) / 1e12
        )
        yield row(precision, f"{size:,}", f"{bench.peak[precision]:.3g}")


def training(bench: Bench) -> Iterator[str]:
    """MiniLM on real pairs in each precision; the one of float32 is what is scored later."""
    sizes = bench.sizes
    titles = (
        "first loss",
        "last loss",
        "difference, max",
        "on average",
        "skipped steps",
        "pairs/s",
    )
    yield header(f"MiniLM, batches of {sizes.batch}", *titles)
    reference = None
    for precision in bench.precisions:
        model = bench.minilm()
        watch = bench.trained(model, precision, sizes.steps, sizes.batch, sizes.warm_up)
        logged = np.array(
            [entry["loss"] for entry in watch.trainer.state.log_history if "loss" in entry]
        )
        reference = logged if reference is None else reference
        apart = np.abs(logged - reference)
        figures = [f"{x:.4f}" for x in (logged[0], logged[-1], apart.max(), apart.mean())]
        yield row(precision, *figures, watch.skipped, f"{watch.pairs_per_second:,.0f}")
        if precision == "float32":
            model.save_pretrained(bench.scratch / "minilm")
            bench.tokenizer.save_pretrained(bench.scratch / "minilm")
    yield (
        f"\nA loss is the mean of {sizes.steps // 10} steps; "
        "it differs from that of float32 at the same steps."
    )
    yield "" if bench.on_gpu else "\nNot measured: float16, which trains on a GPU alone."


def throughput(bench: Bench) -> Iterator[str]:
    sizes = bench.sizes
    tokens = bench.pairs.pairs.lengths.mean()
    yield header(
        "training",
        "precision",
        "batch",
        "pairs/s",
        "hours for 2.1 million pairs x 3",
        "TFLOP/s",
        "share of peak",
        "peak memory, GB",
    )
    for name, make in {"MiniLM": bench.minilm, "BERT-base": bench.bert_base}.items():
        for precision in bench.precisions:
            for batch in sizes.batches:
                bench.memory()
                model = make()
                watch = bench.trained(
                    model, precision, sizes.batch_steps, batch, sizes.batch_steps // 3
                )
                figures = rate(bench, model, precision, watch.pairs_per_second * tokens, passes=3)
                yield row(
                    name,
                    precision,
                    batch,
                    f"{watch.pairs_per_second:,.0f}",
                    hours(watch.pairs_per_second),
                    *figures,
                    bench.memory(),
                )
                del watch, model
    if not all(map(importlib.util.find_spec, ("sentence_transformers", "datasets"))):
        yield (
            "\nNot measured: training by sentence-transformers, "
            "which needs it and datasets installed."
        )
        return
    speed = their_training(bench)
    figures = rate(bench, bench.minilm(), bench.usual, speed * tokens, passes=3)
    yield row(
        "MiniLM, sentence-transformers",
        bench.usual,
        THEIR_BATCH,
        f"{speed:,.0f}",
        hours(speed),
        *figures,
        "",
    )


def hours(pairs_per_second: float) -> str:
    """How long the reference training takes."""
    return f"{REFERENCE_PAIRS / pairs_per_second / 3_600:.1f}"


def their_training(bench: Bench) -> float:
    from datasets import Dataset
    from sentence_transformers.cross_encoder import (
        CrossEncoder,
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
    )
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    sizes = bench.sizes
    options = {"max_length": TEMPLATE.max_length, "device": str(bench.device)}
    model = CrossEncoder(str(bench.folder("minilm")), num_labels=1, **options)
    arguments = CrossEncoderTrainingArguments(
        output_dir=str(bench.scratch / "theirs"),
        use_cpu=not bench.on_gpu,
        bf16=bench.usual == "bfloat16",
        per_device_train_batch_size=THEIR_BATCH,
        max_steps=sizes.batch_steps,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    texts = Dataset.from_dict({name: bench.columns[name] for name in ("mention", "name", "label")})
    trainer = CrossEncoderTrainer(
        model, arguments, train_dataset=texts, loss=BinaryCrossEntropyLoss(model)
    )
    watch = Watch(bench, trainer, sizes.batch_steps // 3)
    trainer.add_callback(watch)
    trainer.train()
    return watch.pairs_per_second


def scored_pairs(bench: Bench) -> tuple[list[str], list[str]]:
    """Distinct pairs of mention and name, drawn at random."""
    mentions = list(dict.fromkeys(bench.columns["mention"]))
    names = list(dict.fromkeys(bench.columns["name"]))
    count = len(mentions) * len(names)
    drawn = np.random.default_rng(0).choice(count, min(bench.sizes.pairs, count), replace=False)
    left, right = np.divmod(drawn, len(names))
    return [mentions[i] for i in left], [names[j] for j in right]


def scoring(bench: Bench) -> Iterator[str]:
    texts = scored_pairs(bench)

    def score(cross_encoder: PairScorer, rounds: int = 2) -> float:
        def run() -> None:
            cross_encoder.encoder = PairEncoder(
                bench.tokenizer.backend_tokenizer, TEMPLATE
            )  # nothing is cached yet
            cross_encoder.score(*texts)

        return len(texts[0]) / bench.seconds(run, rounds)

    encoded, _ = PairEncoder(bench.tokenizer.backend_tokenizer, TEMPLATE).encode(*texts)
    tokens = encoded.lengths.mean()
    alone = bench.seconds(
        lambda: (
            PairEncoder(bench.tokenizer.backend_tokenizer, TEMPLATE).encode(*texts)[0].distinct()
        ),
        1,
    )
    yield header(
        "scoring, tokenizing included",
        "precision",
        "pairs/s",
        "TFLOP/s",
        "share of peak",
        "peak memory, GB",
    )
    for name in ("minilm", "bert-base"):
        model = bench.minilm() if name == "minilm" else bench.bert_base()
        for precision in bench.precisions:
            bench.memory()
            cross_encoder = bench.cross_encoder(name, precision)
            speed = score(cross_encoder, 1 if precision == "float32" else 2)
            figures = rate(bench, model, precision, speed * tokens, passes=1)
            yield row(name, precision, f"{speed:,.0f}", *figures, bench.memory())
            del cross_encoder
    half = bench.precisions[-1]
    for budget in bench.sizes.budgets:
        bench.memory()
        speed = score(bench.cross_encoder("bert-base", half, token_budget=budget))
        yield row(
            f"bert-base, {budget:,} tokens at once", half, f"{speed:,.0f}", "", "", bench.memory()
        )
    comparable = importlib.util.find_spec("sentence_transformers")
    for name in ("minilm", "bert-base") if comparable else ():
        model = bench.minilm() if name == "minilm" else bench.bert_base()
        speed = len(texts[0]) / bench.seconds(their_scoring(bench, name, texts), 1)
        figures = rate(bench, model, bench.usual, speed * tokens, passes=1)
        yield row(f"{name}, sentence-transformers", bench.usual, f"{speed:,.0f}", *figures, "")
    names = len(set(texts[1]))
    yield f"\n{len(texts[0]):,} distinct pairs of {tokens:.1f} tokens, {names:,} names; "
    yield f"tokenizing alone: {len(texts[0]) / alone:,.0f} pairs/s."
    yield (
        ""
        if comparable
        else "\nNot measured: scoring by sentence-transformers, which is not installed."
    )


def their_scoring(
    bench: Bench, name: str, texts: tuple[list[str], list[str]]
) -> Callable[[], object]:
    from sentence_transformers import CrossEncoder

    options = {"device": str(bench.device), "model_kwargs": {"dtype": bench.usual}}
    model = CrossEncoder(str(bench.folder(name)), max_length=TEMPLATE.max_length, **options)
    pairs = list(zip(*texts, strict=True))
    return partial(model.predict, pairs, batch_size=1_024, show_progress_bar=False)


def agreement(bench: Bench) -> Iterator[str]:
    """Logits of the trained MiniLM over the lists that were mined."""
    texts = [bench.columns[name][:10_000] for name in ("mention", "name")]
    reference = PairScorer.from_folder(bench.folder("minilm"), TEMPLATE, "cpu", "float32").score(
        *texts
    )
    starts = np.flatnonzero(np.diff(bench.columns["mention_id"][:10_000], prepend=-1))

    def top(logits: np.ndarray) -> np.ndarray:
        return np.array([of_list.argmax() for of_list in np.split(logits, starts[1:])])

    yield header(
        "logits compared with float32 on the CPU", "on average", "at most", "same top candidate"
    )
    for precision in bench.precisions:
        logits = bench.cross_encoder("minilm", precision).score(*texts).logits
        apart = np.abs(logits - reference.logits)
        same = (top(logits) == top(reference.logits)).mean()
        yield row(precision, f"{apart.mean():.1e}", f"{apart.max():.1e}", f"{same:.2%}")
    yield f"\nLogits have standard deviation {reference.logits.std():.2f}; {len(starts):,} lists."


def one_mention(bench: Bench) -> Iterator[str]:
    names = list(dict.fromkeys(bench.columns["name"]))[:32]
    texts = ([bench.columns["mention"][0]] * len(names), names)
    yield header(
        "one mention, 32 candidates",
        "precision",
        "ms, median",
        "first call, s",
        "logit difference, max",
    )
    for name in ("minilm", "bert-base"):
        expected = bench.cross_encoder(name, "float32").score(*texts).logits
        for precision in bench.precisions:
            cross_encoder = bench.cross_encoder(name, precision)
            began = time.perf_counter()
            cross_encoder.score(*texts)
            first = time.perf_counter() - began
            taken = []
            for _ in range(bench.sizes.repeats):
                began = time.perf_counter()
                logits = cross_encoder.score(*texts).logits
                taken.append(time.perf_counter() - began)
            apart = np.abs(logits - expected).max()
            yield row(
                name, precision, f"{np.median(taken) * 1e3:.2f}", f"{first:.1f}", f"{apart:.1e}"
            )


def batches(bench: Bench) -> Iterator[str]:
    """Pairs that are scored one batch after the other, as by a caller who has no more at once."""
    texts = scored_pairs(bench)
    yield header("scoring, batch by batch", "precision", "batch", "pairs/s")
    for name in ("minilm", "bert-base"):
        for precision in bench.precisions:
            cross_encoder = bench.cross_encoder(name, precision)
            for batch in bench.sizes.scored_batches:
                # Other pairs in each call, as in use.
                starts = range(0, len(texts[0]) - batch, batch)[: bench.sizes.repeats + 1]
                calls = [[part[start : start + batch] for part in texts] for start in starts]
                cross_encoder.score(*calls[0])
                began = time.perf_counter()
                for call in calls[1:]:
                    cross_encoder.score(*call)
                seconds = time.perf_counter() - began
                speed = batch * (len(calls) - 1) / seconds
                yield row(name, precision, batch, f"{speed:,.0f}")


PARTS: dict[str, Callable[[Bench], Iterator[str]]] = {
    "peak": peaks,
    "training": training,
    "scoring": scoring,
    "agreement": agreement,
    "one_mention": one_mention,
    "batches": batches,
    "throughput": throughput,
}


if __name__ == "__main__":
    main()
