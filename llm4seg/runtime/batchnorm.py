"""BatchNorm over the global batch, so that what is learned does not depend on how many workers share it."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from llm4seg.runtime.collectives import all_gather, all_reduce, world_size


class GlobalBatchNorm(_BatchNorm):
    """BatchNorm whose statistics are those of all workers' samples together, on any device.

    torch's SyncBatchNorm does the same for CUDA alone. The running variance is the unbiased one, as in BatchNorm.
    """

    def _check_input_dim(self, features_NCS: Tensor) -> None:
        assert features_NCS.ndim > 2

    def forward(self, features_NCS: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(features_NCS)
        values = features_NCS.float()
        mean_C, variance_C, count = _statistics(values.detach())
        self._remember(mean_C, variance_C * count / (count - 1))
        normalized: Tensor = _Normalize.apply(values, self.weight, self.bias, mean_C, variance_C, count, self.eps)
        return normalized.to(features_NCS.dtype)

    @torch.no_grad()
    def _remember(self, mean_C: Tensor, variance_C: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean_C, self.momentum)
        self.running_var.lerp_(variance_C, self.momentum)


def _statistics(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of each channel and the number of values of a channel, over all workers, in one exchange."""
    mean_C, variance_C = torch.batch_norm_update_stats(values, None, None, 0.0)  # many times faster than var_mean
    mine = torch.cat([mean_C, variance_C, values.new_tensor([values.numel() // values.shape[1]])])
    means_WC, variances_WC, counts_W1 = all_gather(mine).tensor_split([len(mean_C), 2 * len(mean_C)], dim=1)
    count = counts_W1.sum()  # workers may have unequal shares
    mean_C = (counts_W1 * means_WC).sum(0) / count
    variance_C = (counts_W1 * (variances_WC + (means_WC - mean_C).square())).sum(0) / count
    return mean_C, variance_C, count


class _Normalize(torch.autograd.Function):
    """Normalization by statistics of all workers, which depend on every value; one exchange in the backward pass."""

    @staticmethod
    def forward(
        context: Any,
        values: Tensor,
        weight_C: Tensor,
        bias_C: Tensor,
        mean_C: Tensor,
        variance_C: Tensor,
        count: Tensor,
        eps: float,
    ) -> Tensor:
        context.save_for_backward(values, weight_C, mean_C, variance_C, count)
        context.eps = eps
        return functional.batch_norm(values, mean_C, variance_C, weight_C, bias_C, eps=eps)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (values, weight_C, mean_C, variance_C, count) = gradients, context.saved_tensors
        _, for_weight_C, for_bias_C = torch.ops.aten.native_batch_norm_backward(
            gradient, values, weight_C, mean_C, variance_C, None, None, False, context.eps, [False, True, True]
        )
        product_C, average_C = all_reduce(torch.stack([for_weight_C, for_bias_C])) / count
        # scale x (gradient - average - normalized values x product): BatchNorm of the values and a line in the gradient
        scale_C = weight_C * torch.rsqrt(variance_C + context.eps)
        for_values = functional.batch_norm(
            values, mean_C, variance_C, -scale_C * product_C, -scale_C * average_C, eps=context.eps
        ).addcmul_(gradient, scale_C.view(-1, *[1] * (values.ndim - 2)))
        return for_values, for_weight_C, for_bias_C, None, None, None, None


def convert_batchnorm(model: nn.Module, device: torch.device) -> None:
    """Let every BatchNorm of a model see the samples of all workers, in place; names and parameters stay."""
    for parent in list(model.modules()):
        for name, module in parent.named_children():
            if isinstance(module, _BatchNorm):
                setattr(parent, name, _converted(module, device))


def _converted(norm: _BatchNorm, device: torch.device) -> nn.Module:
    kind = nn.SyncBatchNorm if device.type == "cuda" else GlobalBatchNorm
    with torch.device("meta"):
        made = kind(norm.num_features, norm.eps, norm.momentum)
    made.load_state_dict(norm.state_dict(keep_vars=True), assign=True)
    for follows in norm.children():  # timm's norms go on to a dropout and an activation of their own
        made.register_forward_hook(lambda module, inputs, features_NCS, follows=follows: follows(features_NCS))
    return made.train(norm.training)
