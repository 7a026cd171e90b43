"""The demo's button that calibrates a model again with the choices so far, and its figures before and after."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from ..calibration.certificate import note_on_certificate
from ..core.errors import UserError
from ..core.files import read_json, shipped
from ..data.candidate_lists import RetrievedList
from ..data.cuis import normalize_cui
from ..hub.model_folder import CALIBRATOR, RECIPE
from ..serving.prediction_log import concept_of
from ..serving.reranker import UMLSReranker
from .corrections import add_feedback
from .demo import Demo, html_of
from .review_sheet import ReviewSheet


def recalibrate(demo: Demo, sheet: ReviewSheet) -> str:
    """Calibrate the first model again with the choices so far: its run as NAME-reviewed, or on its lists.

    On lists each call makes a new version of the last, NAME-reviewed, NAME-reviewed-2 and so on, because documents of
    one certificate cannot renew it.

    Returns:
        HTML of the figures before and after.

    Raises:
        UserError: there are no choices, or a script fails.
    """
    # Reviewers may continue meanwhile.
    reviewed = [(sheet.mentions[position].row, choice) for position, choice in dict(sheet.chosen).items()]
    if not reviewed:
        raise UserError("nothing has been reviewed yet; review some mentions first")
    corrections = sheet.reviewed.with_suffix(".corrections")
    # Written anew: a choice may have been undone since the last time.
    shutil.rmtree(corrections, ignore_errors=True)
    add_feedback(corrections, [sheet.reviewed])
    make = _on_lists if demo.lists else _of_run
    script, words, folder = make(demo)
    words += ["--calibration_feedback", corrections.resolve(), *(["--device", demo.device] if demo.device else [])]
    command = [sys.executable, shipped("scripts") / script, *words]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        raise UserError(done.stderr.strip().rpartition("\n")[2].removeprefix("error: ") or "recalibration was killed")
    after = UMLSReranker.from_pretrained(folder, device=demo.device)
    fitted_on = read_json(folder / CALIBRATOR)["fitted_on"]
    columns = [_figures(reranker, reviewed) for reranker in (demo.reranker, after)]
    rows = [(key, *(column[key] for column in columns)) for key in columns[0]]
    measure = (
        "only other labelled lists can show whether it is better"
        if demo.lists
        else "umls-reranker evaluate measures it"
    )
    sentences = [
        *_on_corrections(fitted_on, after),
        f"The new model is {folder}. It was fitted on these mentions: {measure}.",
    ]
    return html_of("comparison", rows, " ".join(sentences))


def _of_run(demo: Demo) -> tuple[str, list[Any], Path]:
    """The script, its words, and the folder of the new model."""
    assert demo.run is not None  # or the page has no button
    run = demo.run.resolve()
    name = f"{run.name}-reviewed"
    words = [demo.reranker.folder / RECIPE, "--output_dir", run.parent, "--run_name", run.name, "--name", name]
    return "recalibrate.py", words, run.parent / name / "model"


def _on_lists(demo: Demo) -> tuple[str, list[Any], Path]:
    """Like `_of_run`; versions of a model from the Hub are in the working folder."""
    assert demo.lists is not None
    source, name = demo.reranker.folder, next(iter(demo.models))
    base = source.resolve() if Path(name).is_dir() else Path(name.split("@")[0]).name
    base = Path(base).absolute()
    state = read_json(source / CALIBRATOR)
    former = state["certificates"] if "lists" in state["fitted_on"] else []
    for number in count(1):
        folder = base.with_name(f"{base.name}-reviewed{f'-{number}' if number > 1 else ''}")
        if not folder.exists():
            break
        calibrator = folder / CALIBRATOR
        if calibrator.is_file() and read_json(calibrator)["certificates"][: len(former)] == former:
            source = folder
    return "calibrate.py", [source, "--lists", demo.lists, "--output", folder], folder


def _on_corrections(fitted_on: Mapping[str, Any], reranker: UMLSReranker) -> list[str]:
    """Sentences about the use of the corrections."""
    used = fitted_on["corrections"]
    left_out = ", ".join(
        f"{number} {reason.replace('_', ' ')}" for reason, number in used["left_out"].items() if number
    )
    sentence = f"{used['used']} corrections were used, {used['certifying']} of them for certificates (drawn at random)"
    sentences = [f"{sentence}; left out: {left_out}." if left_out else f"{sentence}."]
    note = note_on_certificate(fitted_on["certified_by"], is_certified=reranker.thresholds.is_certified)
    return [*sentences, f"{note[0].upper()}{note[1:]}."] if note else sentences


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
        "top candidate correct": f"{sum(right):,}",
        "mean probability of the top candidate": f"{mean:.3f}",
        "answered": f"{sum(answered):,}",
        "accepted and correct": f"{sum(a and b for a, b in zip(answered, right, strict=True)):,}",
        "acceptance threshold (any type)": f"{default.accept:.3f}",
        "high-tier threshold (any type)": "not certified" if default.high is None else f"{default.high:.3f}",
    }
