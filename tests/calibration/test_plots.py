import struct

import numpy as np
import pytest

from umls_reranker.calibration.plots import reliability_plot, risk_coverage_plot
from umls_reranker.evaluation.curves import reliability_points, risk_coverage


def size_of(path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", content[16:24])


def draw(path) -> None:
    rng = np.random.default_rng(0)
    p = rng.beta(0.5, 2, 800)
    y = rng.random(800) < p
    if path.name.startswith("reliability"):
        documents = np.arange(800) // 10
        curves = {"raw": reliability_points(p**0.5, y, documents), "calibrated": reliability_points(p, y, documents)}
        reliability_plot(curves, path)
    else:
        silent = np.full(800, -np.inf)
        exact = np.where(rng.random(800) < 0.3, 1.0, -np.inf)
        systems = {"reranker": p, "exact": exact, "silent": silent}
        curves = {name: risk_coverage(score, y) for name, score in systems.items()}
        risk_coverage_plot(curves, path)


@pytest.mark.parametrize("name", ["reliability.png", "risk_coverage.png"])
def test_plots_are_png_of_equal_bytes_and_leave_nothing_beside(tmp_path, name):
    first, second = tmp_path / "a" / name, tmp_path / "b" / name
    for path in (first, second):
        path.parent.mkdir()
        draw(path)
    width, height = size_of(first)
    assert width > 800 and height > 600
    assert first.read_bytes() == second.read_bytes()
    assert [path.name for path in first.parent.iterdir()] == [name]


def test_plots_touch_no_global_state(tmp_path):
    import matplotlib

    backend = matplotlib.get_backend()
    draw(tmp_path / "reliability.png")
    assert matplotlib.get_backend() == backend
