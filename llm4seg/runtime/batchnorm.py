"""BatchNorm over the global batch, so that training does not depend on the number of workers."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from llm4seg.runtime.collectives import all_reduce_sum, world_size
from llm4seg.runtime.torch_internals import add_to_all

BATCH_NORMS = nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d


class GlobalBatchNorm(nn.BatchNorm2d):
    """BatchNorm over features (N, C, *S) whose statistics are those of all workers' samples together, on any device.

    With one worker, and in evaluation, it computes as torch's own. torch's SyncBatchNorm does not run on the CPU, and
    on CUDA it makes the host wait for the device in each forward pass. A forward pass does not count itself in
    `num_batches_tracked`, of which no result depends: see `count_batches`.
    """

    has_trained = False  # whether a forward pass in training came through

    def _check_input_dim(self, features_NCS: Tensor) -> None:
        assert features_NCS.ndim > 2

    def forward(self, features_NCS: Tensor) -> Tensor:
        assert self.running_mean is not None
        assert self.momentum is not None
        self._check_input_dim(features_NCS)
        if self.training:
            self.has_trained = True
        if not self.training or world_size() == 1:
            running = self.running_mean, self.running_var
            return functional.batch_norm(
                features_NCS, *running, self.weight, self.bias, self.training, self.momentum, self.eps
            )
        values = features_NCS.to(self.running_mean.dtype)
        along_C = [-1, *[1] * (values.ndim - 2)]
        all_but_C = [0, *range(2, values.ndim)]
        own_mean_C = values.mean(all_but_C)
        origin_C = own_mean_C.detach()  # squares about it are small; a constant, on which no result depends
        centered = values - origin_C.view(along_C)
        count = values.numel() // values.shape[1]
        mean_C, variance_C, total = merge_statistics(own_mean_C, centered.square().mean(all_but_C), count)
        self.update_running_statistics(mean_C, variance_C * total / (total - 1))
        scale_C = self.weight * torch.rsqrt(variance_C + self.eps)
        shift_C = self.bias - (mean_C - origin_C) * scale_C
        return torch.addcmul(shift_C.view(along_C), centered, scale_C.view(along_C)).to(features_NCS.dtype)

    @torch.no_grad()
    def update_running_statistics(self, mean_C: Tensor, unbiased_variance_C: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean_C, self.momentum)
        self.running_var.lerp_(unbiased_variance_C, self.momentum)


def count_batches(model: nn.Module, number: int) -> None:
    """Add forward passes in training to `num_batches_tracked` of every GlobalBatchNorm that they came through.

    To be called before a state dict is read: torch's own launches a kernel for it in each layer and pass.
    """
    norms = [module for module in model.modules() if isinstance(module, GlobalBatchNorm) and module.has_trained]
    add_to_all([norm.num_batches_tracked for norm in norms if norm.num_batches_tracked is not None], number)


def merge_statistics(mean_C: Tensor, variance_C: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Means, biased variances and the number of values of a channel over all workers, whose counts may differ.

    One all-reduce of sums and sums of squares; in float64, since the difference of large squares is small.
    """
    means, variances = mean_C.double(), variance_C.double()
    counts = means.new_full((1,), count)
    sums = all_reduce_sum(torch.cat([counts, count * means, count * (variances + means.square())]))
    total, sum_C, square_sum_C = sums.split([1, len(mean_C), len(mean_C)])
    merged_C = sum_C / total
    variance = square_sum_C / total - merged_C.square()
    return merged_C.to(mean_C.dtype), variance.to(mean_C.dtype), total.to(mean_C.dtype)


def convert_batchnorm(model: nn.Module) -> None:
    """Replace every BatchNorm of a model by GlobalBatchNorm, in place; names and parameters stay."""
    for parent in list(model.modules()):
        for name, module in parent.named_children():
            if isinstance(module, BATCH_NORMS):
                setattr(parent, name, _converted(module))


def _converted(norm: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) -> nn.Module:
    with torch.device("meta"):
        converted = GlobalBatchNorm(norm.num_features, norm.eps, norm.momentum)
    converted.load_state_dict(norm.state_dict(keep_vars=True), assign=True)
    for child in norm.children():  # timm's norms contain a dropout and an activation, which follow
        converted.register_forward_hook(lambda module, inputs, features_NCS, child=child: child(features_NCS))
    return converted.train(norm.training)
