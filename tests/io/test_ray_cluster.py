"""The division of a cluster's cores and GPUs."""

import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install 'lorarec[ray]'")

from lorarec.errors import LorarecError
from lorarec.io.ray_cluster import cores_each


@pytest.mark.parametrize(
    ("cores", "workers", "each"), [([8], 1, 8), ([8], 3, 2), ([4, 4], 3, 2), ([2, 16], 4, 4), ([1, 1, 0], 2, 1)]
)
def test_no_worker_needs_cores_of_two_machines(cores: list[int], workers: int, each: int) -> None:
    assert cores_each([{"CPU": count} for count in cores], workers, False) == each


def test_every_worker_has_a_gpu() -> None:
    machines = [{"CPU": 64}, {"CPU": 16, "GPU": 2}, {"CPU": 16, "GPU": 2}]
    assert cores_each(machines, 4, True) == 8
    with pytest.raises(LorarecError, match="workers=5: the cluster has room for 4 with a GPU and a core each"):
        cores_each(machines, 5, True)
