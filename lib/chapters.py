"""The ten chapters: their papers, what they need, and which of them are open."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

__all__ = ["CHAPTERS", "Chapter", "chapter", "open_chapters"]


@dataclass(frozen=True)
class Chapter:
    """One paper, one notebook, one wing of the package.

    Attributes
    ----------
    number, name
        The name is that of the package `lib.<name>` and, with the number, that of the notebook.
    title, promise
        What the chapter is called, and what it shows in one sentence.
    paper, authors, venue, arxiv
        The paper.
    needs
        What a reader should know.
    minutes
        Reading time, playing included.
    """

    number: int
    name: str
    title: str
    promise: str
    paper: str
    authors: str
    venue: str
    arxiv: str
    needs: str
    minutes: int

    @property
    def notebook(self) -> str:
        """File name of the notebook."""
        return f"{self.number:02d}_{self.name}.ipynb"

    @property
    def is_open(self) -> bool:
        """Whether the chapter can be read: its package is there, and has a ledger."""
        package = f"lib.{self.name}"
        return find_spec(package) is not None and find_spec(f"{package}.claims") is not None


CHAPTERS: tuple[Chapter, ...] = (
    Chapter(
        1,
        "initialization_shape",
        "Initialization shape",
        "Small weights do not make a sparse solution: how the layers share them decides as much.",
        "On the Implicit Bias of Initialization Shape: Beyond Infinitesimal Mirror Descent",
        "Azulay, Moroshko, Shpigel Nacson, Woodworth, Srebro, Globerson, Soudry",
        "ICML 2021",
        "2102.09769",
        "linear algebra, calculus, what gradient descent is",
        60,
    ),
    Chapter(
        2,
        "edge_of_stability",
        "The edge of stability",
        "The loss jumps about, the sharpness bounces, and one quantity only ever falls.",
        "Gradient Descent Monotonically Decreases the Sharpness of Gradient Flow Solutions "
        "in Scalar Networks and Beyond",
        "Kreisler, Shpigel Nacson, Soudry, Carmon",
        "ICML 2023",
        "2305.13064",
        "calculus, eigenvalues, gradient descent",
        60,
    ),
    Chapter(
        3,
        "forgetting",
        "Catastrophic forgetting",
        "Learning one task after another is a walk of projections, and it can lose almost everything.",
        "How catastrophic can catastrophic forgetting be in linear regression?",
        "Evron, Moroshko, Ward, Srebro, Soudry",
        "COLT 2022",
        "2205.09588",
        "linear algebra: projections and norms",
        50,
    ),
    Chapter(
        4,
        "four_bit",
        "4-bit training",
        "Gradients survive in four bits if, and only if, they are rounded without bias.",
        "Accurate Neural Training with 4-bit Matrix Multiplications at Standard Formats",
        "Chmiel, Banner, Hoffer, Ben Yaacov, Soudry",
        "ICLR 2023",
        "2112.10769",
        "backpropagation, floating-point numbers, expectation and variance",
        60,
    ),
    Chapter(
        5,
        "sparsity",
        "N:M sparsity of gradients",
        "Keeping the largest entries is the wrong way to prune a gradient.",
        "Minimum Variance Unbiased N:M Sparsity for the Neural Gradients",
        "Chmiel, Hubara, Banner, Soudry",
        "ICLR 2023",
        "2203.10991",
        "backpropagation, expectation and variance",
        50,
    ),
    Chapter(
        6,
        "alias_free",
        "Alias-free convnets",
        "Slide a picture by a third of a pixel: most networks waver, one stands still.",
        "Alias-Free Convnets: Fractional Shift Invariance via Polynomial Activations",
        "Michaeli, Michaeli, Soudry",
        "CVPR 2023",
        "2303.08085",
        "convolutions, the Fourier transform",
        60,
    ),
    Chapter(
        7,
        "out_of_distribution",
        "Out-of-distribution testing",
        "A p-value for “this input is like nothing I was trained on”, with a guarantee.",
        "A Statistical Framework for Efficient Out of Distribution Detection in Deep Neural Networks",
        "Haroush, Frostig, Heller, Soudry",
        "ICLR 2022",
        "2102.12967",
        "hypothesis tests, convolutional networks",
        50,
    ),
    Chapter(
        8,
        "codewords",
        "Codewords for classes",
        "The same codebook gives easy or hard problems: it depends on who gets which word.",
        "The Role of Codeword-to-Class Assignments in Error-Correcting Codes: An Empirical Study",
        "Evron, Onn, Weiss, Azeroual, Soudry",
        "AISTATS 2023",
        "2302.05334",
        "linear classifiers, error-correcting codes help",
        50,
    ),
    Chapter(
        9,
        "bayesian_rl",
        "Bayesian reinforcement learning",
        "How many sampled tasks until a policy works on a new one, and why regularization decides it.",
        "Regularization Guarantees Generalization in Bayesian Reinforcement Learning through Algorithmic Stability",
        "Tamar, Soudry, Zisselman",
        "AAAI 2022",
        "2109.11792",
        "Markov decision processes, convex optimization",
        60,
    ),
    Chapter(
        10,
        "flood",
        "Flood modelling",
        "Average the terrain and water runs through the dikes; learn the coarse map through the solver instead.",
        "Physics-Aware Downsampling with Deep Learning for Scalable Flood Modeling",
        "Giladi, Ben-Haim, Nevo, Matias, Soudry",
        "NeurIPS 2021",
        "2106.07218",
        "partial derivatives, convolutional networks",
        60,
    ),
)


def open_chapters() -> tuple[Chapter, ...]:
    """The chapters that can be read, in order.

    Examples
    --------
    >>> open_chapters()[0].notebook
    '01_initialization_shape.ipynb'
    """
    return tuple(chapter for chapter in CHAPTERS if chapter.is_open)


def chapter(name: str) -> Chapter:
    """The open chapter of this name; a number, or a hyphen for an underscore, will do too.

    Raises
    ------
    ValueError
        If there is none, with the names that there are.

    Examples
    --------
    >>> chapter("1").name, chapter("initialization-shape").number
    ('initialization_shape', 1)
    """
    wanted = name.replace("-", "_")
    for candidate in open_chapters():
        if wanted in (candidate.name, str(candidate.number), f"{candidate.number:02d}"):
            return candidate
    known = ", ".join(candidate.name for candidate in open_chapters())
    raise ValueError(f"chapter must be one of {known}; it is {name!r}")
