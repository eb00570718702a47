"""Exchanged layers run, wherever a network keeps them; what cannot be exchanged is named with the reason."""

import copy
import functools
import warnings
import weakref
from collections import deque

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from lib.exchange import copied, exchange_layers, exchange_report, give_class

RAN: list[nn.Module] = []


class Recorded(nn.Linear):
    """A linear layer that says when it runs."""

    def forward(self, input):
        RAN.append(self)
        return super().forward(input)


KINDS = {nn.Linear: Recorded}


def runs(model: nn.Module, *inputs) -> int:
    """So many different exchanged layers run, in training and evaluation, with gradients and without."""
    counts = set()
    for training in (True, False):
        for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
            RAN.clear()
            with mode():
                model.train(training)(*inputs)
            counts.add(len({id(layer) for layer in RAN}))
    (count,) = counts
    return count


class Loop(nn.Module):
    """Three layers, also kept in some other way, which is the one that is used."""

    def __init__(self, keep) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(8, 8) for _ in range(3))
        self.kept, self.used = keep(self)

    def forward(self, x):
        for layer in self.used(self.kept):
            x = layer(x).relu()
        return x


def three(self):
    return [self.a, self.b, self.c]


def same(kept):
    return kept


class Holder:
    def __init__(self, layers) -> None:
        self.layers = layers


HELD = {
    "list": lambda self: (three(self), same),
    "tuple": lambda self: (tuple(three(self)), same),
    "nested": lambda self: ([(each, {"width": 8}) for each in three(self)], lambda kept: [each for each, _ in kept]),
    "dict": lambda self: (dict(enumerate(three(self))), lambda kept: kept.values()),
    "deque": lambda self: (deque(three(self)), same),
    "object": lambda self: (Holder(three(self)), lambda kept: kept.layers),
    "partial": lambda self: ([functools.partial(each) for each in three(self)], same),
    "call": lambda self: ([each.__call__ for each in three(self)], same),
    "module list": lambda self: (nn.ModuleList(three(self)), same),
}


@pytest.mark.parametrize("kind", HELD)
def test_a_layer_that_is_kept_elsewhere_runs_there_too(kind) -> None:
    model = Loop(HELD[kind])
    other = copied(model)
    exchange_layers(other, KINDS)
    assert runs(other, torch.randn(2, 8)) == 3
    assert runs(model, torch.randn(2, 8)) == 0
    exchange_layers(model, KINDS)
    assert runs(model, torch.randn(2, 8)) == 3


REFERS = {
    "function": lambda self: ([lambda x, each=each: each(x) for each in three(self)], same),
    "closure": lambda self: ([lambda x: self.a(x).relu(), lambda x: self.b(self.c(x))], same),
    "weak": lambda self: ([weakref.ref(each) for each in three(self)], lambda kept: [each() for each in kept]),
}


@pytest.mark.parametrize("kind", REFERS)
def test_a_copy_that_calls_the_original_is_named(kind) -> None:
    """Python copies no function, and a weak reference refers to what it referred to."""
    model = Loop(REFERS[kind])
    with pytest.warns(UserWarning, match="kept of the copy still refers to layers of the original"):
        other = copied(model)
    with pytest.warns(UserWarning, match="no layer with weights was exchanged"):
        report = exchange_layers(other, KINDS, example=torch.randn(2, 8))
    assert set(report.kept) == {"a", "b", "c"}
    exchange_layers(model, KINDS)
    assert runs(model, torch.randn(2, 8)) == 3


def test_methods_that_an_exchange_does_not_reach_are_named() -> None:
    model = Loop(lambda self: ([self.a.forward, self.b, self.c], same))
    model.b.forward = functools.partial(nn.Linear.forward, model.b)
    report = exchange_layers(model, KINDS)
    assert report.exchanged == {"c": "Recorded"}
    assert report.kept["a"] == "kept holds its former method forward"
    assert "its own attribute forward" in report.kept["b"]
    assert runs(model, torch.randn(2, 8)) == 1


