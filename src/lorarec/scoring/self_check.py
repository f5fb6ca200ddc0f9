"""Check of a model: its scores of many candidates at once must equal those of one candidate at a time."""

import contextlib
import hashlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lorarec.errors import LorarecError
from lorarec.io import versions, write_json
from lorarec.prompts import Example
from lorarec.scoring.batches import TOKEN_BUDGET
from lorarec.scoring.one_pass import branch_scores, rows_scores
from lorarec.scoring.plan import model_name, plan_for

#: Lengths in tokens of the four candidates.
BRANCHES = (1, 7, 3, 5)
#: Length in tokens of the prompt for a model without attention windows; for others the prompt exceeds the smallest
#: window by BEYOND_WINDOW tokens.
PROMPT_TOKENS, BEYOND_WINDOW = 48, 16
#: Smallest tolerance, in log-odds or log-probabilities.
LEAST_TOLERANCE = 1e-3
#: Largest ratio of a difference to that of the same sequences in a batch, where only rounding differs.
MARGIN = 4


@dataclass(frozen=True)
class ScoringCheck:
    """Result of scoring four candidates at once, in the reverse order, and one by one.

    Attributes:
        model: Class and model type.
        plan: Kind of the model's scoring plan.
        reason: Reason why no faster plan is exact for the model; empty for `tree`.
        prompt_tokens: Length of the prompt in tokens.
        windows: Sizes of the model's attention windows in tokens.
        max_positions: Length in tokens of the longest sequence that the model is defined on, or None.
        difference: Largest difference from scoring one by one, in log-odds or log-probabilities.
        tolerance: Largest difference that rounding explains.
    """

    model: str
    plan: str
    reason: str
    prompt_tokens: int
    windows: Sequence[int]
    max_positions: int | None
    difference: float
    tolerance: float

    @property
    def exact(self) -> bool:
        """Whether all scores are finite and within the tolerance."""
        return math.isfinite(self.difference) and self.difference <= self.tolerance

    def require(self) -> None:
        """Refuse a model whose scores are not exact.

        Raises:
            LorarecError: The difference is above the tolerance; the message names the model.
        """
        if not self.exact:
            raise LorarecError(
                f"{self.model} cannot be scored exactly: by plan {self.plan} its scores differ by "
                f"{self.difference:.2g} from those of one candidate at a time, more than the {self.tolerance:.2g} that "
                "rounding explains"
            )


@torch.no_grad()
def check_scoring(model: Any) -> ScoringCheck:
    """Score random candidates at once, in chunks, in the reverse order, and one by one, by both readouts.

    The prompt is longer than the model's smallest attention window, where its positions reach that far.

    Args:
        model: A Hugging Face causal LM in evaluation mode.

    Raises:
        LorarecError: No plan is exact for the model, or a forward pass fails; the message names it.
    """
    plan = plan_for(model)
    length = PROMPT_TOKENS
    if plan.windows:
        length = max(length, plan.windows[0] + BEYOND_WINDOW)
    if plan.max_positions is not None:
        length = min(length, plan.max_positions - max(BRANCHES))
    if length < 1:
        raise LorarecError(f"{model_name(model)} cannot be scored: it has {plan.max_positions} positions only")
    draws = np.random.default_rng(0)
    vocabulary = model.config.get_text_config(decoder=True).vocab_size
    prompt, *branches = (draws.integers(vocabulary, size=tokens).tolist() for tokens in (length, *BRANCHES))
    example = Example(prompt, branches)
    yes, no = (int(token) for token in draws.choice(vocabulary, 2, replace=False))
    try:
        one_by_one, largest = _one_by_one(model, example, (yes, no))
        in_batch = rows_scores(model, example, (yes, no))
        differences = [
            (scores - expected[order]).abs().max()
            for readout, expected in one_by_one.items()
            for order in (list(range(len(BRANCHES))), list(range(len(BRANCHES)))[::-1])
            for budget in (TOKEN_BUDGET, length + max(BRANCHES))
            for scores in branch_scores(
                model, [Example(example.prompt, [example.branches[i] for i in order])], readout, (yes, no), budget
            )
        ]
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError, NotImplementedError) as error:
        cause = " ".join(str(error).split())[:200]
        raise LorarecError(f"{model_name(model)} cannot be scored: {type(error).__name__}: {cause}") from error
    unit = torch.finfo(model.dtype).eps * largest
    rounding = max(float((in_batch[readout] - expected).abs().max()) for readout, expected in one_by_one.items())
    return ScoringCheck(
        model_name(model),
        plan.kind,
        plan.reason,
        length,
        plan.windows,
        plan.max_positions,
        # Every comparison with NaN is false, so NaN has to become a difference.
        difference=float(torch.stack(differences).nan_to_num(float("inf")).max()),
        # In a model that is not causal, padding changes the scores of a batch: that difference is not rounding.
        tolerance=max(LEAST_TOLERANCE, 2 * unit, MARGIN * min(rounding, unit)),
    )


