"""The rows that a cross-encoder is trained on: a mention, its candidates, labels and weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .pair_template import PairTemplate

if TYPE_CHECKING:
    import pyarrow as pa

    from ..lists.annotated_lists import AnnotatedLists


def pair_rows(template: PairTemplate, lists: AnnotatedLists, weights: np.ndarray) -> pa.Table:
    """The training rows of n mentions with m candidates, as mining writes and training reads them.

    Args:
        template: template of the model.
        lists: the lists, whose labels say which candidates are correct.
        weights: (m,) float32, weight of each pair in the loss.

    Returns:
        n rows. All texts are as the template shows them:
            entity: string, the mention
            left, right: string, the text around it
            names: list of string, its candidates
            labels: list of int8
            weights: list of float32
    """
    # What scores pairs alone does not need it.
    import pyarrow as pa

    offsets = pa.array(lists.offsets, pa.int32())
    mentions = {
        "entity": template.mention_texts(lists),
        "left": lists.lefts,
        "right": lists.rights,
    }
    pairs = {
        "names": template.candidate_texts(lists),
        "labels": lists.labels.astype(np.int8),
        "weights": weights,
    }
    columns: dict[str, pa.Array] = {}
    for name, texts in mentions.items():
        columns[name] = pa.array(texts, pa.string())
    for name, values in pairs.items():
        columns[name] = pa.ListArray.from_arrays(offsets, pa.array(values))
    return pa.table(columns)