class OnlyWeights(nn.Module):
    """One layer that is called; the weights of the other are taken, as in Swin's attention."""

    def __init__(self) -> None:
        super().__init__()
        self.second, self.first = nn.Linear(4, 4), nn.Linear(4, 4)
        self.taken = nn.Linear(4, 4)

    def forward(self, x, *, scale=1.0):
        return self.second(nn.functional.linear(self.first(x), self.taken.weight) * scale)


class OwnFastPath(OnlyWeights):
    def forward(self, x):
        if torch.is_grad_enabled():
            return self.taken(x)
        return nn.functional.linear(x, self.taken.weight)


def test_an_example_shows_which_layers_are_called_and_changes_nothing() -> None:
    x = torch.randn(3, 4)
    model = OnlyWeights()
    before = torch.get_rng_state()
    report = exchange_layers(model, KINDS, example={"x": x, "scale": 2.0})
    assert torch.equal(torch.get_rng_state(), before)
    assert report.exchanged == {"second": "Recorded", "first": "Recorded"}
    assert report.kept == {"taken": "it is never called on the example"}
    assert runs(model, x) == 2
    with pytest.raises(ValueError, match="example must be an input of the model"):
        exchange_layers(OnlyWeights(), KINDS, example=torch.randn(3, 5))
    normed = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 4)).eval()
    state = copy.deepcopy(normed.state_dict())
    exchange_layers(normed, KINDS, example=torch.randn(5, 4))
    assert all(torch.equal(state[name], value) for name, value in normed.state_dict().items())
    assert not normed.training
    assert normed(torch.ones(2, 4)).requires_grad