def _one_by_one(model: Any, example: Example, yes_no: tuple[int, int]) -> tuple[dict[str, torch.Tensor], float]:
    """Return the scores of the branches by readout, each from a pass of its own, and the largest logit."""
    verdicts, likelihoods, largest = [], [], 0.0
    for branch in example.branches:
        ids = torch.tensor([example.prompt + branch], device=model.device)
        logits = model(input_ids=ids, use_cache=False).logits[0].float()
        verdicts.append(logits[-1, yes_no[0]] - logits[-1, yes_no[1]])
        log_probs = logits[len(example.prompt) - 1 : -1].log_softmax(-1)
        likelihoods.append(log_probs.gather(1, ids[0, len(example.prompt) :, None]).sum())
        largest = max(largest, float(logits.abs().max()))
    return {"verdict": torch.stack(verdicts), "likelihood": torch.stack(likelihoods)}, largest


def require_exact(model: Any, fingerprint: str) -> ScoringCheck:
    """Check a model's scores unless the same weights, configuration, libraries, device and precision passed before.

    The result is stored in the user's cache folder (`LORAREC_CACHE`, else `lorarec` in `XDG_CACHE_HOME` or
    `~/.cache`).

    Args:
        model: A Hugging Face causal LM in evaluation mode.
        fingerprint: Fingerprint of the model's weights.

    Raises:
        LorarecError: The scores differ, or as for `check_scoring`; the message names the model.
    """
    plan = plan_for(model)
    config = model.config.get_text_config(decoder=True)
    made_with = [fingerprint, versions(), model.device.type, str(model.dtype), plan.kind, config._attn_implementation]
    settings = {name: value for name, value in config.to_dict().items() if name != "_name_or_path"}
    key = hashlib.sha256(json.dumps([made_with, settings], sort_keys=True, default=str).encode()).hexdigest()[:32]
    stored = cache_folder() / "scoring" / f"{key}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        known = ScoringCheck(**json.loads(stored.read_text(encoding="utf-8")))
        if known.exact:
            return known
    check = check_scoring(model)
    check.require()
    # If the cache cannot be written, the next process measures again.
    with contextlib.suppress(OSError, LorarecError):
        stored.parent.mkdir(parents=True, exist_ok=True)
        write_json(stored, asdict(check))
    return check


def cache_folder() -> Path:
    """Return the user's cache folder of lorarec, which is in the temporary folder for users without a home."""
    if folder := os.environ.get("LORAREC_CACHE"):
        return Path(folder)
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder) / "lorarec"
    try:
        return Path.home() / ".cache" / "lorarec"
    except RuntimeError:
        if sys.platform == "win32":  # the temporary folder is the user's own
            return Path(tempfile.gettempdir()) / "lorarec"
        return Path(tempfile.gettempdir()) / f"lorarec-{os.getuid()}"
