"""The one door to DeepSpeed: processes, ZeRO, precision, clipping, and the state it saves.

Works alone (one process, no launcher: a group of one on a free port) and under `torchrun` or `deepspeed`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # read when DeepSpeed is imported

import deepspeed
import deepspeed.ops
from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address

from train.config import Config
from train.data import Batch
from train.lmm import Losses, SceneModel

_TAG = "state"


class WeightsOnly(TorchCheckpointEngine):
    """DeepSpeed's files, read without running pickled code."""

    def save(self, state_dict: Any, path: str) -> None:
        torch.save(state_dict, path)

    def load(self, path: str, map_location: Any = None) -> Any:
        with torch.serialization.safe_globals([LossScaler, ZeroStageEnum, fragment_address]):
            return torch.load(path, map_location=map_location, weights_only=True)


def start_processes(config: Config) -> None:
    """Join the process group that the launcher describes, or a group of one."""
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    alone = "MASTER_ADDR" not in os.environ  # every launcher sets it
    if alone:
        os.environ.update({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"})
    local = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
    torch.set_num_threads(config.threads or max(1, (os.cpu_count() or 1) // local))
    # of use to tensor parallelism only, and building it takes a compiler and a minute
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if alone:  # a group of one keeps its state here and opens no port
        store = torch.distributed.HashStore()
        torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    if not deepspeed.comm.is_initialized():
        deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)


def stop_processes() -> None:
    """Leave the process group; another may be joined afterwards."""
    deepspeed.comm.destroy_process_group()


def rank() -> int:
    return torch.distributed.get_rank()


def world_size() -> int:
    return torch.distributed.get_world_size()


def from_first(value: Any) -> Any:
    """The first process's value, in every process."""
    told = [value]
    torch.distributed.broadcast_object_list(told)
    return told[0]


def ds_config(config: Config, accumulation: int) -> dict[str, Any]:
    """DeepSpeed's settings, all from ours."""
    zero: dict[str, Any] = {"stage": config.engine.zero_stage}
    if config.engine.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu"}
    return {
        "train_micro_batch_size_per_gpu": config.batch.micro,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": config.optimizer.clip,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        "torch_autocast": {"enabled": config.engine.precision == "bf16", "dtype": "bfloat16"},
        "steps_per_print": 10**9,
    }


class Engine:
    """A model under DeepSpeed; every process of the group makes the same calls."""

    def __init__(self, model: SceneModel, config: Config):
        self.config = config
        self.accumulation = config.accumulation(world_size())
        groups = parameter_groups(model, config)
        optimizer = torch.optim.AdamW(
            groups,
            betas=(config.optimizer.beta1, config.optimizer.beta2),
            weight_decay=config.optimizer.weight_decay,
        )
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=model,
            optimizer=optimizer,
            model_parameters=[p for group in groups for p in group["params"]],
            config=ds_config(config, self.accumulation),
        )
        self._engine.checkpoint_engine = WeightsOnly()
        self._engine.train()

    @property
    def device(self) -> torch.device:
        return self._engine.device

    @property
    def clips_per_step(self) -> int:
        """Over all processes."""
        return self.accumulation * self.config.batch.micro * world_size()

    @property
    def model(self) -> SceneModel:
        return self._engine.module

    def count(self, batches: Sequence[Batch]) -> float:
        """Texts of the global batch; a clip without texts counts as one.

        A step's loss is a mean over them, so all processes must know their number before the first backward.
        """
        return float(self.sum(torch.stack([batch.weight.sum() for batch in batches]).sum()))

    def forward_backward(self, batch: Batch, count: float, **steps: bool) -> Losses:
        """One micro-step. `count`: texts of the global batch, by which the summed loss is divided.

        DeepSpeed averages gradients over processes and micro-steps; the factor turns that into a sum.
        """
        losses = self._engine(batch, **steps)
        self._engine.backward(losses.total * (world_size() * self.accumulation / count))
        if not self._engine.is_gradient_accumulation_boundary():
            self._engine.step()  # counts the micro-step, changes nothing
        return losses

    def step(self, progress: float) -> float:
        """Update the weights after the last micro-step; `progress` in (0, 1] scales the learning rates.

        Returns the gradient norm before clipping.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak"] * progress
        norm = None
        if self.config.engine.zero_stage == 0:  # DeepSpeed does not keep this one
            grads = [p.grad for p in self.model.parameters() if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(grads)
        self._engine.step()
        return float(self._engine.get_global_grad_norm() if norm is None else norm)

    def sum(self, values: Tensor) -> Tensor:
        """Sum of a small tensor over all processes."""
        if world_size() > 1:
            torch.distributed.all_reduce(values)
        return values

    def barrier(self) -> None:
        if world_size() > 1:
            torch.distributed.barrier()

    def save(self, folder: Path) -> None:
        """Write weights, optimizer state and counters of this process."""
        self._engine.save_checkpoint(str(folder), tag=_TAG, save_latest=False)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote, with the same number of processes. ValueError: it is not there."""
        if not (folder / _TAG).is_dir():
            raise ValueError(f"{folder}: no optimizer state there, expected what this trainer writes")
        self._engine.load_checkpoint(str(folder), tag=_TAG)

    def weights(self) -> dict[str, Tensor] | None:
        """All parameters on the CPU, whole, tied ones once; None on all processes but the first."""
        kept = {}
        for name, parameter in self.model.named_parameters():
            with deepspeed.zero.GatheredParameters([parameter], enabled=self.config.engine.zero_stage == 3):
                if rank() == 0:
                    kept[name] = parameter.detach().cpu().clone()
        return kept if rank() == 0 else None


def parameter_groups(model: SceneModel, config: Config) -> list[dict[str, Any]]:
    """Trained parameters: the denoiser and the rest, each with its peak learning rate."""
    peak = config.optimizer.learning_rate
    own = config.optimizer.denoiser_learning_rate
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    denoiser = [p for name, p in trained if name.startswith("denoiser.")]
    rest = [p for name, p in trained if not name.startswith("denoiser.")]
    return [
        {"params": rest, "lr": 0.0, "peak": peak},
        {"params": denoiser, "lr": 0.0, "peak": peak if own is None else own},
    ]
