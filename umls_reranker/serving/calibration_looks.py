"""Looks of studies before a calibration, which choose its lists, and after it, which are noted."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..calibration.arguments import CalibrationArguments
from ..calibration.ledger import Ledger
from ..core.errors import warn_caller
from ..lists.annotated_lists import AnnotatedLists
from ..lists.label_checks import OWN_DOCUMENTS
from ..lists.labels import have_own_documents
from .calibrated import Calibrated
from .calibration_lists import is_calibrated_again
from .due_look import plan_look, study_system
from .former_studies import mention_hashes
from .look_plan import LookOptions, LookPlan
from .model_source import ModelSource

NOTHING_CERTIFIED = (
    f"each mention has a document of its own, so nothing is certified{OWN_DOCUMENTS}"
)


@dataclass(frozen=True)
class CalibrateOptions:
    """Options of a calibration besides `CalibrationArguments`.

    Attributes:
        seed: seed of the folds of documents.
        each_row_is_a_document: whether documents of one mention each may certify.
        look: what the user says about looks.
    """

    seed: int = 13
    each_row_is_a_document: bool = False
    look: LookOptions = LookOptions()


def lists_of_look(
    source: ModelSource,
    lists: AnnotatedLists,
    settings: CalibrationArguments,
    options: CalibrateOptions,
    ledger: Ledger,
) -> tuple[AnnotatedLists, LookPlan]:
    """The look that is due, and the lists to calibrate on.

    Unless a study goes on, documents that the source was calibrated on are left out if they are
    less than half: its counts know their answers.

    Args:
        source: what is calibrated.
        lists: all labelled lists.
        settings: features, calibrator and certificate.
        options: further options.
        ledger: the studies of this machine.
    """
    if not options.each_row_is_a_document and have_own_documents(lists):
        all_mentions = np.ones(len(lists), bool)
        plan = LookPlan(study=None, number=None, is_fitted=all_mentions, line=NOTHING_CERTIFIED)
        return lists, plan

    def plan_of(lists: AnnotatedLists) -> LookPlan:
        system = study_system(lists, settings, source.model_hash, options.seed)
        return plan_look(
            lists,
            settings.target_precision,
            settings.confidence,
            system,
            source.history,
            ledger,
            options.look,
        )

    plan = plan_of(lists)
    is_known = source.is_known(lists)
    if not plan.is_continued and is_known.any() and not is_calibrated_again(lists, is_known):
        lists = lists.take(~is_known)
        plan = plan_of(lists)
    return lists.take(plan.is_fitted), plan


def after_look(new: Calibrated, source: ModelSource, plan: LookPlan | None) -> Calibrated:
    """The calibration with the study that its history and `note_look` keep."""
    if plan is None:
        return new
    study, looked = plan.looked(new.calibration.thresholds.certificate)
    history = new.calibration.history
    if source.reranker is not None:
        earlier_documents = source.reranker.calibration.history.documents
        history = replace(history, documents=history.documents | earlier_documents)
    if study is not None:
        history = history.with_study(study)
    calibration = replace(new.calibration, history=history)
    return replace(new, calibration=calibration, study=study, looked=looked)


def note_look(
    new: Calibrated, lists: AnnotatedLists, ledger: Ledger, path: Path | None = None
) -> None:
    """Note the study of a calibration, and whose labels were seen, in ledger and file.

    Args:
        new: the calibration.
        lists: all lists whose labels were seen.
        ledger: the studies of this machine.
        path: the file of the study; None without one.
    """
    if new.study is None:
        return
    documents = {*new.study.documents}
    labelled = {
        mention: document
        for mention, document in mention_hashes(lists).items()
        if document in documents
    }
    problem = ledger.add(new.study, labelled)
    if problem:
        warn_caller(
            f"the study of these documents could not be noted ({problem}); a model made anew from "
            "them will not know it"
        )
    if path is not None:
        new.study.save(path)
