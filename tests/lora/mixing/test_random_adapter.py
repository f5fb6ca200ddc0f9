import torch

from lorarec.lora import mix, prompt_config, read_adapter, same_tensors, write_random_adapter


def test_a_random_adapter_has_the_form_of_another(tiny_backbone, adapters, tmp_path):
    other = read_adapter(adapters[0], tiny_backbone)
    found = write_random_adapter(adapters[0], tmp_path / "random", seed=3)
    assert read_adapter(tmp_path / "random", tiny_backbone).fingerprint == found.fingerprint
    assert (found.ranks, found.scales) == (other.ranks, other.scales)
    assert prompt_config(found) == prompt_config(other)
    for name, matrices in other.tensors.items():
        for own, theirs in zip(found.tensors[name], matrices, strict=True):
            assert abs(torch.corrcoef(torch.stack([own.flatten(), theirs.flatten()]))[0, 1]) < 0.5
    squares = [
        torch.cat([m.flatten() for pair in each.tensors.values() for m in pair]).square().mean()
        for each in (found, other)
    ]
    torch.testing.assert_close(*squares, rtol=0.1, atol=0)
    mix(tiny_backbone, [found, adapters[0]], tmp_path / "mixed", method="fixed", weights=[0.5, 0.5])


def test_a_random_adapter_depends_on_the_seed_alone(tiny_backbone, adapters, tmp_path):
    one, again, other = (
        write_random_adapter(adapters[0], tmp_path / name, seed) for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert same_tensors(one, again)
    assert not same_tensors(one, other)
