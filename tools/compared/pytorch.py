"""torch.nn and torch.ao.nn.quantizable."""

import warnings

from torch import nn

from tools.compared import B, Case, E, H, S, compared, data, redrawn

WEIGHTS = {"need_weights": True, "average_attn_weights": False}


@compared("torch", package="torch")
def packed():
    module, y = redrawn(nn.MultiheadAttention(E, H, batch_first=True)), data(B, S, E, seed=2)
    return Case(module.state_dict(), *module(data(), y, y, **WEIGHTS), y=y)


@compared("torch, kdim and vdim", package="torch")
def apart():
    module = redrawn(nn.MultiheadAttention(E, H, kdim=10, vdim=10, batch_first=True))
    y = data(B, S, 10, seed=2)
    return Case(module.state_dict(), *module(data(), y, y, **WEIGHTS), y=y)


@compared("torch.ao quantizable", package="torch")
def quantizable():
    warnings.simplefilter("ignore")
    from torch.ao.nn.quantizable import MultiheadAttention

    module, y = redrawn(MultiheadAttention(E, H)), data(B, S, E, seed=2)
    output, weights = module(*(one.transpose(0, 1) for one in (data(), y, y)), **WEIGHTS)
    note = "batch second: with batch_first=True its output is wrong"
    return Case(module.state_dict(), output.transpose(0, 1), weights, y=y, note=note)
