"""DINO's loss, with centring and sharpening of the teacher (arXiv 2104.14294, algorithm 1)."""

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce
from torch import Tensor, nn

from ...registry import MODELS, register

__all__ = ['DINOLoss']


@register(MODELS)
class DINOLoss(nn.Module):
    """Cross-entropy between the teacher's and the student's outputs for different crops.

    ``mean over i ≠ v of −softmax((t_i − c) / τ_t) · log softmax(s_v / τ_s)``, where i runs over
    the teacher's crops and v over the student's. The centre c is a moving average of t over all
    processes. Computed in float32 or float64.

    Args:
        out_channels: number of prototypes.
        student_temp: τ_s.
        teacher_temp: τ_t after its warm-up.
        warmup_teacher_temp: τ_t in the first epoch of its warm-up.
        warmup_epochs: epochs of the linear warm-up; the first and the last one have exactly
            ``warmup_teacher_temp`` and ``teacher_temp``.
        center_momentum: weight of the old centre in each update.

    Raises:
        ValueError: if a temperature is not positive, ``warmup_epochs`` is negative or
            ``center_momentum`` is outside [0, 1).
    """

    center: Tensor

    def __init__(
        self,
        out_channels: int,
        student_temp: float = 0.1,
        teacher_temp: float = 0.04,
        warmup_teacher_temp: float = 0.04,
        warmup_epochs: int = 0,
        center_momentum: float = 0.9,
    ) -> None:
        super().__init__()
        if min(student_temp, teacher_temp, warmup_teacher_temp) <= 0:
            raise ValueError(
                'temperatures must be positive, got '
                f'{student_temp=}, {teacher_temp=}, {warmup_teacher_temp=}'
            )
        if warmup_epochs < 0:
            raise ValueError(f'warmup_epochs must not be negative, got {warmup_epochs}')
        if not 0 <= center_momentum < 1:
            raise ValueError(f'center_momentum must be within [0, 1), got {center_momentum}')
        self.student_temp = student_temp
        self.teacher_temp = teacher_temp
        self.warmup_teacher_temp = warmup_teacher_temp
        self.warmup_epochs = warmup_epochs
        self.center_momentum = center_momentum
        self.register_buffer('center', torch.zeros(1, out_channels))

    def teacher_temp_in(self, epoch: int) -> float:
        """τ_t in an epoch, counted from 0."""
        if epoch >= self.warmup_epochs:
            return self.teacher_temp
        done = epoch / max(self.warmup_epochs - 1, 1)
        return self.warmup_teacher_temp + done * (self.teacher_temp - self.warmup_teacher_temp)

    def forward(self, student: Tensor, teacher: Tensor, epoch: int = 0) -> dict[str, Tensor]:
        """
        Args:
            student: logits ``[V, B, K]`` of V crops of B images; the teacher's crops first.
            teacher: logits ``[G, B, K]`` of the first G crops.
            epoch: counted from 0.

        Returns:
            ``loss``, and signs of collapse in nats, of this process: ``entropy``, the mean entropy
            of the teacher's distributions; ``batch_entropy``, the entropy of their mean; ``kl``,
            loss − entropy, the mean divergence between teacher and student. The entropies are at
            most ln K. If ``entropy`` stays at ln K, all distributions are uniform. If
            ``batch_entropy`` goes to 0, all crops get the same prototype.
        """
        dtype = torch.promote_types(student.dtype, torch.float32)  # half types under autocast
        student, teacher = student.to(dtype), teacher.detach().to(dtype)
        log_student = F.log_softmax(student / self.student_temp, dim=-1)
        temp = self.teacher_temp_in(epoch)
        log_target = F.log_softmax((teacher - self.center) / temp, dim=-1)
        target = log_target.exp()
        crossed = torch.stack([-(t * log_student).sum(-1).mean(-1) for t in target])  # [G, V]
        # A crop is not compared with itself.
        others = 1 - torch.eye(*crossed.shape, dtype=dtype, device=crossed.device)
        loss = (crossed * others).sum() / others.sum()
        if self.training:
            self._update_center(teacher)
        with torch.no_grad():
            entropy = -(target * log_target).sum(-1).mean()
            batch_entropy = torch.special.entr(target.mean((0, 1))).sum()
            kl = loss - entropy
        return dict(loss=loss, entropy=entropy, batch_entropy=batch_entropy, kl=kl)

    @torch.no_grad()
    def _update_center(self, teacher: Tensor) -> None:
        mean = teacher.flatten(0, 1).mean(0, keepdim=True)
        all_reduce(mean, 'mean')
        # A non-finite batch must not enter the centre. torch.where does not wait for the device.
        mean = torch.where(mean.isfinite().all(), mean.to(self.center.dtype), self.center)
        self.center.lerp_(mean, 1 - self.center_momentum)
