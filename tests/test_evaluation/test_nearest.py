"""ops/nearest.py against NumPy and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from locat_mm.evaluation import knn_predict
from locat_mm.evaluation.nearest import nearest_neighbours, unit_rows, weighted_vote


def brute_force(queries: np.ndarray, bank: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """In float64, by a full sort."""
    cosines = (queries @ bank.T) / np.linalg.norm(queries, axis=1)[:, None]
    cosines /= np.linalg.norm(bank, axis=1)
    order = np.argsort(-cosines, axis=1)[:, :k]
    return np.take_along_axis(cosines, order, axis=1), order


@pytest.mark.parametrize('k', [1, 7, 53])
@pytest.mark.parametrize('chunks', [(1024, 65536), (5, 10), (1, 1), (17, 53), (3, 52)], ids=str)
def test_against_brute_force(k, chunks):
    rng = np.random.default_rng(0)
    queries, bank = rng.normal(size=(17, 8)), rng.normal(size=(53, 8))
    expected, order = brute_force(queries, bank, k)
    rows = (unit_rows(torch.from_numpy(x)) for x in (queries, bank))
    similarities, indices = nearest_neighbours(*rows, k, *chunks)
    assert (similarities.dtype, indices.dtype) == (torch.float32, torch.int64)
    np.testing.assert_allclose(similarities.numpy(), expected, atol=1e-6)
    np.testing.assert_array_equal(indices.numpy(), order)


def test_against_scikit_learn():
    rng = np.random.default_rng(1)
    queries, bank = rng.normal(size=(40, 16)), rng.normal(size=(300, 16))
    reference = NearestNeighbors(n_neighbors=20, metric='cosine', algorithm='brute').fit(bank)
    distances, expected = reference.kneighbors(queries)
    rows = (unit_rows(torch.from_numpy(x)) for x in (queries, bank))
    similarities, indices = nearest_neighbours(*rows, 20, query_chunk=16, bank_chunk=64)
    np.testing.assert_array_equal(indices.numpy(), expected)
    np.testing.assert_allclose(similarities.numpy(), 1 - distances, atol=1e-6)


def test_similarities_are_float32_whatever_is_stored_and_cast():
    torch.manual_seed(0)
    queries, bank = (unit_rows(torch.randn(n, 64)).half() for n in (9, 200))
    expected, order = brute_force(queries.double().numpy(), bank.double().numpy(), 5)
    lengths = np.linalg.norm(queries.double(), axis=1)[:, None]
    lengths = lengths * np.linalg.norm(bank.double().numpy()[order], axis=2)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        similarities, indices = nearest_neighbours(queries, bank, 5)
    # The rows as stored, of nearly unit length: half's or bfloat16's products would be 1e-3 off.
    np.testing.assert_allclose(similarities.numpy(), expected * lengths, atol=1e-6)


def test_rows_of_zeros_and_equal_rows():
    bank = unit_rows(torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [-1.0, 0.0]]))
    similarities, indices = nearest_neighbours(torch.tensor([[1.0, 0.0]]), bank, 4)
    assert similarities.tolist() == [[1.0, 1.0, 0.0, -1.0]]
    assert sorted(indices[0, :2].tolist()) == [1, 2] and indices[0, 2:].tolist() == [0, 3]


@pytest.mark.parametrize('k', [1, 20, 100])
@pytest.mark.parametrize('temperature', [0.07, 0.005, 10.0])
def test_votes_against_scikit_learn(k, temperature):
    rng = np.random.default_rng(2)
    bank, queries = rng.normal(size=(200, 6)), rng.normal(size=(50, 6))
    labels = rng.choice([0, 1, 3, 4], size=200)  # no image of class 2
    reference = KNeighborsClassifier(
        k, weights=lambda distances: np.exp((1 - distances) / temperature), metric='cosine'
    ).fit(bank, labels)
    rows = [unit_rows(torch.from_numpy(x)) for x in (queries, bank)]
    found = knn_predict(*rows, torch.from_numpy(labels), [7, k], temperature)
    np.testing.assert_array_equal(found[k][:, 0].numpy(), reference.predict(queries))
    # All classes, by the reference's probabilities; float32 may exchange equal ones.
    shares = np.zeros((50, 5))
    shares[:, reference.classes_] = reference.predict_proba(queries)
    ours = np.take_along_axis(shares, found[k].numpy(), axis=1)
    np.testing.assert_allclose(ours, -np.sort(-shares, axis=1), atol=1e-5)


def test_votes_stay_finite():
    similarities = torch.tensor([[1.0, 0.9, 0.9]])
    votes = weighted_vote(similarities, torch.tensor([[2, 0, 0]]), 4, 1e-3)
    assert votes[0].tolist() == pytest.approx([2 * np.exp(-100), 0.0, 1.0, 0.0], abs=1e-30)


def test_bad_input_is_one_clear_error():
    queries, bank = torch.zeros(2, 3), torch.zeros(5, 3)
    for k in (0, 6):
        with pytest.raises(ValueError, match=f'k={k} neighbours are asked of a bank of 5 rows'):
            nearest_neighbours(queries, bank, k)
    with pytest.raises(ValueError, match=r'got \[2, 3\] and \[5, 4\]'):
        nearest_neighbours(queries, torch.zeros(5, 4), 1)
    with pytest.raises(ValueError, match='query_chunk=0'):
        nearest_neighbours(queries, bank, 1, query_chunk=0)
    for broken in (torch.nan, torch.inf):
        damaged = bank.clone()
        damaged[3, 1] = broken
        with pytest.raises(ValueError, match='NaN or infinity'):
            nearest_neighbours(queries, damaged, 1)
        with pytest.raises(ValueError, match='NaN or infinity'):
            nearest_neighbours(damaged, bank, 1)
    with pytest.raises(ValueError, match='temperature must be positive, got 0'):
        weighted_vote(torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.int64), 2, 0)
