"""BatchNorm over the global batch, so that what is learned does not depend on how many workers share it."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from llm4seg.collectives import total, workers


class GlobalBatchNorm(_BatchNorm):
    """BatchNorm whose statistics are those of all workers' samples together, on any device.

    torch's SyncBatchNorm does the same for CUDA alone. The running variance is the unbiased one, as in BatchNorm.
    """

    def _check_input_dim(self, features_NCS: Tensor) -> None:
        assert features_NCS.ndim > 2

    def forward(self, features_NCS: Tensor) -> Tensor:
        if not self.training or workers() == 1:
            return super().forward(features_NCS)
        over = [0, *range(2, features_NCS.ndim)]
        values = features_NCS.float()
        sums_C1 = torch.cat([values.sum(over), values.new_tensor([values.numel() // values.shape[1]])])
        sums_C1 = total(sums_C1)  # workers may have unequal shares, so their sizes are added up, too
        mean_C, count = sums_C1[:-1] / sums_C1[-1], sums_C1[-1].detach()
        centred = values - _along(mean_C, values)
        variance_C = total(centred.square().sum(over)) / count
        self._remember(mean_C.detach(), variance_C.detach() * count / (count - 1))
        scale_C = self.weight * torch.rsqrt(variance_C + self.eps)
        return (centred * _along(scale_C, values) + _along(self.bias, values)).to(features_NCS.dtype)

    @torch.no_grad()
    def _remember(self, mean_C: Tensor, variance_C: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean_C, self.momentum)
        self.running_var.lerp_(variance_C, self.momentum)


def _along(values_C: Tensor, like_NCS: Tensor) -> Tensor:
    return values_C.reshape(1, -1, *[1] * (like_NCS.ndim - 2))


def synchronise(model: nn.Module, device: torch.device) -> None:
    """Let every BatchNorm of a model see the samples of all workers, in place; names and parameters stay."""
    for parent in list(model.modules()):
        for name, module in parent.named_children():
            if isinstance(module, _BatchNorm):
                setattr(parent, name, _synchronised(module, device))


def _synchronised(norm: _BatchNorm, device: torch.device) -> nn.Module:
    kind = nn.SyncBatchNorm if device.type == "cuda" else GlobalBatchNorm
    with torch.device("meta"):
        made = kind(norm.num_features, norm.eps, norm.momentum)
    made.load_state_dict(norm.state_dict(keep_vars=True), assign=True)
    for follows in norm.children():  # timm's norms go on to a dropout and an activation of their own
        made.register_forward_hook(lambda module, inputs, features_NCS, follows=follows: follows(features_NCS))
    return made.train(norm.training)
