"""Module, containers, hooks, state: the machinery. The layers themselves: test_vs_torch_nn.py and the ops' records."""

from __future__ import annotations

import copy
from collections import OrderedDict

import numpy as np
import pytest

import fastnn
from fastnn import nn


class Scale(nn.Module):
    def __init__(self, factor=2.0):
        super().__init__()
        self.factor = nn.Parameter(np.array([factor], np.float32))
        self.register_buffer("calls", fastnn.tensor(0))
        self.register_buffer("scratch", fastnn.tensor([1.0]), persistent=False)

    def forward(self, x):
        return x * self.factor


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = Scale()
        self.rest = nn.ModuleList([Scale(3.0), nn.Sequential(Scale(4.0), nn.ReLU())])
        self.own = nn.Parameter(np.zeros(2, np.float32))

    def forward(self, x):
        x = self.first(x)
        for module in self.rest:
            x = module(x)
        return x + self.own


X = np.array([1.0, -2.0], np.float32)


# -- attributes ------------------------------------------------------------------------------------------------------
def test_names_in_order_of_registration():
    net = Net()
    assert [n for n, _ in net.named_parameters()] == ["own", "first.factor", "rest.0.factor", "rest.1.0.factor"]
    assert [n for n, _ in net.named_modules()] == ["", "first", "rest", "rest.0", "rest.1", "rest.1.0", "rest.1.1"]
    assert [n for n, _ in net.named_children()] == ["first", "rest"]
    assert [n for n, _ in net.named_buffers()][:2] == ["first.calls", "first.scratch"]
    assert [n for n, _ in net.named_parameters("net", recurse=False)] == ["net.own"]
    assert len(list(net.parameters())) == 4 and len(list(net.modules())) == 7
    assert net.first.factor is net.get_parameter("first.factor") is next(iter(net.first.parameters()))
    assert net.get_submodule("rest.1.0") is net.rest[1][0] and net.get_submodule("") is net
    assert net.get_buffer("first.calls") is net.first.calls
    for call in (net.get_submodule, net.get_parameter, net.get_buffer):
        with pytest.raises(AttributeError, match="nowhere"):
            call("rest.nowhere")


