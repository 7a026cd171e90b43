"""``thresholds.json`` of a model folder: the thresholds of all models of a calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..core.errors import UserError
from ..vocab.types import TypeHierarchy
from .certificate import Certificate
from .thresholds import ABOVE_ALL, TIERS, ThresholdTable, TypeThreshold, high_threshold
from .type_lineage import DEFAULT

# The schema of the file.
THRESHOLDS_VERSION = 10
# What the file has of a type. Where its high tier begins follows from the certificate, whose
# guarantee is of all types together.
KEYS_OF_TYPE = {"low", "accept"}


def thresholds_content(tables: Mapping[str, ThresholdTable]) -> dict[str, Any]:
    """The content of ``thresholds.json``: the tables of all models, by name."""
    first = next(iter(tables.values()))
    return {
        "schema_version": THRESHOLDS_VERSION,
        "target_precision": first.target_precision,
        "confidence": first.confidence,
        "tiers": list(TIERS),
        "models": [{"name": name} | table.to_dict() for name, table in tables.items()],
        "hierarchy": first.hierarchy.to_dict(),
    }


def load_thresholds(state: dict[str, Any]) -> dict[str, ThresholdTable]:
    """The tables that `thresholds_content` wrote, that of the model of all inputs first.

    Raises:
        UserError: another schema, or a key that is missing or does not fit.
    """
    version = state.get("schema_version")
    if version != THRESHOLDS_VERSION:
        raise UserError(
            f"thresholds.json has schema_version {version}, "
            f"this version reads {THRESHOLDS_VERSION}; run the calibrate stage again, "
            "or install the version of umls_reranker that wrote it"
        )
    try:
        hierarchy = TypeHierarchy.from_dict(state["hierarchy"])
        target_precision = float(state["target_precision"])
        confidence = float(state["confidence"])
        if not (0.0 < target_precision < 1.0 and 0.0 < confidence < 1.0):
            raise TypeError("target_precision or confidence is not a probability")
        tables = {
            str(entry["name"]): _table_of(entry, hierarchy, target_precision, confidence)
            for entry in state["models"]
        }
        if not tables:
            raise TypeError("models is empty")
        return tables
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"thresholds.json is damaged ({error}); run the calibrate stage again"
        ) from error


def _table_of(
    entry: Mapping[str, Any], hierarchy: TypeHierarchy, target_precision: float, confidence: float
) -> ThresholdTable:
    """The table of an entry; `TypeError` if thresholds are missing, too many or out of order."""
    certificate = None
    if entry["certificate"] is not None:
        certificate = Certificate.from_dict(entry["certificate"])
    rows = {}
    for node, thresholds in {**entry["types"], DEFAULT: entry["default"]}.items():
        if thresholds.keys() != KEYS_OF_TYPE:
            raise TypeError(f"thresholds of {node} are not low and accept")
        row = TypeThreshold(**thresholds)
        if not 0.0 <= row.low <= row.accept <= ABOVE_ALL:
            raise TypeError(f"thresholds of {node} are not in order")
        rows[node] = replace(row, high=high_threshold(row, certificate))
    return ThresholdTable(rows, hierarchy, target_precision, confidence, certificate)
