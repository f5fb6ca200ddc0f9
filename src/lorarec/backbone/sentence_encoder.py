"""Sentence encoders: embeddings of texts by a sentence-transformers model."""

import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import filter_repo_objects
from safetensors import SafetensorError

from lorarec.backbone.devices import default_device
from lorarec.backbone.load import weights_dtype
from lorarec.errors import LorarecError
from lorarec.io import file_fingerprint, track

#: Organisation of the hub that a name without one belongs to, as in sentence-transformers.
ORGANISATION = "sentence-transformers"
#: File that lists the modules of a sentence-transformers model.
MODULES = "modules.json"
#: Files of a repository that encoding does not read: documentation and copies of the weights for other libraries.
UNREAD = ("*.md", "*.h5", "*.msgpack", "*.ot", "*.png", ".*", "onnx/*", "openvino/*", "pytorch_model.bin")
#: Number of texts between two updates of the progress; they are sorted by length before they are divided into batches.
TEXTS_AT_ONCE = 1024


@dataclass(frozen=True)
class SentenceEncoder:
    """A sentence-transformers model. The weights are loaded by `encode`.

    Attributes:
        id: Hub id or path that the model was named by.
        folder: Folder of the model's files.
        fingerprint: Hash of the model's files, 16 hexadecimal digits, the same for a hub id and a folder.
    """

    id: str
    folder: Path
    fingerprint: str

    @classmethod
    def from_pretrained(cls, model_id_or_path: str | Path) -> Self:
        """Find the files of a sentence-transformers model; those of a hub id are downloaded once.

        Args:
            model_id_or_path: Path of a folder that `SentenceTransformer.save_pretrained` wrote, or a hub id.

        Raises:
            LorarecError: The model is missing, or is not a sentence-transformers model.
        """
        folder = _folder(str(model_id_or_path))
        if not (folder / MODULES).is_file():
            raise LorarecError(
                f"text_encoder {model_id_or_path} is not a sentence-transformers model (it has no {MODULES}): give a "
                "folder or hub id of one, such as sentence-transformers/all-MiniLM-L6-v2"
            )
        return cls(str(model_id_or_path), folder, _fingerprint(folder))

    def encode(self, texts: Sequence[str], batch_size: int = 64, progress: bool = False) -> np.ndarray:
        """Return the embeddings of texts, scaled to length 1: array of shape (texts, size), float32.

        The texts get the prompt that the model's configuration names as its default, if there is one. The transformer's
        weights are read from safetensors, and no code that comes with the model is run.

        Args:
            texts: One text or more.
            batch_size: Number of texts per forward pass.
            progress: Whether to show a progress bar.

        Raises:
            LorarecError: sentence-transformers is not installed, the model cannot be loaded, or the embedding of a text
                is not a finite vector of length 1.
        """
        require_sentence_transformers()
        from sentence_transformers import SentenceTransformer

        device = default_device()
        arguments = {"dtype": weights_dtype("auto", device, self.id), "use_safetensors": True}
        try:
            model = SentenceTransformer(str(self.folder), device=device, local_files_only=True, model_kwargs=arguments)
        except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
            lines = [line for line in str(error).splitlines() if line.strip()] or [repr(error)]
            raise LorarecError(f"text_encoder {self.id} cannot be loaded: {lines[0]}") from error
        parts = [texts[first : first + TEXTS_AT_ONCE] for first in range(0, len(texts), TEXTS_AT_ONCE)]
        vectors = np.concatenate(
            [
                model.encode(list(part), batch_size=batch_size, show_progress_bar=False, normalize_embeddings=True)
                for part in track(parts, "Reading titles", progress)
            ]
        ).astype(np.float32)
        # NaN is not close to 1 either.
        wrong = np.flatnonzero(~(np.abs(np.linalg.norm(vectors, axis=1) - 1) < 0.01))
        if len(wrong):
            raise LorarecError(
                f"text_encoder {self.id} has no embedding of text {wrong[0]}, {texts[wrong[0]]!r}: give every item a "
                "title that the encoder can read"
            )
        return vectors


def require_sentence_transformers() -> None:
    """Check that sentence-transformers is installed, without the seconds that it takes to load.

    Raises:
        LorarecError: It is not.
    """
    if importlib.util.find_spec("sentence_transformers") is None:
        raise LorarecError("option text_encoder needs sentence-transformers: pip install 'lorarec[text]'")


def _folder(name: str) -> Path:
    """Return the folder of a model's files, which are downloaded unless the name is a path."""
    if Path(name).is_dir():
        return Path(name)
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise LorarecError(f"text_encoder {name} is not a folder: give a sentence-transformers folder or a hub id")
    repository = name if "/" in name else f"{ORGANISATION}/{name}"
    try:
        return Path(snapshot_download(repository, ignore_patterns=list(UNREAD)))
    except LocalEntryNotFoundError as error:
        raise LorarecError(
            f"text_encoder {name}: there is no such folder, and the hub cannot be reached and its cache does not have "
            "the files: download them with a connection first, or give a folder"
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = next(line for line in [*str(error).splitlines(), repr(error)] if line.strip())
        raise LorarecError(f"text_encoder {name} cannot be downloaded: {reason}") from error


def _fingerprint(folder: Path) -> str:
    """Return a hash of the names and contents of the files that encoding may read."""
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    digest = hashlib.sha256()
    for path in filter_repo_objects(paths, ignore_patterns=list(UNREAD)):
        digest.update(f"{path} {file_fingerprint(folder / path)}\n".encode())
    return digest.hexdigest()[:16]