def test_shared_modules_and_parameters_count_once():
    a = nn.Linear(2, 2)
    b = nn.Linear(2, 2)
    b.weight = a.weight
    net = nn.Sequential(a, a, b)
    assert [n for n, _ in net.named_parameters()] == ["0.weight", "0.bias", "2.bias"]
    assert len(list(net.named_parameters(remove_duplicate=False))) == 6
    assert [n for n, _ in net.named_modules()] == ["", "0", "2"]
    assert [n for n, _ in net.named_modules(remove_duplicate=False)] == ["", "0", "1", "2"]
    assert list(net.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"]


def test_assignment_rules():
    m = nn.Linear(2, 3)
    with pytest.raises(TypeError, match="cannot assign a Tensor as parameter 'weight'"):
        m.weight = fastnn.tensor([1.0])
    m.bias = None
    assert [n for n, _ in m.named_parameters()] == ["weight"] and m(np.ones((1, 2), np.float32)).shape == (1, 3)
    m.bias = nn.Parameter(np.zeros(3, np.float32))
    assert [n for n, _ in m.named_parameters()] == ["weight", "bias"]
    m.note = "plain attributes are plain"
    m.note = nn.Parameter(np.zeros(1))  # becomes a parameter
    assert "note" in dict(m.named_parameters())
    m.note = nn.ReLU()  # becomes a module
    assert "note" not in dict(m.named_parameters()) and "note" in dict(m.named_children())
    with pytest.raises(TypeError, match="as module 'note'"):
        m.note = 3
    del m.note
    assert not hasattr(m, "note") and not list(m.children())
    with pytest.raises(AttributeError, match="'Linear' object has no attribute 'wieght'"):
        m.wieght  # noqa: B018
    with pytest.raises(AttributeError):
        del m.wieght
    s = Scale()
    s.calls = fastnn.tensor(5)
    assert s.state_dict()["calls"].item() == 5
    with pytest.raises(TypeError, match="as buffer 'calls'"):
        s.calls = 5


def test_registering():
    m = nn.Module()
    for bad in ("", "a.b"):
        with pytest.raises(KeyError, match="must not be empty or contain"):
            m.register_parameter(bad, None)
    with pytest.raises(KeyError, match="already has"):
        m.register_buffer("forward", None)
    with pytest.raises(TypeError, match="Parameter or None"):
        m.register_parameter("p", fastnn.tensor([1.0]))
    with pytest.raises(TypeError, match="Tensor or None"):
        m.register_buffer("b", np.ones(1))
    with pytest.raises(TypeError, match="Module or None"):
        m.add_module("m", 3)
    m.register_parameter("p", None)
    assert m.p is None and not m.state_dict()
    m.p = nn.Parameter(np.ones(1))
    assert list(m.state_dict()) == ["p"]


def test_forgotten_super_init():
    class Forgetful(nn.Module):
        def __init__(self):
            self.layer = nn.ReLU()

    with pytest.raises(AttributeError, match=r"before Forgetful has called super\(\).__init__\(\)"):
        Forgetful()


def test_forward_must_be_defined():
    with pytest.raises(NotImplementedError, match="Module does not define forward"):
        nn.Module()(1)


def test_parameter():
    t = fastnn.tensor([1.0, 2.0])
    p = nn.Parameter(t)
    assert p.requires_grad and p.array is t.array and repr(p).startswith("Parameter containing:\ntensor([1., 2.]")
    assert type(p * 2) is fastnn.Tensor
    with pytest.raises(TypeError, match="floating-point"):
        nn.Parameter(np.ones(2, np.int64))
    assert not nn.Parameter(np.ones(2, np.int64), requires_grad=False).requires_grad
    with pytest.raises(TypeError, match="list"):
        nn.Parameter([1.0])


# -- all at once -----------------------------------------------------------------------------------------------------
def test_train_eval_requires_grad_zero_grad_apply():
    net = Net()
    assert net.eval() is net and not any(m.training for m in net.modules())
    assert net.train().rest[1].training
    with pytest.raises(ValueError, match="True or False"):
        net.train("yes")
    net(X).sum().backward()
    gradient = net.own.grad.array
    net.zero_grad(set_to_none=False)
    assert net.own.grad.array is gradient and not gradient.any()
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    net.requires_grad_(False)
    assert not net(X).requires_grad
    seen = []
    assert net.apply(lambda m: seen.append(type(m).__name__)) is net
    assert seen[0] == "Scale" and seen[-1] == "Net"


def test_to():
    net = Net()
    net(X).sum().backward()
    p = net.own
    assert net.double() is net and net.own is p and p.dtype == p.grad.dtype == np.float64
    assert net.first.calls.dtype == np.int64 and net.first.scratch.dtype == np.float64
    net.to("cpu", np.float32)
    assert p.dtype == np.float32
    net.to(fastnn.tensor([1.0], dtype=np.float64))
    assert p.dtype == np.float64
    assert net.to(dtype="float32").own.dtype == np.float32
    with pytest.raises(TypeError, match="float32 or float64"):
        net.to(np.float16)
    with pytest.raises(ValueError, match="cuda:one"):
        net.to("cuda:one")


def test_deep_copy_is_independent():
    net = Net()
    other = copy.deepcopy(net)
    other.own.array[...] = 7
    assert not net.own.array.any() and [n for n, _ in other.named_parameters()] == [
        n for n, _ in net.named_parameters()
    ]
    np.testing.assert_array_equal(other(X).detach(), net(X).detach() + 7)


# -- state -----------------------------------------------------------------------------------------------------------
def test_state_dict_shares_memory_and_skips_transient_buffers():
    net = Net()
    state = net.state_dict()
    assert list(state)[:3] == ["own", "first.factor", "first.calls"] and "first.scratch" not in state
    assert state["own"].array is net.own.array and not state["own"].requires_grad
    assert net.state_dict(keep_vars=True)["own"] is net.own
    assert next(iter(net.state_dict(prefix="net."))) == "net.own"


def test_load_state_dict():
    source, target = Net(), Net()
    source.own.array[...] = [5, 6]
    source.first.calls.array[...] = 9
    array = target.own.array
    result = target.load_state_dict({k: v.array.astype(np.float64) for k, v in source.state_dict().items()})
    assert result == ([], []) and target.own.array is array and target.own.dtype == np.float32
    assert target.own.tolist() == [5, 6] and target.first.calls.item() == 9
    y = (target.own * target.own).sum()
    target.load_state_dict(source.state_dict())
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()
    given = {"own": np.array([1, 2], np.float32)}
    assert target.load_state_dict(given, strict=False, assign=True).missing_keys[0] == "first.factor"
    assert target.own.array is given["own"]


@pytest.mark.parametrize("replace", [lambda net: net.load_state_dict(Net().state_dict(), assign=True), Net.double])
def test_a_change_of_an_array_is_remembered_when_another_takes_its_place(replace):
    net = Net()
    y = (net.own * net.own).sum()
    with fastnn.no_grad():
        net.own.fill_(3)
        replace(net)
        net.own.fill_(4)
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


def test_load_state_dict_checks_what_it_writes_to_first():
    net = Net()
    before = [p.array.tobytes() for p in net.parameters()]
    state = {name: x.array + 1 for name, x in net.state_dict().items()}
    *_, last = net.parameters()
    last.array.flags.writeable = False
    with pytest.raises(ValueError, match="is read-only in this model; pass assign=True"):
        net.load_state_dict(state)
    assert [p.array.tobytes() for p in net.parameters()] == before
    with pytest.raises(ValueError, match="'own' is int64, which cannot take the place of float32"):
        net.load_state_dict({**state, "own": np.array([1, 2])}, assign=True)
    assert [p.array.tobytes() for p in net.parameters()] == before
    net.load_state_dict(state, assign=True)
    assert last.array.flags.writeable


@pytest.mark.parametrize("error", [ValueError, RuntimeError])
def test_load_state_dict_lists_every_culprit_and_changes_nothing(error):
    net = Net()
    state = {**net.state_dict(), "own": np.ones(3), "rest.0.factor": np.ones(1), "rest.0.calls": np.array("x")}
    state["weight"] = state.pop("first.factor")
    with pytest.raises(error) as caught:
        net.load_state_dict(state)
    message = str(caught.value)
    for part in ("Net", "missing 'first.factor'", "unexpected 'weight'", "'own' has shape (3,), this model's is (2,)"):
        assert part in message
    assert "'rest.0.calls' holds <U1" in message and "\n" not in message
    assert net.rest[0].factor.item() == 3.0
    with pytest.raises(error, match="own"):  # a wrong shape is never ignored
        net.load_state_dict(state, strict=False)
    with pytest.raises(TypeError, match="expected a dict"):
        net.load_state_dict([1])


# -- errors ----------------------------------------------------------------------------------------------------------
class Fails(nn.Module):
    def forward(self, x, error=None):
        raise error or ValueError("fails: wrong shape")


def test_errors_name_the_layer():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleDict({"a": nn.Sequential(nn.ReLU(), Fails())})

        def forward(self, x):
            return self.parts["a"](x)

    with pytest.raises(ValueError, match=r"^parts\.a\.1 \(Fails\): fails: wrong shape$"):
        Outer()(X)
    with pytest.raises(ValueError, match=r"^0\.parts\.a\.1 \(Fails\): fails: wrong shape$"):
        nn.Sequential(Outer())(X)
    with pytest.raises(ValueError, match=r"^fails: wrong shape$"):
        Fails()(X)
    with pytest.raises(TypeError, match=r"^1 \(Linear\): "):
        nn.Sequential(nn.ReLU(), nn.Linear(2, 2))(np.ones((2, 2)))  # float64 for a float32 layer
    unusual = UnicodeDecodeError("utf8", b"x", 0, 1, "reason")  # of ValueError's family, but not its arguments
    with pytest.raises(UnicodeDecodeError, match="reason"):
        nn.Sequential(type("Raises", (nn.Module,), {"forward": lambda self, x: Fails()(x, unusual)})())(X)


# -- hooks -----------------------------------------------------------------------------------------------------------
def test_forward_hooks():
    m, seen = Scale(), []
    before = m.register_forward_pre_hook(lambda module, args: seen.append(("before", args[0])) or (args[0] + 1,))
    after = m.register_forward_hook(lambda module, args, y: seen.append(("after", args[0])) or y * 10)
    assert m(fastnn.tensor([1.0])).tolist() == [40.0]
    assert [s[0] for s in seen] == ["before", "after"] and seen[1][1].tolist() == [2.0]
    before.remove()
    before.remove()  # twice is harmless
    assert m(fastnn.tensor([1.0])).tolist() == [20.0]
    after.remove()
    with m.register_forward_hook(lambda module, args, y: -y):
        assert m(fastnn.tensor([1.0])).tolist() == [-2.0]
    assert m(fastnn.tensor([1.0])).tolist() == [2.0]
    with pytest.raises(TypeError, match="callable"):
        m.register_forward_hook(3)


def test_hooks_with_kwargs_and_order():
    class Add(nn.Module):
        def forward(self, x, y=0):
            return x + y

    m, seen = Add(), []
    m.register_forward_pre_hook(lambda module, args, kwargs: (args, {"y": kwargs["y"] * 2}), with_kwargs=True)
    m.register_forward_hook(lambda module, args, kwargs, out: seen.append(kwargs["y"]), with_kwargs=True)
    m.register_forward_hook(lambda module, args, out: seen.append("first"), prepend=True)
    assert m(1, y=3) == 7 and seen == ["first", 6]


def test_backward_hooks():
    m, seen = Scale(3.0), []

    def hook(module, grad_input, grad_output):
        seen.append((None if grad_input[0] is None else grad_input[0].tolist(), grad_output[0].tolist()))
        return (grad_input[0] * 10,) if grad_input[0] is not None else None

    handle = m.register_full_backward_hook(hook)
    x = fastnn.tensor([1.0, 2.0], requires_grad=True)
    (m(x) * 5).sum().backward()
    assert (
        seen == [([15.0, 15.0], [5.0, 5.0])] and x.grad.tolist() == [150.0, 150.0] and m.factor.grad.tolist() == [15.0]
    )
    m(X).sum().backward()  # an input without gradient
    assert seen[1] == (None, [1.0, 1.0])
    handle.remove()
    m(x).sum().backward()
    assert len(seen) == 2


# -- containers ------------------------------------------------------------------------------------------------------
def test_sequential():
    a, b, c = nn.ReLU(), nn.Tanh(), nn.Sigmoid()
    s = nn.Sequential(a, b)
    assert len(s) == 2 and s[0] is a and s[-1] is b and list(s) == [a, b] and b in s
    assert s.append(c) is s and list(s[1:]) == [b, c] and isinstance(s[1:], nn.Sequential)
    s.insert(0, c)
    assert [n for n, _ in s.named_modules()] == ["", "0", "1", "2"] and list(s) == [c, a, b, c]
    s[1] = b
    del s[0]
    assert list(s) == [b, b, c] and [n for n, _ in s.named_children()] == ["0", "2"]
    assert s.pop() is c and len(s) == 2
    with pytest.raises(IndexError, match="index 5 is out of range for 2 modules"):
        s[5]
    named = nn.Sequential(OrderedDict([("act", a), ("out", b)]))
    assert named.act is a and [n for n, _ in named.named_children()] == ["act", "out"]
    assert [n for n, _ in named[1:].named_children()] == ["out"]
    assert nn.Sequential()(X) is X
    with pytest.raises(TypeError, match="add_module"):
        nn.Sequential(a, 3)


def test_module_list_and_dict():
    a, b = nn.ReLU(), nn.Linear(1, 1)
    layers = nn.ModuleList([a]).extend([b])
    assert list(layers + [a]) == [a, b, a] and isinstance(layers[:1], nn.ModuleList)
    assert list(layers.state_dict()) == ["1.weight", "1.bias"]
    d = nn.ModuleDict({"x": a})
    d["y"] = b
    assert list(d) == ["x", "y"] == list(d.keys()) and list(d.values()) == [a, b] and d.pop("x") is a and len(d) == 1
    assert dict(d.items()) == {"y": b} and list(d.state_dict()) == ["y.weight", "y.bias"]
    with pytest.raises(KeyError):
        d["nowhere"]


# -- initialisation --------------------------------------------------------------------------------------------------
def big(*shape, dtype=np.float32):
    return fastnn.tensor(np.full(shape, np.nan, dtype))


def test_init_distributions():
    fastnn.manual_seed(3)
    u = nn.init.uniform_(big(100_000), -1, 3).array
    assert u.min() >= -1 and u.max() < 3 and abs(u.mean() - 1) < 0.02 and abs(u.std() - 4 / 12**0.5) < 0.02
    n = nn.init.normal_(big(100_000), 2, 3).array
    assert abs(n.mean() - 2) < 0.05 and abs(n.std() - 3) < 0.05 and abs(((n - 2) ** 4).mean() / 81 - 3) < 0.15
    t = nn.init.trunc_normal_(big(100_000), 1, 2, 0, 4).array
    assert t.min() >= 0 and t.max() <= 4 and t.min() < 0.01 and t.max() > 3.99 and abs(t.mean() - 1.7126) < 0.01
    far = nn.init.trunc_normal_(big(1000), 0, 1, 4.0, 4.5).array
    assert far.min() >= 4 and far.max() <= 4.5
    for make, bound in (
        (lambda w: nn.init.xavier_uniform_(w, 2), 2 * (6 / (90 + 180)) ** 0.5),
        (lambda w: nn.init.kaiming_uniform_(w), (6 / 90) ** 0.5),
        (lambda w: nn.init.kaiming_uniform_(w, mode="fan_out", nonlinearity="tanh"), 5 / 3 * (3 / 180) ** 0.5),
    ):
        w = make(big(20, 10, 3, 3)).array
        assert (
            abs(w).max() <= bound * 1.000001
            and abs(w).max() > 0.99 * bound
            and abs(w.std() * 3**0.5 / bound - 1) < 0.05
        )
    for make, std in (
        (lambda w: nn.init.xavier_normal_(w), (2 / 270) ** 0.5),
        (lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"), (2 / 90) ** 0.5),
    ):
        assert abs(make(big(20, 10, 3, 3)).array.std() / std - 1) < 0.06
    assert nn.init.eye_(big(2, 3)).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert nn.init.constant_(big(2), 3).tolist() == [3, 3] and nn.init.ones_(big(1)).tolist() == [1]


def test_init_is_repeatable_and_accepts_parameters():
    def run(dtype):
        fastnn.manual_seed(11)
        return nn.Linear(7, 5, dtype=dtype)

    a, b = run(np.float32), run(np.float32)
    assert a.weight.array.tobytes() == b.weight.array.tobytes() and a.bias.array.tobytes() == b.bias.array.tobytes()
    assert run(np.float64).weight.dtype == np.float64
    assert abs(a.weight.array).max() <= 7**-0.5 and abs(a.bias.array).max() <= 7**-0.5
    assert len(np.unique(np.concatenate([a.weight.array.ravel(), a.bias.array]))) == 40


def test_init_arguments():
    for message, call in (
        ("at least 2 dimensions", lambda: nn.init.kaiming_uniform_(big(3))),
        ("mode must be", lambda: nn.init.kaiming_uniform_(big(3, 3), mode="fan")),
        ("unknown nonlinearity 'gelu'", lambda: nn.init.calculate_gain("gelu")),
        ("2 dimensions", lambda: nn.init.eye_(big(3))),
        ("std", lambda: nn.init.normal_(big(3), 0, -1)),
        ("low must not exceed high", lambda: nn.init.uniform_(big(3), 1, 0)),
        ("a < b", lambda: nn.init.trunc_normal_(big(3), a=1, b=1)),
        ("no inputs", lambda: nn.init.kaiming_normal_(big(3, 0))),
        ("uniform_: generator must be None", lambda: nn.init.uniform_(big(3), generator=1)),
        ("kaiming_normal_: generator must be None", lambda: nn.init.kaiming_normal_(big(3, 3), generator=1)),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.Linear(-1, 2), "Linear: 'in_features' must be at least 0, got -1"),
        (lambda: nn.Conv2d(4, 6, 3, groups=4), r"Conv2d: out_channels \(6\) must be divisible by groups \(4\)"),
        (lambda: nn.Conv2d(1, 1, 0), "kernel_size"),
        (lambda: nn.Conv2d(1, 1, (1, 2, 3)), "pair"),
        (lambda: nn.Conv2d(1, 1, 3, padding="full"), "padding must be"),
        (lambda: nn.Conv2d(1, 1, 3, 2, "same"), "needs stride 1"),
        (lambda: nn.Conv2d(1, 1, 3, padding_mode="mirror"), "'padding_mode' must be 'zeros'"),
        (lambda: nn.Dropout(1.5), "p is a probability"),
        (lambda: nn.GELU("fast"), "approximate"),
        (lambda: nn.MSELoss(reduction="average"), "'reduction' must be 'none', 'mean' or 'sum'"),
        (lambda: nn.L1Loss(size_average=True), "size_average"),
        (lambda: nn.MultiMarginLoss(p=3), "p must be 1 or 2"),
        (lambda: nn.Linear(2, 2, device="cuda:one"), "cuda:one"),
    ],
)
def test_layer_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", ["uniform_", "normal_", "trunc_normal_", "xavier_uniform_", "xavier_normal_",
                                  "kaiming_uniform_", "kaiming_normal_"])  # fmt: skip
