"""Tasks made of real data that fit a linear model exactly, because it has more features than examples."""

import numpy as np

from lib.forgetting.tasks import TaskCollection
from lib.validation import known_seed, positive_integer, positive_number

__all__ = ["diabetes_tasks", "digit_tasks"]

_AGE_GROUPS = 5


def digit_tasks(*, count: int = 20, features: int = 400, scale: float = 1.0, seed: int = 0) -> TaskCollection:
    """Five tasks, to tell 0 from 1, 2 from 3, and so on: scikit-learn's digits through random cosines.

    Args:
        count: Pictures (8, 8) of each digit.
        features: Cosines of random mixtures of the pixels, the same for all tasks; at least as many as pictures.
        scale: Standard deviation of the mixtures' weights, for pixels from 0 to 1.
        seed: Of the mixtures.

    Examples:
        >>> tasks = digit_tasks()
        >>> tasks.T, tasks.d, tasks.X[0].shape
        (5, 400, (40, 400))
    """
    from sklearn.datasets import load_digits

    each, width = positive_integer("count", count), positive_integer("features", features)
    rng = np.random.default_rng(known_seed("seed", seed))
    pixels, digits = load_digits(return_X_y=True)
    mixtures = positive_number("scale", scale) * rng.normal(size=(pixels.shape[1], width))
    shifts = rng.uniform(0, 2 * np.pi, width)
    chosen = [np.flatnonzero(digits == digit)[:each] for digit in range(10)]
    if min(map(len, chosen)) < each:
        raise ValueError(f"count must be at most {min(map(len, chosen))}, pictures of a digit; it is {each}")
    pairs = [np.concatenate(chosen[first : first + 2]) for first in range(0, 10, 2)]
    return TaskCollection(
        [np.cos(pixels[pair] / 16 @ mixtures + shifts) for pair in pairs],
        [np.where(digits[pair] % 2, 1.0, -1.0) for pair in pairs],
        normalize=True,
    )


def diabetes_tasks(*, count: int = 50, seed: int = 0) -> TaskCollection:
    """Five tasks, one an age group: the progress of diabetes from all products of up to three measurements (d = 286).

    Measurements and progress are standardised over all 442 patients, and the products of a patient have norm 1.

    Args:
        count: Patients of each group, drawn at random.
        seed: Of the draw.

    Examples:
        >>> tasks = diabetes_tasks()
        >>> tasks.T, tasks.d, tasks.ranks.tolist()
        (5, 286, [50, 50, 50, 50, 50])
    """
    from sklearn.datasets import load_diabetes
    from sklearn.preprocessing import PolynomialFeatures, normalize, scale

    each = positive_integer("count", count)
    rng = np.random.default_rng(known_seed("seed", seed))
    measured, progress = load_diabetes(return_X_y=True)
    groups = np.array_split(np.argsort(measured[:, 0], kind="stable"), _AGE_GROUPS)
    if min(map(len, groups)) < each:
        raise ValueError(f"count must be at most {min(map(len, groups))}, patients of a group; it is {each}")
    products = normalize(PolynomialFeatures(3).fit_transform(scale(measured)))
    wanted = scale(progress)
    drawn = [np.sort(rng.choice(group, each, replace=False)) for group in groups]
    return TaskCollection([products[group] for group in drawn], [wanted[group] for group in drawn], normalize=True)
