"""Which look at labelled lists is due.

All is decided before anything is scored, by ids and by whether mentions have labels.
"""

from collections.abc import Mapping
from typing import Any

from ..calibration.arguments import CalibrationArguments
from ..calibration.ledger import Ledger
from ..calibration.study import Study, StudyHistory
from ..core.errors import UserError
from ..lists.annotated_lists import AnnotatedLists
from .former_studies import FormerStudies
from .look_plan import LookOptions, LookPlan
from .look_planner import sampled_documents
from .look_words import NEW_STUDY


def plan_look(
    lists: AnnotatedLists,
    target: float,
    confidence: float,
    system: Mapping[str, Any],
    history: StudyHistory,
    ledger: Ledger,
    options: LookOptions = LookOptions(),
) -> LookPlan:
    """Decide which look at labelled lists is due.

    Args:
        lists: the lists.
        target: precision to certify.
        confidence: of all looks of a study.
        system: what decides (`study_system`).
        history: of the model that is calibrated, on user-provided lists.
        ledger: the studies of this machine.
        options: what the user says.

    Raises:
        UserError: a new study is asked for, and there is no former one.
    """
    documents = sampled_documents(lists)
    former = FormerStudies.of(lists, history, ledger)
    if options.is_new_study:
        if not former.labelled:
            raise UserError(
                "--new_study: no study knows these documents, so there is none to follow; leave it "
                "out"
            )
        new_documents = [document for document in documents if document not in former.labelled]
        # Without any, the former study goes on.
        if new_documents:
            study = Study.of_all(new_documents, target, confidence, former.next_attempt)
            planner = former.planner(lists, study, former.labelled, system, options)
            return planner.plan(target, confidence)
    if options.written is not None:
        study = former.current(options.written)
        planner = former.planner(lists, study, frozenset(), system, options)
        labelled_elsewhere = former.labelled_elsewhere(study) & {*study.documents}
        if labelled_elsewhere:
            return planner.nothing(
                f"{len(labelled_elsewhere):,} of these documents were labelled for another study",
                NEW_STUDY,
            )
        return planner.plan(target, confidence)
    if former.labelled & {*documents}:
        latest = max(former.studies, key=lambda study: (study.attempt, len(study.documents)))
        of_earlier_studies = former.labelled - {*latest.documents}
        planner = former.planner(lists, latest, of_earlier_studies, system, options)
        return planner.plan(target, confidence)
    study = Study.of_all(documents, target, confidence, former.next_attempt)
    planner = former.planner(lists, study, frozenset(), system, options)
    return planner.plan(target, confidence)


def study_system(
    lists: AnnotatedLists, settings: CalibrationArguments, model: str, seed: int
) -> dict[str, Any]:
    """What decides scores, by name; a change of any is a new study.

    Args:
        lists: the lists.
        settings: features, calibrator and certificate.
        model: hash of the model that is calibrated.
        seed: seed of the folds of documents.
    """
    dictionary = None
    if lists.dictionary is not None:
        dictionary = lists.dictionary.name
    return {
        "index": lists.index_keys[0],
        "scores": sorted(lists.scores),
        "model": model,
        "features": settings.features,
        "calibrator": settings.calibrator,
        "accept_precision": settings.accept_precision,
        "dictionary": dictionary,
        "seed": seed,
    }
