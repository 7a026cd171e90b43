"""Content of the demo page, as HTML with escaped text, and the actions of its buttons."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..core.errors import UserError
from ..core.files import read_json, shipped
from ..core.lines import of_characters
from ..core.recipe import load_recipe
from ..core.stages import RunFolder
from ..data.candidate_lists import RetrievedList
from ..data.corpus import text_around
from ..data.cuis import normalize_cui
from ..data.semantic_types import TypeHierarchy
from ..evaluation.page import TEMPLATES
from ..hub.model_folder import CALIBRATOR, RECIPE
from ..serving.linker import ConceptLinker
from ..serving.monitoring.figures import Top
from ..serving.prediction_log import LoggedMention, concept_of
from ..serving.reranker import UMLSReranker
from .corrections import add_feedback
from .explanations import describe, explain, parse_candidates
from .review_queue import judge_of, select_for_review, write_queue
from .review_sheet import ReviewSheet

# Numbers of mentions of a run's dev split that are ranked, and that are selected for review.
RANKED, PICKED = 100, 30

_environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)


@dataclass
class Demo:
    """Models and what they need to answer.

    Attributes:
        models: name -> reranker; the first is reviewed, a second one is compared with it.
        linker: finds candidates; None: users paste them.
        run: run folder of the first model.
        device: as for `UMLSReranker.from_pretrained`.
    """

    models: dict[str, UMLSReranker]
    linker: ConceptLinker | None = None
    run: Path | None = None
    device: str | None = None

    @classmethod
    def open(
        cls, model: str, index: str | Path | None = None, against: str | None = None, device: str | None = None
    ) -> Demo:
        """Load everything.

        Args:
            model: a run folder, whose model and (where there is one) index are taken; a model folder; or a Hub id,
                ``ID@REVISION``.
            index: as for `ConceptLinker.from_pretrained`.
            against: another version, given like `model`.

        Raises:
            UserError: as `UMLSReranker.from_pretrained` and `ConceptLinker.from_pretrained`.
        """
        run = Path(model) if (Path(model) / "model").is_dir() else None
        name, revision = located(model)
        if index is None and run and (run / "index").is_dir():
            index = run
        linker = ConceptLinker.from_pretrained(name, index, revision, device=device) if index else None
        loaded = linker.reranker if linker else UMLSReranker.from_pretrained(name, revision, device=device)
        models = {model: loaded}
        if against:
            models[against] = UMLSReranker.from_pretrained(*located(against), device=device)
        return cls(models, linker, run, device)

    @property
    def reranker(self) -> UMLSReranker:
        """The first model."""
        return next(iter(self.models.values()))

    def answer(self, text: str, mention: str, start: int | None, types: Sequence[str], pasted: str) -> str:
        """HTML with the answer of every model for a mention.

        Args:
            text: around the mention; may be empty.
            start: offset of the selection; if the mention is not there, its nearest occurrence is used.
            types: ids of its semantic types.
            pasted: candidates for `parse_candidates`; ignored if there is an index.

        Raises:
            ValueError: the mention is blank, or not in the text.
        """
        of_characters(text)
        if not mention.strip():
            raise ValueError("select a mention in the text, or type one")
        if start is None or not text.startswith(mention, start):
            # Browsers count some characters twice.
            starts = (match.start() for match in re.finditer(re.escape(mention), text))
            start = min(starts, key=lambda at: abs(at - (start or 0)), default=-1)
        if text and start < 0:
            raise ValueError(f"the text does not contain {mention!r}")
        end = start + len(mention)
        candidates: list[dict[str, Any]]
        if self.linker:
            queries = self.linker.read([mention], [text or None], [start if text else None])
            (asked,), (left,), (right,) = queries
            (candidates,) = self.linker.candidates(queries)
        else:
            chars = load_recipe(self.reranker.folder / RECIPE).mentions.context_chars
            asked, (left, right) = mention, text_around(text, start, end, chars) if text else ("", "")
            candidates = parse_candidates(pasted)
        explanations = [
            explain(model, name, asked, candidates, types, left, right) for name, model in self.models.items()
        ]
        return _html("answers", text[:start] if text else "", mention, text[end:] if text else "", explanations)


def located(model: str) -> tuple[str, str | None]:
    """Id or folder, and revision, of a model as users write it."""
    if (Path(model) / "model").is_dir():
        return str(Path(model) / "model"), None
    if Path(model).exists() or "@" not in model:
        return model, None
    name, revision = model.split("@", 1)
    return name, revision


def make_queue(linker: ConceptLinker, run: Path, path: Path) -> None:
    """Write a review queue from a run's dev split; its corrections may be used in calibration.

    Raises:
        UserError: the model has no reference yet.
    """
    mentions = RunFolder(run).splits("mentions")["dev"]
    mentions = mentions.select(range(0, len(mentions), -(-len(mentions) // RANKED)))
    columns = mentions.with_format("arrow")[:].to_pydict()
    queries = linker.read(columns["mention"], lefts=columns["left"], rights=columns["right"])
    lists = linker.candidates(queries)
    types = columns["semantic_types"]
    ranked = linker.reranker.rerank_batch(
        queries.texts, lists, types, queries.lefts, queries.rights, desc="ranking a queue"
    )
    logged = []
    for row, items, answer in zip(mentions, lists, ranked, strict=True):
        best = answer[0] if answer else None
        top = Top(best.score, best.margin, best.tier, best.accepted) if best else None
        content = {"entity": row["mention"], "left": row["left"], "right": row["right"], "candidates": items}
        content |= {"entity_type": row["semantic_types"], "doc_id": row["doc_id"], "mention_id": row["mention_id"]}
        content["index_key"] = items.index_key
        content["ranked"] = [item.as_row() for item in answer]
        logged.append(LoggedMention(content, row["semantic_types"], top))
    write_queue(select_for_review(logged, PICKED, judge_of(linker.reranker.folder)), path)


def review_html(sheet: ReviewSheet, hierarchy: TypeHierarchy, position: int | None) -> str:
    """The mention under review with candidates and buttons, or a message that all are done.

    Args:
        hierarchy: names the semantic types.
        position: of the mention in the queue; another page may move the sheet's own meanwhile.
    """
    if position is None:
        return _html("review", sheet, None, None, [], [])
    logged = sheet.mentions[position]
    about = {concept_of(item): describe(item, hierarchy) for item in logged.row["candidates"]}
    rows = [about.get(concept_of(item), []) for item in logged.row["ranked"]]
    return _html("review", sheet, position, logged.row, hierarchy.names(logged.types), rows)


def act(sheet: ReviewSheet, position: object, choice: str) -> None:
    """Perform the action of a button; one that is not shown does nothing.

    Args:
        position: of the mention shown with the button.
        choice: ``none``, ``skip``, ``undo``, or the number of a ranked candidate, from 0.
    """
    current = sheet.position
    if choice == "undo":
        sheet.undo()
    elif current is not None and current == position:
        concepts: dict[str, str | None] = {"none": None}
        for number, item in enumerate(sheet.mentions[current].row["ranked"]):
            concepts[str(number)] = concept_of(item)
        if choice == "skip":
            sheet.skip(current)
        elif choice in concepts:
            sheet.choose(current, concepts[choice])


def recalibrate(demo: Demo, run: Path, sheet: ReviewSheet) -> str:
    """Fit calibrator and thresholds of the run again with the choices so far; the new run is NAME-reviewed.

    Returns:
        HTML of the figures before and after.

    Raises:
        UserError: there are no choices, or a script fails.
    """
    # Reviewers go on meanwhile.
    reviewed = [(sheet.mentions[position].row, choice) for position, choice in dict(sheet.chosen).items()]
    if not reviewed:
        raise UserError("nothing is reviewed yet; choose for some mentions first")
    run = run.resolve()
    corrections, name = sheet.reviewed.with_suffix(".corrections"), f"{run.name}-reviewed"
    # Made anew: a choice may have been undone since the last time.
    shutil.rmtree(corrections, ignore_errors=True)
    add_feedback(corrections, [sheet.reviewed])
    words = [demo.reranker.folder / RECIPE, "--output_dir", run.parent, "--run_name", run.name, "--name", name]
    words += ["--calibration_feedback", corrections.resolve(), *(["--device", demo.device] if demo.device else [])]
    command = [sys.executable, shipped("scripts") / "recalibrate.py", *words]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        raise UserError(done.stderr.strip().rpartition("\n")[2].removeprefix("error: ") or "recalibration was killed")
    folder = run.parent / name / "model"
    after = UMLSReranker.from_pretrained(folder, device=demo.device)
    used = read_json(folder / CALIBRATOR)["fitted_on"]["corrections"]
    left_out = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in used["left_out"].items() if count)
    sentence = f"{used['used']} corrections took part, {used['certifying']} of them in certificates (drawn at random)"
    sentence += f"; left out: {left_out}. " if left_out else ". "
    sentence += f"The new model is {folder}. It was fitted to these mentions: umls-reranker evaluate measures it."
    columns = [_figures(reranker, reviewed) for reranker in (demo.reranker, after)]
    return _html("comparison", [(key, *(column[key] for column in columns)) for key in columns[0]], sentence)


def _figures(reranker: UMLSReranker, reviewed: Sequence[tuple[Mapping[str, Any], str | None]]) -> dict[str, str]:
    """A model's figures on reviewed mentions and their choices, and its default thresholds."""
    rows, choices = zip(*reviewed, strict=True)
    types = [row.get("entity_type") for row in rows]
    lefts, rights = ([row.get(side) or "" for row in rows] for side in ("left", "right"))
    texts = [row["entity"] for row in rows]
    candidates = [RetrievedList(row["candidates"], row.get("index_key", "")) for row in rows]
    ranked = reranker.rerank_batch(texts, candidates, types, lefts, rights)
    tops = [(items[0], choice) for items, choice in zip(ranked, choices, strict=True) if items]
    right = [choice is not None and concept_of(top.as_row()) == normalize_cui(choice) for top, choice in tops]
    answered = [top.accepted for top, _ in tops]
    mean = sum(top.score for top, _ in tops) / max(len(tops), 1)
    default = reranker.thresholds.for_type()
    return {
        "reviewed mentions": f"{len(rows):,}",
        "first candidate is right": f"{sum(right):,}",
        "mean probability of the first candidate": f"{mean:.3f}",
        "answered": f"{sum(answered):,}",
        "right of answered": f"{sum(a and b for a, b in zip(answered, right, strict=True)):,}",
        "answered from (probability, any type)": f"{default.accept:.3f}",
        "tier high from (any type)": "not certified" if default.high is None else f"{default.high:.3f}",
    }


def _html(macro: str, *values: Any) -> str:
    return str(getattr(_environment.get_template("demo.html").module, macro)(*values))
