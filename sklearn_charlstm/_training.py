"""Maximum-likelihood training of one language model with skorch."""

# SPDX-License-Identifier: BSD-3-Clause

import copy
import math

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, GradientNormClipping, LRScheduler
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR

from sklearn_charlstm._device import one_thread, seeded
from sklearn_charlstm._module import CharLSTM
from sklearn_charlstm._windows import IGNORE

__all__ = ["train"]

# The share of the updates in which the learning rate rises to `lr`.
WARM_UP_SHARE = 0.1
MAX_GRADIENT_NORM = 1.0

# What `net_params` may not set, with the parameter that does.
_OWN_SETTINGS = {
    "module": "`hidden_size`, `embedding_dim`, `num_layers` and `dropout`",
    "criterion": "`output`",
    "max_epochs": "`epochs`",
    "batch_size": "`batch_size`",
    "lr": "`lr`",
    "optimizer__lr": "`lr`",
    "optimizer__weight_decay": "`weight_decay`",
    "device": "`device`",
    "verbose": "`verbose`",
    "train_split": None,
    "iterator_train": None,
    "iterator_valid": None,
    "dataset": None,
    "warm_start": None,
    "predict_nonlinearity": None,
}


class _BinaryCrossEntropy(nn.Module):
    """One yes-or-no question per token and position, summed over the tokens."""

    def forward(self, logits, targets):
        kept = targets != IGNORE
        logits, targets = logits[kept], targets[kept]
        wanted = F.one_hot(targets, logits.shape[-1]).to(logits.dtype)
        loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
        return loss / len(targets)


class _EpochReport(Callback):
    """Keep the negative log-likelihood per target of each epoch and pass it on.

    skorch's own `train_loss` weights the batches by windows, which is not exact
    where they are padded.
    """

    def __init__(self, name, report):
        self.name = name
        self.report = report

    def on_epoch_begin(self, net, **kwargs):
        self.sum_, self.n_targets_ = 0.0, 0

    def on_batch_end(self, net, batch, training, y_pred, **kwargs):
        targets = torch.as_tensor(batch[1], device=net.device).flatten()
        with torch.no_grad():
            log_probabilities = net.module_.log_probabilities(y_pred[0]).flatten(0, 1)
            self.sum_ += F.nll_loss(
                log_probabilities, targets, ignore_index=IGNORE, reduction="sum"
            )
        self.n_targets_ += np.count_nonzero(batch[1] != IGNORE)

    def on_epoch_end(self, net, **kwargs):
        loss = float(self.sum_) / self.n_targets_
        epoch = len(net.history)
        if not math.isfinite(loss):
            raise ValueError(
                f"Training of {self.name} diverged: the loss is {loss} in epoch "
                f"{epoch}; use a smaller `lr`."
            )
        net.history.record("train_loss", loss)
        if self.report is not None:
            self.report(epoch, loss)


class _Interrupted(Exception):
    """A KeyboardInterrupt in a guise that skorch does not swallow."""


class _LanguageModelNet(NeuralNet):
    """skorch's training loop over ready batches of windows."""

    @property
    def _default_callbacks(self):
        return []

    def get_split_datasets(self, X, y=None, **fit_params):
        return X, None

    def get_iterator(self, dataset, training=False):
        return dataset

    def get_loss(self, y_pred, y_true, X=None, training=False):
        logits, _ = y_pred
        return super().get_loss(
            logits.flatten(0, 1), y_true.flatten(), X=X, training=training
        )

    def notify(self, method_name, **cb_kwargs):
        self.notifying_ = method_name
        super().notify(method_name, **cb_kwargs)
        self.notifying_ = None

    def fit_loop(self, X, y=None, epochs=None, **fit_params):
        # skorch takes every KeyboardInterrupt for a wish to stop early and keeps
        # the half-trained model in silence. Only EarlyStopping and its like, which
        # raise it at the end of an epoch, may do that.
        try:
            return super().fit_loop(X, y, epochs=epochs, **fit_params)
        except KeyboardInterrupt as interrupt:
            if self.notifying_ == "on_epoch_end":
                raise
            raise _Interrupted from interrupt


def _check_net_params(net_params):
    for name in net_params:
        if name in _OWN_SETTINGS:
            owner = _OWN_SETTINGS[name]
            advice = f"set {owner} instead" if owner else "it cannot be changed"
            raise ValueError(f"`net_params` must not hold {name!r}; {advice}.")


def train(
    batches,
    module_params,
    *,
    epochs,
    lr,
    weight_decay,
    net_params,
    device,
    seed,
    name,
    report=None,
):
    """Fit one language model by maximum likelihood.

    AdamW [1]_ with the learning rate going up linearly and down along a cosine [2]_,
    and gradients cut to norm 1 [3]_.

    Parameters
    ----------
    batches : WindowBatches
    module_params : dict
        Arguments of `CharLSTM`.
    epochs : int
    lr, weight_decay : float
    net_params : dict or None
        More settings of the skorch net.
    device : torch.device
    seed : int
    name : str
        What is trained, for messages.
    report : callable or None
        Called after each epoch with its number, from 1, and the negative
        log-likelihood per target in nats.

    Returns
    -------
    weights : dict of str to ndarray
        The state of the trained `CharLSTM`.
    loss_curve : ndarray of shape (n_epochs,), float64
        Negative log-likelihood per target of the training text in nats, with
        dropout, as it was during each epoch.

    References
    ----------
    .. [1] I. Loshchilov and F. Hutter, "Decoupled weight decay regularization",
       ICLR 2019.
    .. [2] L. N. Smith and N. Topin, "Super-convergence: very fast training of neural
       networks using large learning rates", 2018.
    .. [3] R. Pascanu, T. Mikolov and Y. Bengio, "On the difficulty of training
       recurrent neural networks", ICML 2013.
    """
    # A copy: skorch empties lists of callbacks in place.
    net_params = copy.deepcopy(net_params or {})
    _check_net_params(net_params)
    callbacks = [
        ("epoch_report", _EpochReport(name, report)),
        ("gradient_norm_clipping", GradientNormClipping(MAX_GRADIENT_NORM)),
        (
            "lr_scheduler",
            LRScheduler(
                OneCycleLR,
                step_every="batch",
                event_name=None,
                max_lr=lr,
                total_steps=epochs * len(batches),
                pct_start=WARM_UP_SHARE,
                cycle_momentum=False,
            ),
        ),
        *net_params.pop("callbacks", []),
    ]
    sigmoid = module_params["output"] == "sigmoid"
    settings = {
        "criterion": _BinaryCrossEntropy if sigmoid else nn.CrossEntropyLoss,
        "optimizer": torch.optim.AdamW,
        "optimizer__weight_decay": weight_decay,
        "lr": lr,
        "max_epochs": epochs,
        "device": device,
        "callbacks": callbacks,
        "train_split": None,
        "predict_nonlinearity": None,
        "verbose": 0,
    }
    module_settings = {f"module__{key}": value for key, value in module_params.items()}
    with one_thread(), seeded(device, seed):
        net = _LanguageModelNet(CharLSTM, **(settings | module_settings | net_params))
        try:
            net.fit(batches)
        except _Interrupted:
            raise KeyboardInterrupt from None
    weights = {
        key: value.cpu().numpy() for key, value in net.module_.state_dict().items()
    }
    return weights, np.array(net.history[:, "train_loss"])
