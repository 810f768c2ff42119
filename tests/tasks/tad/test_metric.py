"""mAP against values worked out by hand, and its properties."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.base.errors import UserError
from toolkit.tasks.tad.activitynet import predictions_from_json, truth_from_json
from toolkit.tasks.tad.metric import (
    Detections,
    bootstrap_interval,
    interpolated_ap,
    mean_average_precision,
    temporal_iou,
)


def detections(*rows: tuple[float, float, str, float]) -> Detections:
    segments = np.asarray([row[:2] for row in rows], dtype=float).reshape(-1, 2)
    return Detections(segments, tuple(row[2] for row in rows), np.asarray([row[3] for row in rows], dtype=float))


def test_temporal_iou_by_hand() -> None:
    first = np.array([[0.0, 10.0], [5.0, 5.0]])
    second = np.array([[5.0, 15.0], [20.0, 30.0], [0.0, 10.0]])
    expected = [[5 / 15, 0.0, 1.0], [0.0, 0.0, 0.0]]
    np.testing.assert_allclose(temporal_iou(first, second), expected)


def test_interpolated_ap_by_hand() -> None:
    # precision 1, 1/2, 2/3, 2/4 at recall 1/3, 1/3, 2/3, 2/3: the envelope is 1 up to 1/3, then 2/3
    assert interpolated_ap(np.array([True, False, True, False]), 3) == pytest.approx(1 / 3 + 2 / 9)
    assert interpolated_ap(np.zeros(0, dtype=bool), 3) == 0.0


def test_perfect_predictions_score_one_at_every_threshold() -> None:
    truth = {"a": detections((0, 10, "x", 1), (20, 30, "y", 1)), "b": detections((5, 9, "x", 1))}
    result = mean_average_precision(truth, truth)
    assert result.average == 1.0
    assert result.by_threshold == {0.3: 1.0, 0.4: 1.0, 0.5: 1.0, 0.6: 1.0, 0.7: 1.0}
    assert result.by_class == {"x": 1.0, "y": 1.0}


def test_threshold_counts_overlap_of_exactly_half() -> None:
    truth = {"a": detections((0, 10, "x", 1))}
    result = mean_average_precision(truth, {"a": detections((0, 5, "x", 0.9))})  # tIoU 0.5
    assert list(result.by_threshold.values()) == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert result.average == pytest.approx(0.6)


def test_a_true_segment_is_matched_once_and_the_rest_are_false() -> None:
    truth = {"a": detections((0, 10, "x", 1), (20, 30, "x", 1))}
    doubled = {"a": detections((0, 10, "x", 0.9), (0, 10, "x", 0.8), (20, 30, "x", 0.7))}
    assert mean_average_precision(truth, doubled).average == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_a_second_choice_is_taken_when_the_best_is_gone() -> None:
    truth = {"a": detections((0, 10, "x", 1), (2, 12, "x", 1))}
    found = {"a": detections((0, 10, "x", 0.9), (0.5, 10.5, "x", 0.8))}  # the second overlaps both true segments
    assert mean_average_precision(truth, found, thresholds=(0.7,)).average == 1.0


def test_classes_without_truth_do_not_count_and_unknown_streams_are_misses() -> None:
    truth = {"a": detections((0, 10, "x", 1))}
    found = {"a": detections((0, 10, "x", 0.5), (0, 10, "z", 0.9))}
    assert mean_average_precision(truth, found).average == 1.0
    found["elsewhere"] = detections((0, 10, "x", 0.9))
    assert mean_average_precision(truth, found).average == pytest.approx(0.5)


def test_score_order_runs_over_all_streams() -> None:
    truth = {"a": detections((0, 10, "x", 1)), "b": detections((0, 10, "x", 1))}
    found = {"a": detections((50, 60, "x", 0.9), (0, 10, "x", 0.2)), "b": detections((0, 10, "x", 0.5))}
    assert mean_average_precision(truth, found).average == pytest.approx(2 / 3)


def test_no_truth_and_no_finite_number_are_errors() -> None:
    with pytest.raises(UserError, match="at least one true segment"):
        mean_average_precision({"a": detections()}, {})
    bad = {"a": detections((0, 10, "x", float("nan")))}
    with pytest.raises(UserError, match=r"'a'.*not a finite number"):
        mean_average_precision({"a": detections((0, 10, "x", 1))}, bad)


def test_bootstrap_counts_streams_with_their_weight() -> None:
    perfect = {f"s{i}": detections((0, 10, "x", 1)) for i in range(6)}
    assert bootstrap_interval(perfect, perfect) == pytest.approx((1.0, 1.0))
    half = {name: found if int(name[1]) % 2 else detections() for name, found in perfect.items()}
    low, high = bootstrap_interval(perfect, half)
    assert 0.0 <= low < 0.5 < high <= 1.0


def test_activitynet_form() -> None:
    truth = truth_from_json(
        {
            "database": {
                "v1": {"subset": "test", "duration": 9, "annotations": [{"segment": ["0.5", "2.5"], "label": "x"}]},
                "v2": {"subset": "training", "annotations": []},
            }
        },
        "test",
    )
    assert list(truth) == ["v1"]
    found = predictions_from_json({"results": {"v1": [{"segment": [0.5, 2.5], "label": "x", "score": 0.3}]}})
    assert mean_average_precision(truth, found).average == 1.0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"segment": [1], "label": "x", "score": 1}, r"database|results"),
        ({"segment": [2, 1], "label": "x", "score": 1}, "ends before it starts"),
        ({"segment": [0, 1], "label": "x"}, "no score"),
        ({"segment": ["soon", 1], "label": "x", "score": 1}, "in seconds"),
    ],
)
def test_bad_predictions(row: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        predictions_from_json({"results": {"v1": [row]}})


def test_unknown_subset_names_the_choices() -> None:
    with pytest.raises(UserError, match="choose one of: test"):
        truth_from_json({"database": {"v": {"subset": "test", "annotations": []}}}, "validation")
