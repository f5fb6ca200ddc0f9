"""Personal LoRA: a bank of adapters whose mixture a router chooses for every row of a batch, layer by layer."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from safetensors.torch import save_file
from torch import nn

from lorarec.backbone import Backbone
from lorarec.io import FolderKind, new_folder, versions, write_json
from lorarec.lora import (
    FACTORS,
    AdapterBank,
    AdapterRecord,
    MixtureRecord,
    frozen,
    inject,
    save_adapter,
    write_template,
)
from lorarec.personal.router import Router
from lorarec.personal.saved import SETTINGS, TENSORS, read_saved
from lorarec.scoring import evaluation_mode


class PersonalLora(nn.Module):
    """RecLoRA (arXiv 2408.03533): h = W x + mix(A_1..K, B_1..K, w) x, with w from a router that reads (user, target).

    The backbone's linear layers are replaced by mixed layers until the context manager exits. The parameters of this
    module are those of the router and, if `trainable`, of the bank; the backbone is not part of the module and is
    frozen. Like any module it starts in training mode, in which the router has dropout.

        with PersonalLora(backbone, meta_loras(backbone.model), input_size=64) as personal:
            personal.set_weights(personal(representation))
            scores = score_batch(backbone.model, examples, builder)

    Args:
        backbone: Backbone.
        bank: Fresh meta-LoRAs, or finished adapters (`AdapterBank.load`).
        input_size: Size of the representations that the router reads.
        combine: Rule by which adapters are combined, `factors` or `deltas` (see `AdapterBank.to_adapter`).
        temperature: Temperature of the router's softmax; the paper uses 1 to 15.
        trainable: Train the bank; otherwise the router alone is trained.
        record: Record of exported adapters: their prompt options and the data that the bank was trained on.

    Attributes:
        mixed: Model with its mixed layers.
        router: Router from representations to weights.

    Raises:
        LorarecError: If the rule is not defined for this bank, the model lacks one of its layers, or a size is below 1.
    """

    def __init__(
        self,
        backbone: Backbone,
        bank: AdapterBank,
        input_size: int,
        *,
        combine: str = FACTORS,
        temperature: float = 1.0,
        trainable: bool = True,
        record: AdapterRecord | None = None,
    ) -> None:
        super().__init__()
        self.router = Router(len(bank.layers), input_size, bank.size, temperature).to(backbone.model.device)
        self.backbone = backbone
        self.combine = combine
        self.trainable = trainable
        self.record = replace(
            record or AdapterRecord(), backbone_id=backbone.id, backbone_fingerprint=backbone.fingerprint
        )
        self._given = bank
        with ExitStack() as contexts:
            contexts.enter_context(frozen(backbone.model))
            self.mixed = contexts.enter_context(inject(backbone.model, bank, combine, trainable))
            self._contexts = contexts.pop_all()
        layers = self.mixed.layers.values() if trainable else ()
        self.factors = nn.ParameterList(factor for layer in layers for factor in (layer.a, layer.b))

    def forward(self, representation: torch.Tensor) -> torch.Tensor:
        """Map representations (batch, input_size) to weights (layers, batch, K) on the simplex, layers as in `bank`.

        Raises:
            LorarecError: If the shape is not (batch, input_size), or values are not finite.
        """
        return self.router(representation.to(self.backbone.model.device))

    def set_weights(self, weights: torch.Tensor | None) -> None:
        """Set the mixture of each row for the next forward passes of the model.

        Args:
            weights: Weights (layers, batch, K); None for the backbone alone.
        """
        self.mixed.set_weights(None if weights is None else dict(zip(self.mixed.layers, weights, strict=True)))

    @property
    def bank(self) -> AdapterBank:
        """The bank with its current parameters, on the CPU."""
        if not self.trainable:
            return self._given
        factors = [factor.detach().cpu() for factor in self.factors]
        layers = zip(self._given.layers.items(), factors[::2], factors[1::2], strict=True)
        return replace(self._given, layers={name: replace(layer, a=a, b=b) for (name, layer), a, b in layers})

    def export(self, representation: torch.Tensor | None, out: str | Path, overwrite: bool = False) -> None:
        """Write the mixture of one representation (input_size,), or the router's mean mixture, as a plain PEFT folder.

        Raises:
            LorarecError: If `out` exists, or the representation has another shape.
        """
        with torch.no_grad(), evaluation_mode(self.router):
            chosen = (self.router.mean if representation is None else self(representation[None])[:, 0]).cpu()
        bank = self.bank
        weights = dict(zip(bank.layers, chosen, strict=True))
        by_layer = {name: w.tolist() for name, w in weights.items()}
        record = replace(
            self.record,
            personal=MixtureRecord(by_layer, list(bank.names), {"combine": self.combine}),
            details={"versions": versions()} | self.record.details,
        )
        with new_folder(out, overwrite, FolderKind.ADAPTER) as folder:
            save_adapter(bank.to_adapter(weights, self.combine), folder, self.backbone.base_model, record)

    def save(self, out: str | Path, overwrite: bool = False) -> None:
        """Write router and bank as `personal.safetensors` and their settings as `personal.json`.

        Raises:
            LorarecError: If `out` exists.
        """
        bank = self.bank
        state = {f"router.{name}": tensor for name, tensor in self.router.state_dict().items()}
        for name, layer in bank.layers.items():
            state |= {f"bank.{name}.a": layer.a, f"bank.{name}.b": layer.b}
        settings = {
            "width": self.router.input_size,
            "combine": self.combine,
            "temperature": self.router.temperature,
            "trainable": self.trainable,
            "names": bank.names,
            "config": bank.config,
            "layers": {name: {"scale": v.scale.tolist(), "ranks": v.ranks} for name, v in bank.layers.items()},
            "record": self.record.to_json(),
        }
        with new_folder(out, overwrite, FolderKind.PERSONAL_LORA) as folder:
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
            save_file(tensors, folder / TENSORS, metadata={"format": "pt"})
            backbone = {"id": self.backbone.id, "fingerprint": self.backbone.fingerprint}
            write_json(folder / SETTINGS, {"backbone": backbone, "versions": versions(), "personal": settings})
            write_template(folder, self.record)

    @classmethod
    def load(cls, folder: str | Path, backbone: Backbone) -> Self:
        """Load a folder that `save` wrote, and add it to the backbone's model.

        Raises:
            LorarecError: If a file is missing or corrupted, or belongs to another backbone.
        """
        saved = read_saved(folder, backbone)
        personal = cls(
            backbone,
            saved.bank,
            saved.router.input_size,
            combine=saved.combine,
            temperature=saved.router.temperature,
            trainable=saved.trainable,
            record=saved.record,
        )
        personal.router.load_state_dict(saved.router.state_dict())
        return personal.eval()

    def remove(self) -> None:
        """Restore the original layers, and make the backbone trainable again."""
        self._contexts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()
