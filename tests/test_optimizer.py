import subprocess
import sys

import torch

from sklearn_charlstm._optimizer import AdamW

FIT = """
import sys
from sklearn_charlstm import CharLMLanguageClassifier

clf = CharLMLanguageClassifier(**{params})
X, y = ["abab abba", "cdcd dccd"] * 6, [0, 1] * 6
clf.set_params(warm_start=True).fit(X, y).set_params(epochs=4).fit(X, y)
assert clf.discriminative_loss_curve_.size
clf.partial_fit(X, y).set_params(early_stopping=True, warm_start=False).fit(X, y)
assert "torch._dynamo" not in sys.modules
"""


def test_training_does_not_wait_for_the_compiler(tiny):
    tiny.update(discriminative_epochs=1)
    subprocess.run([sys.executable, "-c", FIT.format(params=tiny)], check=True)


def trained(optimizer_class):
    """Return weights and state after some steps, half of them with the state loaded."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(5, 3, generator=generator).requires_grad_()
    settings = {"lr": 0.1, "weight_decay": 0.01, "fused": True}
    optimizer = optimizer_class([weights], **settings)

    def loss():
        optimizer.zero_grad()
        value = (weights @ torch.randn(3, generator=generator)).square().sum()
        value.backward()
        return value

    for _ in range(3):
        optimizer.step(loss)
    again = optimizer_class([weights], **settings)
    again.load_state_dict(optimizer.state_dict())
    optimizer = again
    losses = [optimizer.step(loss) for _ in range(3)]
    return weights, losses, optimizer.state_dict()


def test_it_is_the_adamw_of_torch():
    torch.testing.assert_close(
        trained(AdamW), trained(torch.optim.AdamW), rtol=0, atol=0
    )
