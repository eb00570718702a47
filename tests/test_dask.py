"""The same work on a cluster: a surrounding `joblib.parallel_config` carries it to two workers of dask's."""

import os

import joblib
import pytest
import torch

from lib.alias_free import Attack, robustness_table, trained_network
from lib.datasets import clothes
from lib.flood.scenarios import draw_floods
from lib.parallel import in_parallel

# of dask's and tornado's own, at their start and end
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def cluster():
    from distributed import Client, LocalCluster

    workers = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, memory_limit=None)
    with workers, Client(workers), joblib.parallel_config(backend="dask"):
        yield


def who(_: int) -> int:
    return os.getpid()


def test_two_workers_share_the_work(cluster) -> None:
    found = set(in_parallel(who, [(k,) for k in range(40)], "asking"))
    assert os.getpid() not in found
    assert len(found) == 2


def test_floods(cluster) -> None:
    found = draw_floods(4, seed=1, kind="rain", side=32)
    with joblib.parallel_config(backend="sequential"):
        wanted = draw_floods(4, seed=1, kind="rain", side=32)
    assert torch.equal(found.h, wanted.h)


def test_networks_under_attack(cluster) -> None:
    networks = {mode: trained_network(mode).model for mode in ("baseline", "afc")}
    attacks = {"roll": Attack("circular", [(0, 1), (0.3, 0.4)])}
    found = robustness_table(networks, *clothes("test", 40).tensors, attacks, part=20)
    with joblib.parallel_config(backend="sequential"):
        assert robustness_table(networks, *clothes("test", 40).tensors, attacks, part=20) == found
