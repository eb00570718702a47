"""The ten chapters: everything that is said of one outside of its wing is said here, once."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

__all__ = ["CHAPTERS", "ROADS", "Chapter", "chapter", "open_chapters"]

#: The rows of the map of chapters, from top to bottom.
ROADS = ("theory of learning", "training with less", "models in the world")


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """One paper, one notebook, one wing of the package.

    Attributes:
        name: That of the package `lib.<name>` and, with the number, of the notebook.
        promise: What it shows, in one sentence.
        authors: As "family name, given name".
        road: The row of the map in which it stands, one of `ROADS`.
        needs, builds_on: What a reader should know, and the names of earlier chapters whose results it uses.
        minutes: Reading time, playing included; `in_depth`, of what is optional.
        lesson: Whether the notebook has the shape that tests/notebooks/lesson_guards.py checks.
        headline: The comparison that docs/speed.md leads with: a group of tests/benchmarks/results.json, and a peer in
            it.
        data: The functions of `lib.<name>.shipped` that make the data which ship with the package.
    """

    number: int
    name: str
    title: str
    promise: str
    paper: str
    authors: tuple[str, ...]
    conference: str
    year: int
    arxiv: str
    road: str
    needs: str
    builds_on: tuple[str, ...] = ()
    minutes: int
    in_depth: int = 0
    lesson: bool = False
    headline: tuple[str, str] | None = None
    data: tuple[str, ...] = ()

    @property
    def notebook(self) -> str:
        """Its file."""
        return f"{self.number:02d}_{self.name}.ipynb"

    @property
    def time(self) -> str:
        """Minutes, and after a plus those of what is optional."""
        return f"{self.minutes} + {self.in_depth}" if self.in_depth else str(self.minutes)

    @property
    def venue(self) -> str:
        """Conference and year."""
        return f"{self.conference} {self.year}"

    @property
    def people(self) -> tuple[tuple[str, str], ...]:
        """Given and family names of the authors."""
        return tuple((given, family) for family, _, given in (name.partition(", ") for name in self.authors))

    @property
    def is_open(self) -> bool:
        """Whether the chapter can be read: its package is there, and has a ledger."""
        wing = Path(__file__).parent / self.name
        return PathFinder.find_spec("claims", [str(wing)]) is not None


CHAPTERS: tuple[Chapter, ...] = (
    Chapter(
        number=1,
        name="initialization_shape",
        title="Initialization shape",
        promise="Small weights do not make a sparse solution: how the layers share them decides as much.",
        paper="On the Implicit Bias of Initialization Shape: Beyond Infinitesimal Mirror Descent",
        authors=(
            "Azulay, Shahar",
            "Moroshko, Edward",
            "Shpigel Nacson, Mor",
            "Woodworth, Blake",
            "Srebro, Nathan",
            "Globerson, Amir",
            "Soudry, Daniel",
        ),
        conference="ICML",
        year=2021,
        arxiv="2102.09769",
        road="theory of learning",
        needs="linear algebra, calculus, what gradient descent is",
        minutes=60,
        headline=("the minimiser of Q, d = 1000, n = 100 (α = 0.0001, s = 0.5)", "CVXPY with Clarabel"),
    ),
    Chapter(
        number=2,
        name="edge_of_stability",
        title="The edge of stability",
        promise="The loss jumps about, the sharpness bounces, and one quantity only ever falls.",
        paper="Gradient Descent Monotonically Decreases the Sharpness of Gradient Flow Solutions "
        "in Scalar Networks and Beyond",
        authors=("Kreisler, Itai", "Shpigel Nacson, Mor", "Soudry, Daniel", "Carmon, Yair"),
        conference="ICML",
        year=2023,
        arxiv="2305.13064",
        road="theory of learning",
        needs="calculus, eigenvalues, gradient descent",
        builds_on=("initialization_shape",),
        minutes=45,
        in_depth=35,
        lesson=True,
        headline=(
            "the sharpness φ of a 64-8-1 tanh network on 50 digits (loss 1e-4)",
            "RK4 with steps of one over the sharpness",
        ),
        data=("edge_runs",),
    ),
    Chapter(
        number=3,
        name="forgetting",
        title="Catastrophic forgetting",
        promise="Learning one task after another is a walk of projections, and it can lose almost everything.",
        paper="How catastrophic can catastrophic forgetting be in linear regression?",
        authors=("Evron, Itay", "Moroshko, Edward", "Ward, Rachel", "Srebro, Nathan", "Soudry, Daniel"),
        conference="COLT",
        year=2022,
        arxiv="2205.09588",
        road="theory of learning",
        needs="linear algebra: projections and norms",
        minutes=45,
        in_depth=40,
        lesson=True,
        headline=("20,000 cyclic steps on one row each, 200 × 400", "kaczmarz-algorithms, Cyclic"),
    ),
    Chapter(
        number=4,
        name="four_bit",
        title="4-bit training",
        promise="Gradients survive in four bits if, and only if, they are rounded without bias.",
        paper="Accurate Neural Training with 4-bit Matrix Multiplications at Standard Formats",
        authors=("Chmiel, Brian", "Banner, Ron", "Hoffer, Elad", "Ben Yaacov, Hilla", "Soudry, Daniel"),
        conference="ICLR",
        year=2023,
        arxiv="2112.10769",
        road="training with less",
        needs="backpropagation, floating-point numbers, expectation and variance",
        minutes=60,
        headline=("quantise 4,194,304 gradients to 4 bits, one thread", "torchao to_mx (E2M1, blocks of 32)"),
        data=("four_bit_runs", "four_bit_gradient"),
    ),
    Chapter(
        number=5,
        name="sparsity",
        title="N:M sparsity of gradients",
        promise="Keep the largest entries of a gradient and descent ends at a wrong point; "
        "draw them, with the right chances, and it ends at the right one.",
        paper="Minimum Variance Unbiased N:M Sparsity for the Neural Gradients",
        authors=("Chmiel, Brian", "Hubara, Itay", "Banner, Ron", "Soudry, Daniel"),
        conference="ICLR",
        year=2023,
        arxiv="2203.10991",
        road="training with less",
        needs="backpropagation, expectation and variance",
        builds_on=("four_bit",),
        minutes=45,
        in_depth=35,
        lesson=True,
        headline=(
            "exact MVUE 2:4, 2,097,152 float32, one thread, blocks along dim 0",
            "approximation by two draws of torch.multinomial",
        ),
        data=("sparsity_races", "sparsity_crossover"),
    ),
    Chapter(
        number=6,
        name="alias_free",
        title="Alias-free convnets",
        promise="Slide a picture by a third of a pixel: most networks waver, one stands still.",
        paper="Alias-Free Convnets: Fractional Shift Invariance via Polynomial Activations",
        authors=("Michaeli, Hagay", "Michaeli, Tomer", "Soudry, Daniel"),
        conference="CVPR",
        year=2023,
        arxiv="2303.08085",
        road="models in the world",
        needs="convolutions, the Fourier transform",
        minutes=60,
        headline=(
            "ConvNeXt-Tiny without aliases, one picture of 224 × 224, forward",
            "published form: zeros between, twice the grid, FFTs at full size",
        ),
        data=("alias_free_networks", "alias_free_attacks"),
    ),
    Chapter(
        number=7,
        name="out_of_distribution",
        title="Out-of-distribution testing",
        promise="A p-value for “this input is like nothing I was trained on”, with a guarantee.",
        paper="A Statistical Framework for Efficient Out of Distribution Detection in Deep Neural Networks",
        authors=("Haroush, Matan", "Frostig, Tzviel", "Heller, Ruth", "Soudry, Daniel"),
        conference="ICLR",
        year=2022,
        arxiv="2102.12967",
        road="models in the world",
        needs="hypothesis tests, convolutional networks",
        minutes=50,
    ),
    Chapter(
        number=8,
        name="codewords",
        title="Codewords for classes",
        promise="The same codebook gives easy or hard problems: it depends on who gets which word.",
        paper="The Role of Codeword-to-Class Assignments in Error-Correcting Codes: An Empirical Study",
        authors=("Evron, Itay", "Onn, Ophir", "Weiss, Tamar", "Azeroual, Hai", "Soudry, Daniel"),
        conference="AISTATS",
        year=2023,
        arxiv="2302.05334",
        road="models in the world",
        needs="linear classifiers, error-correcting codes help",
        minutes=50,
    ),
    Chapter(
        number=9,
        name="bayesian_rl",
        title="Bayesian reinforcement learning",
        promise="How many sampled tasks until a policy works on a new one, and why regularization decides it.",
        paper="Regularization Guarantees Generalization in Bayesian Reinforcement Learning "
        "through Algorithmic Stability",
        authors=("Tamar, Aviv", "Soudry, Daniel", "Zisselman, Ev"),
        conference="AAAI",
        year=2022,
        arxiv="2109.11792",
        road="theory of learning",
        needs="Markov decision processes, convex optimization",
        minutes=60,
    ),
    Chapter(
        number=10,
        name="flood",
        title="Flood modelling",
        promise="Average the terrain and water runs through the dikes; "
        "learn the coarse map through the solver instead.",
        paper="Physics-Aware Downsampling with Deep Learning for Scalable Flood Modeling",
        authors=("Giladi, Niv", "Ben-Haim, Zvika", "Nevo, Sella", "Matias, Yossi", "Soudry, Daniel"),
        conference="NeurIPS",
        year=2021,
        arxiv="2106.07218",
        road="models in the world",
        needs="partial derivatives, convolutional networks",
        minutes=60,
        headline=("flood of 150 s on 256 × 256 real elevations, one thread", "landlab OverlandFlow, float64"),
        data=("flood_networks",),
    ),
)


def open_chapters() -> tuple[Chapter, ...]:
    """The chapters that can be read, in order."""
    return tuple(chapter for chapter in CHAPTERS if chapter.is_open)


def chapter(name: str) -> Chapter:
    """The open chapter of this name; a number, or a hyphen for an underscore, will do too.

    Examples:
        >>> chapter("1").name, chapter("initialization-shape").number
        ('initialization_shape', 1)
    """
    wanted = name.replace("-", "_")
    for candidate in open_chapters():
        if wanted in (candidate.name, str(candidate.number), f"{candidate.number:02d}"):
            return candidate
    known = ", ".join(candidate.name for candidate in open_chapters())
    raise ValueError(f"chapter must be one of {known}; it is {name!r}")
