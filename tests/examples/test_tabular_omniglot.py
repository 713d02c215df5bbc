"""Scores of the tables and of Omniglot: of the truth, of noise and of blanks."""

import numpy as np
import pytest


def normal_table(tabular, num_features):
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(40, num_features)).astype(np.float32)
    x = np.where(rng.random(truth.shape) < 0.5, truth, np.nan)
    return tabular.Table("normal", rng.normal(size=(200, num_features)), truth, x)


def test_table_scores_of_the_truth_and_of_noise(tabular):
    table = normal_table(tabular, 40)
    missing = np.isnan(table.x)
    rng = np.random.default_rng(4)
    draws = np.broadcast_to(table.truth, (5, 100, 40, 40)).copy()
    perfect = tabular.scores(draws, table)
    assert perfect["rmse"][0] == perfect["crps"][0] == 0
    assert perfect["sinkhorn"][0] < 1e-6
    draws[..., missing] = rng.normal(size=(5, 100, missing.sum()))
    noise = tabular.scores(draws, table)
    assert noise["sinkhorn"][0] > 0.1
    # calibrated draws: 0.9 within five standard errors, false alarm 6e-7
    value, error = noise["coverage of 90 %"]
    assert abs(value - 0.9) < 5 * max(error, 0.3 / missing.sum() ** 0.5)


@pytest.mark.parametrize("name", ["mean", "kNN", "IterativeImputer"])
def test_peers_keep_what_is_observed(tabular, name):
    table = normal_table(tabular, 4)
    found = tabular.PEERS[name](table, 0, 2)
    assert found.shape[2:] == (40, 4)
    assert np.isfinite(found).all()
    seen = ~np.isnan(table.x)
    np.testing.assert_allclose(found[..., seen], np.broadcast_to(
        table.truth[seen], found[..., seen].shape), rtol=1e-6)  # fmt: skip


def test_standard_error_over_rows_counts_rows_not_entries(tabular):
    """Entries that repeat each other within a row add nothing."""
    values, row = np.repeat([0.0, 1, 2, 3], 5), np.repeat(np.arange(4), 5)
    mean, error = tabular._over_rows(values, row)
    assert mean == 1.5
    np.testing.assert_allclose(error, np.std([0, 1, 2, 3]) / 4**0.5)


def test_omniglot_scores_of_the_truth_and_of_blank_images(omniglot):
    rng = np.random.default_rng(5)
    truth = (rng.random((6, 1, 4, 4)) < 0.4).astype(np.float32)
    x, condition = truth.copy(), np.repeat(list(omniglot.CONDITIONS), 2)
    x[..., :2] = np.nan
    given = omniglot.Problem(truth, truth, x, condition)

    def score(completed):
        return omniglot.scores(np.stack([completed[None]] * 2), given, lambda x: x.sum((1, 2)))

    perfect = score(truth)
    assert all(perfect[c, "f1"][0] == 1 and perfect[c, "fid"][0] < 1e-9 for c in given.condition)
    blank = score(np.nan_to_num(x))
    assert all(blank[c, "f1"][0] == 0 and blank[c, "fid"][0] > 0 for c in given.condition)
