"""A feature that is not part of the package, in one file."""

import numpy as np

from umls_reranker.calibration.features import Feature, register_feature


def length_ratio(sources):
    of_mentions = np.array([len(text) for text in sources.mentions])[sources.lists.owner]
    of_names = np.array([len(text) for text in sources.names])[sources.lists.names.codes]
    return np.minimum(of_mentions, of_names) / np.maximum(of_mentions, of_names)


register_feature(
    Feature(
        "length_ratio",
        "length of the shorter text, of mention and name, by the longer",
        length_ratio,
    )
)
