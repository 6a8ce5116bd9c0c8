"""Which findings keep a new version of data from being trained on."""

import pytest

from dagnn_core.data_check.findings import Finding, judge
from dagnn_core.data_check.revision import require_fit
from dagnn_core.errors import CheckFailedError


def failed(name: str) -> Finding:
    return judge(name, 0.5, 0.1, "what it is; the remedy")


def test_items_that_both_have_and_warnings_are_no_reason() -> None:
    findings = [failed("shared_images"), judge("rare_labels", 3, 0, "few items", above="warning")]
    assert require_fit(findings, what="data/photos", accept_drift=False) == []


def test_drift_is_refused_unless_it_is_accepted() -> None:
    findings = [failed("label_shift"), failed("unseen_words"), failed("image_vector_shift")]
    with pytest.raises(
        CheckFailedError, match=r"^data/photos fails its check, .* label_shift 0.5 against 0.1, .*drift$"
    ):
        require_fit(findings, what="data/photos", accept_drift=False)
    assert require_fit(findings, what="data/photos", accept_drift=True) == findings


def test_faults_are_refused_in_any_case() -> None:
    findings = [failed("undecodable_images"), failed("label_shift"), failed("label_shift_test")]
    with pytest.raises(
        CheckFailedError, match=r"undecodable_images .*label_shift_test .*; look at the data$"
    ) as caught:
        require_fit(findings, what="data/photos", accept_drift=True)
    assert "label_shift " not in str(caught.value)
