"""AdamW without torch's compiler."""

# SPDX-License-Identifier: BSD-3-Clause

from inspect import unwrap

import torch
from torch.optim import Optimizer

__all__ = ["AdamW"]


class AdamW(torch.optim.AdamW):
    """AdamW as torch has it, but for what the compiler needs.

    The methods of torch's optimizers are wrapped for `torch.compile`, and the first
    call of one imports the compiler: 800 modules, which takes longer than many a `fit`,
    in each process anew. Here are those methods as they are within.
    """

    add_param_group = unwrap(Optimizer.add_param_group)
    zero_grad = unwrap(Optimizer.zero_grad)
    state_dict = unwrap(Optimizer.state_dict)
    load_state_dict = unwrap(Optimizer.load_state_dict)

    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))
