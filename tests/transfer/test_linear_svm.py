"""The linear SVM on features, against scikit-learn's."""

import numpy as np
import pytest
import torch

from cnnbench.transfer import linear_svm


def test_the_probe_is_scikit_learns_svm_folded_into_weights() -> None:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    rng = np.random.default_rng(0)
    for classes in (2, 4):
        y = np.arange(120) % classes
        x = rng.normal(size=(120, 10)) + 1.5 * np.eye(classes, 10)[y] + np.arange(10)
        probe = linear_svm.fit_svm(torch.from_numpy(x).float(), torch.from_numpy(y), [0.01])
        svm = make_pipeline(StandardScaler(), LinearSVC(C=0.01, tol=1e-6)).fit(x, y)
        ours = probe.logits(torch.from_numpy(x).float()).argmax(1).numpy()
        assert (ours == svm.predict(x)).mean() > 0.98
        assert probe.cv_n == 120
        assert probe.cv_error is not None
        margins = svm.decision_function(x)
        logits = probe.logits(torch.from_numpy(x).float()).numpy()
        ours = logits[:, 1] - logits[:, 0] if classes == 2 else logits.ravel()
        assert np.corrcoef(ours, margins.ravel())[0, 1] > 0.999  # up to the factor that makes probabilities of them


def test_unequal_classes_are_weighed_as_scikit_learn_does() -> None:
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [120, 12, 20])
    x = rng.normal(size=(152, 10)) + np.eye(3, 10)[y]
    features, targets = torch.from_numpy(x).float(), torch.from_numpy(y)
    plain, probe = (linear_svm.fit_svm(features, targets, [0.01], balanced=each) for each in (False, True))
    svm = make_pipeline(StandardScaler(), LinearSVC(C=0.01, tol=1e-6, class_weight="balanced")).fit(x, y)
    assert (probe.logits(features).argmax(1).numpy() == svm.predict(x)).mean() > 0.98
    assert plain.cv_balanced_error is not None and probe.cv_balanced_error is not None
    assert probe.cv_balanced_error < plain.cv_balanced_error - 10
    margins = rng.normal(size=(152, 3))
    expected = 1 - balanced_accuracy_score(y, margins.argmax(1))
    assert linear_svm._error(margins, y, balanced=True) == pytest.approx(expected)


def test_its_probabilities_are_neither_shy_nor_bold() -> None:
    """Classes that overlap by a known amount: the mean confidence is near the share of right answers."""
    rng = np.random.default_rng(1)
    y = np.arange(3000) % 2
    x = torch.from_numpy(rng.normal(size=(3000, 5)) + y[:, None] * 0.8).float()
    probe = linear_svm.fit_svm(x[:1500], torch.from_numpy(y[:1500]), [1e-4, 1e-2, 1.0])
    confidence, answer = probe.logits(x[1500:]).softmax(1).max(1)
    accuracy = (answer.numpy() == y[1500:]).mean()
    assert abs(float(confidence.mean()) - accuracy) < 0.05


def test_a_class_with_a_single_image_still_gets_a_classifier() -> None:
    x, y = torch.randn(5, 4), torch.tensor([0, 0, 0, 0, 1])
    probe = linear_svm.fit_svm(x, y, [1e-3, 1e-2, 1e-1])
    assert (probe.cv_error, probe.cv_n, probe.c) == (None, 0, 1e-2)
    assert probe.logits(x).shape == (5, 2)


def test_out_of_fold_answers_are_those_of_svms_that_never_saw_the_image_nor_its_copies() -> None:
    from sklearn.model_selection import PredefinedSplit, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    rng = np.random.default_rng(0)
    y = np.arange(150) % 3
    x = (rng.normal(size=(150, 12)) + 0.8 * np.eye(3, 12)[y]).astype(np.float32)
    groups = np.arange(150)
    groups[3], groups[6] = 0, 0  # three copies
    number, folds = linear_svm._grouped_folds(y, groups, seed=0)
    assert folds == 5
    assert number[0] == number[3] == number[6]
    assert (np.bincount(number) >= 25).all()
    assert all(len(np.unique(y[number != fold])) == 3 for fold in range(folds))
    found = linear_svm.out_of_fold(torch.from_numpy(x), torch.from_numpy(y), groups)
    assert np.allclose(found.sum(1), 1)
    svms = [make_pipeline(StandardScaler(), LinearSVC(C=c)) for c in linear_svm.USUAL_C]
    theirs = [cross_val_predict(svm, x, y, cv=PredefinedSplit(number)) for svm in svms]
    assert max((found.argmax(1) == answers).mean() for answers in theirs) > 0.98  # with the C that was chosen
    assert abs(float(found.max(1).mean()) - float((found.argmax(1) == y).mean())) < 0.1


def test_principal_components_are_scikit_learns() -> None:
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 4)) @ rng.normal(size=(4, 30)) + 0.1 * rng.normal(size=(80, 30)) + 3
    ours = linear_svm.principal_components(torch.from_numpy(x), 4).numpy()
    theirs = PCA(4).fit((x - x.mean(0)) / x.std(0, ddof=1))
    assert np.allclose(ours.var(0, ddof=1), theirs.explained_variance_, rtol=0.05)


def test_images_of_one_group_do_not_judge_each_other() -> None:
    """Features that say only who it is: an image of the same patient gives the class away, others say nothing."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(60), 4)
    y = torch.from_numpy(rng.integers(0, 2, 60)[patients])
    x = torch.from_numpy(rng.normal(size=(60, 200))[patients] + 0.1 * rng.normal(size=(240, 200))).float()
    alone = linear_svm.fit_svm(x, y, [0.01])
    grouped = linear_svm.fit_svm(x, y, [0.01], groups=torch.from_numpy(patients))
    assert alone.cv_error == 0 and grouped.cv_error is not None and 35 < grouped.cv_error < 65
    assert torch.equal(alone.weight.sign(), grouped.weight.sign())  # all images are learnt from, in the end


def test_a_class_with_a_single_group_is_not_cross_validated() -> None:
    x, y, groups = torch.randn(12, 4), torch.tensor([0] * 8 + [1] * 4), torch.tensor([0, 1] * 4 + [2] * 4)
    probe = linear_svm.fit_svm(x, y, [1e-3, 1e-2, 1e-1], groups=groups)
    assert (probe.cv_error, probe.cv_n, probe.c) == (None, 0, 1e-2) and probe.logits(x).shape == (12, 2)
