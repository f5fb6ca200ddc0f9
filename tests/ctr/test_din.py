import torch

from lorarec.ctr.din import Interest


def test_the_weight_of_a_behaviour_is_the_output_of_the_network():
    torch.manual_seed(0)
    interest = Interest(target_size=6, behaviour_size=8)
    target, behaviours = torch.randn(3, 6), torch.randn(3, 5, 8)
    mask = torch.arange(5) < torch.tensor([[5], [2], [0]])
    expected = torch.zeros(3, 8)
    for event in range(3):
        for behaviour in behaviours[event][mask[event]]:
            item = behaviour[:6]
            read = torch.cat([behaviour, target[event], target[event] - item, target[event] * item])
            expected[event] += interest.rest(interest.first(read)) * behaviour
    torch.testing.assert_close(interest(target, behaviours, mask), expected)
