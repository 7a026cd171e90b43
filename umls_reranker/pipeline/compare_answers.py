"""Answers of two dictionaries beside each other, and the certificates that the new one ends."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..calibration.probabilities import Calibration
from ..core.files import read_json, require_another, require_writable, written
from ..corpora.mentions import RetiredCuis
from ..hub.download import download
from ..hub.model_folder import CALIBRATED, CALIBRATOR, MANIFEST, THRESHOLDS, verify_files
from ..retrieval.deployment import IndexSettings
from ..serving.answer_changes import REASONS, Dictionaries, answer_changes
from ..vocab.concepts import ConceptTable
from ..vocab.rrf import release_files


def compare_answers(
    answers: tuple[Path, Path], indexes: tuple[Path, Path], release: Path | None, output: Path
) -> Iterator[str]:
    """Write the changed answers as JSON Lines, and yield lines that sum them up.

    Args:
        answers: the former and the new answers.
        indexes: the index folders that they are from.
        release: folder META of the new release, with MRCUI.RRF; None: mergers are not known.
        output: the file to write.

    Raises:
        UserError: as `answer_changes`, or a folder has no such file.
    """
    require_another(output, answers)
    require_writable(output)
    former = ConceptTable.load(indexes[0] / "concepts")
    new = ConceptTable.load(indexes[1] / "concepts")
    retired = None
    if release is not None:
        retired = RetiredCuis.read(release_files(release, required=["MRCUI"])["MRCUI"])
    mentions = 0
    counts = Counter[str]()
    with written(output) as partial, partial.open("w", encoding="utf-8") as stream:
        for change in answer_changes(*answers, Dictionaries(former, new, retired)):
            mentions += 1
            if change is not None:
                counts[change["why"]] += 1
                stream.write(json.dumps(change, ensure_ascii=False) + "\n")
    yield f"{counts.total():,} of {mentions:,} answers changed, written to {output}"
    for reason, meaning in REASONS.items():
        if counts[reason]:
            yield f"  {reason}: {counts[reason]:,} ({meaning})"


def ended_certificates(models: Sequence[str], index: Path) -> Iterator[str]:
    """Yield a line for each model whose certificates do not hold for an index, and for the others.

    A certificate holds for lists like those that the model was calibrated on, so for one index.
    """
    key = IndexSettings.load(index).index_key
    for name in models:
        folder = download(name, files=(MANIFEST, *CALIBRATED))
        verify_files(folder, CALIBRATED)
        thresholds = read_json(folder / THRESHOLDS)
        calibration = Calibration.load(read_json(folder / CALIBRATOR), thresholds, folder)
        yield certificates_line(name, calibration, index, key)


def certificates_line(name: str, calibration: Calibration, index: Path, index_key: str) -> str:
    """Whether the certificates of a model hold for the index with this key."""
    certified = [model.name for model in calibration.models if model.thresholds.is_certified]
    if not certified:
        return f"{name}: nothing is certified"
    if calibration.index_key == index_key:
        return f"{name}: its certificates hold for {index} ({', '.join(certified)})"
    return (
        f"{name}: no certificate holds for {index} ({', '.join(certified)} were certified on "
        "lists of another index); calibrate on lists of this one"
    )