NOTHING = {
    "no layer": (nn.Identity(), {}, {}),
    "others": (nn.Sequential(nn.GRU(4, 4)), {}, {"0": "there is no exchange for GRU"}),
    "first and last": (
        OnlyWeights(), {"skip": ("first", "last"), "example": torch.ones(3, 4)},
        {"first": "the first layer", "second": "the last layer", "taken": "it is never called on the example"},
    ),
    "own fast path": (
        OwnFastPath(), {"example": (torch.ones(3, 4),)},
        {"taken": "it is called only with gradients, or only without"} | dict.fromkeys(
            ("first", "second"), "it is never called on the example"
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("net", "options", "kept"), NOTHING.values(), ids=NOTHING)
def test_nothing_exchanged_is_a_warning(net, options, kept) -> None:
    with pytest.warns(UserWarning, match="no layer with weights was exchanged"):
        report = exchange_layers(net, KINDS, **options)
    assert report.exchanged == {}
    assert report.kept == kept


def encoder_layer(**settings):
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, **settings)


def encoder():
    return nn.TransformerEncoder(encoder_layer(), 2)


class Subclass(nn.TransformerEncoderLayer):
    """Somebody's own."""


TRANSFORMERS = {
    "layer": (encoder_layer, 2, ()),
    "norm first": (lambda: encoder_layer(norm_first=True), 2, ()),
    "gelu": (lambda: encoder_layer(activation="gelu"), 2, ()),
    "module": (lambda: encoder_layer(activation=nn.ReLU()), 2, ()),
    "subclass": (lambda: Subclass(8, 2, 16, dropout=0.0, batch_first=True), 2, ()),
    "frozen": (lambda: encoder_layer().requires_grad_(False), 2, ()),
    "encoder": (encoder, 4, ()),
    "padded": (encoder, 4, (None, torch.tensor([[False] * 5, [False] * 3 + [True] * 2]))),
    "in a network": (lambda: nn.Sequential(nn.Linear(8, 8), encoder(), nn.Linear(8, 3)), 6, ()),
}


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_torchs_fast_path_does_not_pass_by_exchanged_layers(kind) -> None:
    """The last ones only, too: the encoder looks at its first layer alone. Float transformers keep the fast path."""
    make, count, more = TRANSFORMERS[kind]
    x = torch.randn(2, 5, 8)
    model, untouched = make(), encoder_layer().eval()
    report = exchange_layers(model, KINDS)
    assert runs(model, x, *more) == len(report.exchanged) == count
    last = make()
    exchange_layers(last, KINDS, skip=lambda name, _: name != list(report.exchanged)[-1])
    assert runs(last, x, *more) == 1
    named = [name for name in report.kept if name.endswith("out_proj")]
    assert all("never calls it" in report.kept[name] for name in named)
    assert named
    assert untouched.activation_relu_or_gelu == 1
    assert torch.backends.mha.get_fastpath_enabled()


def test_what_cannot_be_exchanged_is_named() -> None:
    class Own(nn.Linear):
        pass

    model = nn.ModuleDict(
        {
            "linear": nn.Linear(4, 4),
            "own": Own(4, 4),
            "lazy": nn.LazyLinear(4),
            "pair": nn.Bilinear(4, 4, 4),
            "words": nn.Embedding(4, 4),
            "gru": nn.GRU(4, 4),
            "attention": nn.MultiheadAttention(4, 2),
            "norm": nn.LayerNorm(4),
            "spectral gru": parametrizations.spectral_norm(nn.GRU(4, 4), "weight_hh_l0"),
            "already": Recorded(4, 4),
        }
    )
    model["attention"].out_proj = nn.Linear(4, 4)  # as adapters put it there
    report = exchange_layers(model, KINDS)
    assert report.exchanged == {"linear": "Recorded"}
    assert "call the model once" in report.kept["lazy"]
    assert "never calls it" in report.kept["attention.out_proj"]
    assert "Recorded already" in report.kept["already"]
    for name, kind in (("own", "Own"), ("pair", "Bilinear"), ("words", "Embedding"), ("gru", "GRU")):
        assert report.kept[name] == f"there is no exchange for {kind}"
    assert report.kept["spectral gru"] == "there is no exchange for GRU"
    assert set(model) - set(report.kept) == {"linear", "norm"}
    assert exchange_report(model) is report
    assert "not exchanged, there is no exchange for GRU: gru, spectral gru" in str(report)
    with pytest.raises(ValueError, match="whose layers were exchanged"):
        exchange_report(nn.Linear(1, 1))
    with pytest.raises(TypeError, match="model must be a torch module"):
        exchange_report(None)


@pytest.mark.parametrize(
    "wrap", [parametrizations.weight_norm, parametrizations.spectral_norm, parametrizations.orthogonal]
)
def test_parametrised_layers_run_with_the_weights_that_they_compute(wrap) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(wrap(nn.Linear(8, 8)) for _ in range(3))).eval()
    x = torch.randn(2, 8)
    expected = model(x)
    other = copied(model)
    report = exchange_layers(other, KINDS)
    assert list(report.exchanged) == ["0", "1", "2"]
    assert not report.kept
    assert torch.equal(other(x), expected)
    assert runs(other, x) == 3
    assert runs(model, x) == 0
    other(x).sum().backward()
    assert all(parameter.grad is not None for name, parameter in other.named_parameters() if "bias" not in name)
    assert other.state_dict().keys() == model.state_dict().keys()
    assert isinstance(copy.deepcopy(other)[0], Recorded)
    nn.utils.parametrize.remove_parametrizations(other[0], "weight")
    assert type(other[0]) is Recorded


def test_shared_layers_stay_shared_and_classes_of_others_are_left_alone() -> None:
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.Sequential(shared), nn.Linear(4, 4))
    other = copied(model)
    assert list(exchange_layers(other, KINDS).exchanged) == ["0", "2"]
    assert other[0] is other[1][0]
    assert type(shared) is nn.Linear
    give_class(shared, Recorded)
    assert type(model[1][0]) is Recorded


def test_what_cannot_be_copied_is_refused_with_the_way_out() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the older weight_norm is on its way out
        nn.utils.weight_norm(model[0])
    model(torch.ones(1, 4))
    with pytest.raises(ValueError, match="model cannot be copied; inplace=True"):
        copied(model)
    exchange_layers(model, KINDS)
    assert runs(model, torch.ones(1, 4)) == 2


@pytest.mark.parametrize("skip", ["first", ("middle",)])
def test_other_words_for_skip_are_refused(skip) -> None:
    with pytest.raises(ValueError, match="skip must hold first"):
        exchange_layers(nn.Linear(2, 2), KINDS, skip=skip)
