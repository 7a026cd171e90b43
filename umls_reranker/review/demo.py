"""Content of the demo page, as HTML with escaped text, and the actions of its buttons."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..core.errors import UserError
from ..core.lines import of_characters
from ..core.recipe import load_recipe
from ..core.stages import RunFolder
from ..data.corpus import text_around
from ..data.semantic_types import TypeHierarchy
from ..evaluation.page import TEMPLATES
from ..hub.model_folder import RECIPE
from ..serving.linker import ConceptLinker
from ..serving.monitoring.figures import Top
from ..serving.prediction_log import LoggedMention, concept_of
from ..serving.reranker import UMLSReranker
from .explanations import describe, explain
from .questions import Question, example_for, examples_in, parse_candidates
from .review_queue import judge_of, select_for_review, write_queue
from .review_sheet import ReviewSheet

# Numbers of mentions of a run's dev split that are ranked and that are selected for review.
RANKED, PICKED = 100, 30

SENTENCES = [
    Question(
        "Muscle weakness and short stature were noted at birth; seizures began at the age of two.", "short stature"
    ),
    Question("She has had recurrent nosebleeds and easy bruising since childhood.", "nosebleeds"),
    Question("The patient was tired and complained of a cold.", "cold"),
]

_environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)


@dataclass
class Demo:
    """Models, and the index and lists that they use.

    Attributes:
        models: name -> reranker; the first is reviewed, a second is compared with it.
        linker: finds candidates; None: users paste them.
        run: run folder of the first model.
        lists: file of the labelled lists that it was calibrated on.
        device: as for `UMLSReranker.from_pretrained`.
    """

    models: dict[str, UMLSReranker]
    linker: ConceptLinker | None = None
    run: Path | None = None
    lists: Path | None = None
    device: str | None = None

    @classmethod
    def open(
        cls,
        model: str,
        index: str | Path | None = None,
        against: str | None = None,
        device: str | None = None,
        lists: Path | None = None,
    ) -> Demo:
        """Load everything.

        Args:
            model: a run folder, of which the model and, if there is one, the index are used; a model folder; or a Hub
                id, ``ID@REVISION``.
            index: as for `ConceptLinker.from_pretrained`.
            against: another version, in the same form.
            device: as for `UMLSReranker.from_pretrained`.
            lists: file of the labelled lists that the model was calibrated on.

        Raises:
            UserError: a file does not exist; and as for `UMLSReranker.from_pretrained` and
                `ConceptLinker.from_pretrained`.
        """
        run = Path(model) if (Path(model) / "model").is_dir() else None
        if lists is not None and not lists.exists():
            raise UserError(f"{lists} does not exist; give the labelled lists that {model} was calibrated on")
        if lists is not None and run is not None:
            raise UserError(f"{model} is a run folder, which contains its calibration data; remove --lists")
        name, revision = located(model)
        if index is None and run and (run / "index").is_dir():
            index = run
        linker = ConceptLinker.from_pretrained(name, index, revision, device=device) if index else None
        loaded = linker.reranker if linker else UMLSReranker.from_pretrained(name, revision, device=device)
        models = {model: loaded}
        if against:
            models[against] = UMLSReranker.from_pretrained(*located(against), device=device)
        return cls(models, linker, run, lists, device)

    @property
    def reranker(self) -> UMLSReranker:
        """The first model."""
        return next(iter(self.models.values()))

    @property
    def hierarchy(self) -> TypeHierarchy:
        """Semantic types of the first model."""
        return self.reranker.thresholds.hierarchy

    @property
    def can_recalibrate(self) -> bool:
        """Whether corrections can be added to the calibration data of the first model."""
        return self.run is not None or self.lists is not None

    def examples(self) -> list[Question]:
        """Questions for the opened page, at least one.

        Raises:
            UserError: the lists cannot be read.
        """
        if self.linker:
            return SENTENCES
        return (examples_in(self.lists, self.hierarchy) if self.lists else []) or [example_for(self.reranker)]

    def answer(self, question: Question) -> str:
        """HTML with the answer of every model.

        If the mention is not at its offset in the text, its nearest occurrence is used. Candidates are ignored if
        there is an index.

        Raises:
            ValueError: the mention is blank, or not in the text, or the candidates cannot be read.
        """
        text, mention, types, pasted, start = question
        of_characters(text)
        if not mention.strip():
            raise ValueError("select a mention in the text or type one")
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
        return html_of("answers", text[:start] if text else "", mention, text[end:] if text else "", explanations)


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
        queries.texts, lists, types, queries.lefts, queries.rights, desc="ranking mentions for review"
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
        sheet: the sheet.
        hierarchy: names the semantic types.
        position: position of the mention in the queue; another page may change that of the sheet meanwhile.
    """
    if position is None:
        return html_of("review", sheet, None, None, [], [])
    logged = sheet.mentions[position]
    about = {concept_of(item): describe(item, hierarchy) for item in logged.row["candidates"]}
    rows = [about.get(concept_of(item), []) for item in logged.row["ranked"]]
    return html_of("review", sheet, position, logged.row, hierarchy.names(logged.types), rows)


def act(sheet: ReviewSheet, position: object, choice: str) -> None:
    """Perform the action of a button; a button that is not shown does nothing.

    Args:
        sheet: the sheet.
        position: position of the mention shown with the button.
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


def html_of(macro: str, *values: Any) -> str:
    """HTML of a macro of the page's template."""
    return str(getattr(_environment.get_template("demo.html").module, macro)(*values))
