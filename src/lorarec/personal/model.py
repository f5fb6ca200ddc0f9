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

    Puts mixed layers into the backbone's model; as a context manager it takes them out at the end. What is trained are
    this module's parameters: the router and, if `trainable`, the bank. The backbone is no part of the module and
    gets no gradient meanwhile. As any module it starts in training mode, where the router has dropout.

        with PersonalLora(backbone, meta_loras(backbone.model), width=64) as personal:
            personal.set_weights(personal(representation))
            scores = score_batch(backbone.model, examples, builder)

    Args:
        bank: fresh meta-LoRAs, or finished adapters (`AdapterBank.load`).
        width: size of the representations that the router reads: (batch, width) floats.
        combine: `factors` or `deltas` (see `AdapterBank.to_adapter`).
        temperature: of the router's softmax; the paper's are 1 to 15.
        trainable: train the bank; without it the router alone learns who gets how much of each finished adapter.
        record: Record of exported adapters: how they are prompted, and which data the bank was trained on.

    Attributes:
        mixed: the model with its mixed layers.
        router: representation -> weights.

    Raises:
        LorarecError: the rule is not defined on this bank, the model lacks one of its layers, or a bad size.
    """

    def __init__(
        self,
        backbone: Backbone,
        bank: AdapterBank,
        width: int,
        *,
        combine: str = FACTORS,
        temperature: float = 1.0,
        trainable: bool = True,
        record: AdapterRecord | None = None,
    ) -> None:
        super().__init__()
        self.router = Router(len(bank.layers), width, bank.size, temperature).to(backbone.model.device)
        self.backbone = backbone
        self.combine = combine
        self.trainable = trainable
        self.record = replace(
            record or AdapterRecord(), backbone_id=backbone.id, backbone_fingerprint=backbone.fingerprint
        )
        self._given = bank
        with ExitStack() as undo:
            undo.enter_context(frozen(backbone.model))
            self.mixed = undo.enter_context(inject(backbone.model, bank, combine, trainable))
            self._undo = undo.pop_all()
        layers = self.mixed.layers.values() if trainable else ()
        self.factors = nn.ParameterList(factor for layer in layers for factor in (layer.a, layer.b))

    def forward(self, representation: torch.Tensor) -> torch.Tensor:
        """Representations (batch, width) to weights (layers, batch, K) on the simplex, layers as in `bank`.

        Raises:
            LorarecError: another shape, or values that are not finite.
        """
        return self.router(representation.to(self.backbone.model.device))

    def set_weights(self, weights: torch.Tensor | None) -> None:
        """Set the mixtures of the rows of the model's next passes.

        Args:
            weights: (layers, batch, K); None is the backbone alone.
        """
        self.mixed.set_weights(None if weights is None else dict(zip(self.mixed.layers, weights, strict=True)))

    @property
    def bank(self) -> AdapterBank:
        """The bank as it is now, on the CPU."""
        if not self.trainable:
            return self._given
        factors = [factor.detach().cpu() for factor in self.factors]
        layers = zip(self._given.layers.items(), factors[::2], factors[1::2], strict=True)
        return replace(self._given, layers={name: replace(layer, a=a, b=b) for (name, layer), a, b in layers})

    def export(self, representation: torch.Tensor | None, out: str | Path, overwrite: bool = False) -> None:
        """Write the mixture of one representation (width,), or the router's mean one, as a plain PEFT folder.

        Raises:
            LorarecError: `out` exists, or a representation of another shape.
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
            save_adapter(bank.to_adapter(weights, self.combine), folder, self.backbone.id, record)

    def save(self, out: str | Path, overwrite: bool = False) -> None:
        """Write router and bank as `personal.safetensors` and their settings as `personal.json`, or nothing at all.

        Raises:
            LorarecError: `out` exists.
        """
        bank = self.bank
        state = {f"router.{name}": tensor for name, tensor in self.router.state_dict().items()}
        for name, layer in bank.layers.items():
            state |= {f"bank.{name}.a": layer.a, f"bank.{name}.b": layer.b}
        settings = {
            "width": self.router.width,
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
        """Read what `save` wrote and put it into the backbone's model.

        Raises:
            LorarecError: a file is missing or corrupted, or belongs to another backbone.
        """
        saved = read_saved(folder, backbone)
        personal = cls(
            backbone,
            saved.bank,
            saved.router.width,
            combine=saved.combine,
            temperature=saved.router.temperature,
            trainable=saved.trainable,
            record=saved.record,
        )
        personal.router.load_state_dict(saved.router.state_dict())
        return personal.eval()

    def remove(self) -> None:
        """Put the original layers back and let the backbone be trained again."""
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()
