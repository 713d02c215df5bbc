"""How importance weighted autoencoders were trained by those who published them, as records.

"The same 3280 epochs" are different optimisers in the paper and in two codes.  A preset holds the
numbers; `preset_optimizer` of either twin makes the optimiser from it:

    >>> preset, num_rows = PRESETS["paper"], 60_000
    >>> stages = preset.stages(num_rows // preset.batch_size)
    >>> stages.ends[1], stages.ends[-1], stages(0), stages(stages.ends[-1])
    (12000, 9840000, 0.001, 0.0001)

and is trained with `fit(..., optimizer=preset_optimizer(preset, stages), num_steps=stages.ends[1],
batch_size=preset.batch_size, shuffle=preset.shuffle)`, here for the first two of eight stages.
"""

from dataclasses import dataclass

from ppl_vae.schedules import Stages

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True)
class Preset:
    """Adam, the mini-batches and the learning rates of one source.

    With the gradient g_t of the bound's sum or mean over a mini-batch, t = 1, 2, ...:

        m_t = b1 m_{t-1} + (1 - b1) g_t            m_0 = 0
        v_t = b2 v_{t-1} + (1 - b2) g_t^2          v_0 = second_moment
        step = rate m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps / c)

    where m, v are m_t, v_t, or m_{t-1}, v_{t-1} if `late`; and c is 1, or sqrt(1 - b2^t) if
    `eps_hat`. Kingma and Ba (2015), algorithm 1 and the remark before section 2.1,
    https://arxiv.org/abs/1412.6980.

    Args:
        b1: decay of the first moment.
        b2: decay of the second moment.
        eps: added to the root of the second moment; matters, for it is 1e-4 and not 1e-8.
        eps_hat: whether eps is added before the second moment's bias is corrected.
        second_moment: what the second moment starts at.
        late: whether a step is made with the moments before its own gradient enters them, while
            the step counter is one ahead of them.
        gradient: "sum" or "mean" over the rows of a mini-batch.
        batch_size: rows of a mini-batch.
        shuffle: whether rows are reshuffled every epoch.
        rates: learning rate of each stage; stage i = 0, 1, ... lasts 3^i epochs.
    """

    b1: float
    b2: float
    eps: float
    eps_hat: bool
    second_moment: float
    late: bool
    gradient: str
    batch_size: int
    shuffle: bool
    rates: tuple[float, ...]

    @property
    def gradient_scale(self) -> int:
        """What the gradient of the mean loss per row is multiplied by."""
        return self.batch_size if self.gradient == "sum" else 1

    def stages(self, steps_per_epoch: int) -> Stages:
        """Return the staged learning rate, for `steps_per_epoch` mini-batches an epoch."""
        lengths = tuple(3**i * steps_per_epoch for i in range(len(self.rates)))
        return Stages(self.rates, lengths)


_RATES = tuple(1e-3 * 10 ** (-i / 7) for i in range(8))
_ROUNDED = tuple(1e-4 * round(10 ** (1 - i / 7), 1) for i in range(8))

PRESETS = {
    # What the paper leaves open, the gradient's scale and the order of rows, is as in its code.
    "paper": Preset(
        b1=0.9, b2=0.999, eps=1e-4, eps_hat=False, second_moment=0.0, late=False,
        gradient="sum", batch_size=20, shuffle=False, rates=_RATES,
    ),
    "yburda": Preset(
        b1=0.99, b2=0.999, eps=1e-4, eps_hat=True, second_moment=1.0, late=True,
        gradient="sum", batch_size=20, shuffle=False, rates=_ROUNDED,
    ),
    "nbip": Preset(
        b1=0.9, b2=0.999, eps=1e-4, eps_hat=True, second_moment=0.0, late=False,
        gradient="mean", batch_size=20, shuffle=True, rates=_RATES,
    ),
}  # fmt: skip
"""Burda et al. (2016), https://arxiv.org/abs/1509.00519: the paper, its authors' code (Theano), and
a re-implementation whose numbers are often quoted (github.com/nbip/IWAE, TensorFlow 2)."""
