"""FMLP-Rec's filter against the convolution it is, written from the formula."""

import pytest
import torch

from lorarec.recommenders.sequential.fmlp_rec_encoder import FMLPRecEncoder


@pytest.mark.parametrize("max_history", [5, 6])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_the_last_place_is_that_of_filtering_all_places(max_history: int, num_layers: int) -> None:
    torch.manual_seed(0)
    model = FMLPRecEncoder(8, max_history, num_layers, 0.0).eval()
    histories = torch.randn(4, max_history, 8)
    states = model.norm(histories + model.places.weight)
    for block in model.blocks:
        # Section 3.2: the spectrum of every feature over the places, each frequency times its own number.
        spectrum = torch.fft.fft(states, dim=1)
        half = torch.view_as_complex(block.filter)
        # The filter of real signals: conjugates mirror it; the mean has no phase, nor the highest of an even number.
        mirrored = torch.cat([half, half[1 : (max_history + 1) // 2].flip(0).conj()])
        for alone in [0] + ([max_history // 2] if max_history % 2 == 0 else []):
            mirrored[alone] = mirrored[alone].real + 0j
        filtered = torch.fft.ifft(spectrum * mirrored, dim=1).real
        states = block.norms[0](states + filtered)
        states = block.norms[1](states + block.mix(states))
    torch.testing.assert_close(model(histories), states[:, -1:], atol=1e-5, rtol=1e-5)


def test_short_histories_are_filled_up_in_front() -> None:
    torch.manual_seed(0)
    model = FMLPRecEncoder(8, 6, 2, 0.0).eval()
    history = torch.randn(1, 4, 8)
    filled = torch.cat([torch.zeros(1, 2, 8), history], 1)
    torch.testing.assert_close(model(history), model(filled))
