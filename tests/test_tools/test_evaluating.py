"""Changed images and the calibration of the demo's models, held to other libraries."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from claims import gradient_by_block, similarity_by_block
from evaluating import CalibrationError, blur, noise, occlude
from scipy import ndimage
from sklearn.calibration import calibration_curve
from torch import nn


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(60, 196, (72, 96, 3), np.uint8)


def changed(change, image, name='a.png'):
    return change(dict(img=image, img_path=f'folder/{name}'))['img']


def test_noise_has_its_deviation_and_depends_on_the_file_alone(image):
    noisy = changed(noise(10.0), image)
    difference = noisy.astype(float) - image
    assert difference.std() == pytest.approx(10, rel=0.03) and abs(difference.mean()) < 0.3
    np.testing.assert_array_equal(noisy, changed(noise(10.0), image))
    assert (noisy != changed(noise(10.0), image, 'b.png')).mean() > 0.5


def test_noise_stays_within_the_range():
    for value in (0, 255):
        noisy = changed(noise(50.0), np.full((32, 32, 3), value, np.uint8))
        assert 0.4 < (noisy == value).mean() < 0.6  # else it would have wrapped around


def test_blur_is_a_gaussian(image):
    expected = ndimage.gaussian_filter(image.astype(float), (1.5, 1.5, 0), mode='mirror')
    assert np.abs(changed(blur(1.5), image) - expected).max() < 1.5


def test_occlusion_hides_a_square_of_the_mean_colour(image):
    hidden = changed(occlude(0.5), image)
    rows, columns = np.nonzero((hidden != image).any(-1))
    side = 72 // 2
    assert rows.max() - rows.min() + 1 == columns.max() - columns.min() + 1 == side
    square = hidden[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert (square == image.mean((0, 1)).round()).all()
    hidden = [(changed(occlude(0.5), image, name) != image).any(-1) for name in ('b.png', 'c.png')]
    assert (hidden[0] != hidden[1]).any()


def test_changes_keep_the_loaded_image_and_its_size(image):
    before = image.copy()
    for change in (noise(25.0), blur(1.5), occlude(0.4)):
        found = change(dict(img=image, img_path='folder/a.png', more=1))
        assert found['more'] == 1 and found['img'].dtype == np.uint8
        assert found['img'].shape == image.shape and (found['img'] != before).any()
    np.testing.assert_array_equal(image, before)


def test_calibration_error_is_that_of_sklearns_curve():
    generator = torch.Generator().manual_seed(0)
    metric, correct, confidence = CalibrationError(), [], []
    for _ in range(3):
        logits = 3 * torch.randn(4, 20, 20, generator=generator)
        probability, predicted = logits.softmax(0).max(0)
        # Too little confidence below 0.6, too much above: without bins the two would cancel.
        random = torch.randint(4, (20, 20), generator=generator)
        truth = torch.where(probability < 0.6, predicted, random)
        truth[:2] = 255
        metric.process({}, [dict(gt_sem_seg=dict(data=truth[None]), seg_logits=dict(data=logits))])
        correct.append((predicted == truth)[2:].flatten())
        confidence.append(probability[2:].flatten())
    correct, confidence = torch.cat(correct).numpy(), torch.cat(confidence).double().numpy()
    accuracy, mean_confidence = calibration_curve(correct, confidence, n_bins=15)
    counts, _ = np.histogram(confidence, bins=15, range=(0, 1))
    expected = (np.abs(accuracy - mean_confidence) * counts[counts > 0]).sum() / len(confidence)
    assert metric.compute_metrics(metric.results)['ece'] == pytest.approx(100 * expected)
    assert expected > abs(correct.mean() - confidence.mean()) + 0.1


class Blocks:
    """Two linear blocks and two batches of different size, in place of a trained model."""

    def __init__(self):
        torch.manual_seed(0)
        self.layers = [nn.Linear(4, 4), nn.Linear(4, 4)]
        self.batches = [torch.randn(3, 5, 4), torch.randn(1, 5, 4)]

    def blocks(self):
        return self.layers

    def evaluate(self):
        for tokens in self.batches:
            for layer in self.layers:
                tokens = layer(tokens)


@torch.no_grad()
def test_similarity_is_the_mean_cosine_over_patches_and_images():
    model = Blocks()
    expected: list[list[float]] = [[], []]
    for tokens in torch.cat(model.batches):
        for layer, found in zip(model.layers, expected, strict=True):
            tokens = layer(tokens)
            cls, *patches = tokens.double().numpy()
            norm = np.linalg.norm
            found += [cls @ patch / norm(cls) / norm(patch) for patch in patches]
    assert similarity_by_block(model) == pytest.approx(
        {f'block {i}': 100 * np.mean(found) for i, found in enumerate(expected, 1)}, abs=1e-4
    )
    assert not any(layer._forward_hooks for layer in model.layers)


def test_gradient_shares_are_those_written_out():
    """Two blocks whose GAug is a linear map of two inputs; the loss is the squared output."""
    torch.manual_seed(1)
    batches = [torch.randn(3, 2), torch.randn(1, 2)]
    first, second = nn.Linear(2, 1), nn.Linear(2, 1)
    blocks = [SimpleNamespace(attn=SimpleNamespace(gaug=gaug)) for gaug in (first, second)]

    def losses():
        for x in batches:
            yield (first(x) * second(x)).square().mean()

    expected = []
    for x in (batch.double().numpy() for batch in batches):
        a, b = (
            x @ gaug.weight[0].detach().double().numpy() + gaug.bias.detach().double().numpy()
            for gaug in (first, second)
        )
        inputs = np.column_stack([x, np.ones(len(x))])
        by_first, by_second = (
            np.square(inputs.T @ slope / len(x)).sum() for slope in (2 * a * b**2, 2 * a**2 * b)
        )
        expected.append(np.array([by_first, by_second]) / (by_first + by_second))
    model = SimpleNamespace(
        model=nn.ModuleList([first, second]), blocks=lambda: blocks, losses=losses
    )
    assert gradient_by_block(model) == pytest.approx(
        {f'block {i}': 100 * share for i, share in enumerate(np.mean(expected, 0), 1)}, abs=1e-4
    )