def test_init_without_a_generator(name):
    fastnn.manual_seed(1)
    first = getattr(nn.init, name)(big(3, 4), generator=None)
    fastnn.manual_seed(1)
    np.testing.assert_array_equal(first.array, getattr(nn.init, name)(big(3, 4)).array)


def test_weights_of_losses_may_be_arrays():
    weight = np.array([1, 3], np.float32)
    x, target = fastnn.ones(2, 2), fastnn.tensor([[0.0, 1.0], [1.0, 1.0]])
    labels = fastnn.tensor([0, 1])
    for loss, y in ((nn.CrossEntropyLoss, labels), (nn.NLLLoss, labels), (nn.BCEWithLogitsLoss, target)):
        by_array, by_tensor = loss(weight=weight), loss(weight=fastnn.tensor(weight))
        assert by_array(x, y).item() == by_tensor(x, y).item() and "weight" in by_array.state_dict()
    assert nn.BCEWithLogitsLoss(pos_weight=weight).pos_weight.array is weight
    with pytest.raises(TypeError, match="'weight' must be a Tensor"):
        nn.CrossEntropyLoss(weight=[1.0, 3.0])


def test_layer_argument_types():
    with pytest.raises(TypeError, match="Dropout: 'p' must be a number, got 'a'"):
        nn.Dropout("a")
    with pytest.raises(TypeError, match=r"'in_features' must be an int, got 2\.5"):
        nn.Linear(2.5, 2)
    with pytest.raises(TypeError, match="float32 or float64, got float16"):
        nn.Linear(2, 2, dtype=np.float16)


def test_layers_without_elements():
    assert nn.Linear(0, 3)(np.ones((2, 0), np.float32)).tolist() == [[0, 0, 0]] * 2
    assert nn.Linear(3, 0)(np.ones((2, 3), np.float32)).shape == (2, 0)


# -- utils -----------------------------------------------------------------------------------------------------------
def test_vector_of_parameters():
    net = nn.Linear(2, 3)
    v = nn.utils.parameters_to_vector(net.parameters())
    assert v.shape == (9,) and v.tolist() == [*net.weight.array.ravel(), *net.bias.array]
    nn.utils.vector_to_parameters(fastnn.tensor(np.arange(9, dtype=np.float32)), net.parameters())
    assert net.weight.tolist() == [[0, 1], [2, 3], [4, 5]] and net.bias.tolist() == [6, 7, 8]
    with pytest.raises(ValueError, match=r"needs a vector of 9 elements, got shape \(8,\)"):
        nn.utils.vector_to_parameters(fastnn.tensor(np.zeros(8, np.float32)), net.parameters())
