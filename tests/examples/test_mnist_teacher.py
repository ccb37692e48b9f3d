"""The example's teacher learns, from a few digits already."""

import numpy as np
import torch

from examples.mnist_teacher import INPUT_SIZE, LABELS, Digits, accuracy, load_digits, train_teacher


def test_the_split_is_balanced_apart_and_repeats() -> None:
    training, aside = load_digits()
    assert np.bincount(training.labels).tolist() == [400] * 10
    assert np.bincount(aside.labels).tolist() == [100] * 10
    training_digits = {image.tobytes() for image in training.images}
    assert not any(image.tobytes() in training_digits for image in aside.images)
    assert (load_digits()[1].images == aside.images).all()
    assert (load_digits(seed=1)[1].images != aside.images).any()


def test_a_few_digits_teach_far_more_than_chance() -> None:
    training, aside = load_digits(per_class=100)
    few = Digits(aside.images[::5], aside.labels[::5])
    losses: list[float] = []
    network = train_teacher(training, epochs=6, report=lambda _epoch, loss: losses.append(loss))
    assert losses[-1] < losses[0] / 2
    assert accuracy(network, few) > 0.5
    assert network(torch.zeros(1, *INPUT_SIZE)).shape == (1, len(LABELS))
