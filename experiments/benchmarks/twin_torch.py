"""The twin in PyTorch, eager: the same networks, loss, optimizer, schedule and steps, as a user writes them.

It stands alone, so that a process of its own imports PyTorch and NumPy and nothing else; `twins` starts it.
Matrices start as Flax starts them, and the pixels' biases at the mean image, as ours do.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

BLOCK = 1000


class MixedNeurons(nn.Module):
    """Hidden layers shared by all categories: `[batch, inputs]` to a list of `[batch, width]`."""

    def __init__(self, inputs: int, widths: Sequence[int]):
        super().__init__()
        self.hidden = nn.ModuleList(linear(*sizes) for sizes in pairwise((inputs, *widths)))

    def forward(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """The neurons of each layer."""
        neurons = []
        for layer in self.hidden:
            inputs = functional.silu(layer(inputs))
            neurons.append(inputs)
        return neurons


class CategoryNeurons(nn.Module):
    """Hidden layers of one category beside the mixed ones: the last of both, side by side."""

    def __init__(self, inputs: int, widths: Sequence[int], mixed_widths: Sequence[int]):
        super().__init__()
        self.sizes = [inputs, *(own + mixed for own, mixed in zip(widths, mixed_widths, strict=True))]
        layers = zip(self.sizes, widths, strict=False)
        self.hidden = nn.ModuleList(linear(size, width) for size, width in layers)

    def forward(self, inputs: torch.Tensor, mixed: list[torch.Tensor]) -> torch.Tensor:
        """`[batch, inputs]` and the mixed neurons of each layer to `[batch, sizes[-1]]`."""
        for layer, beside in zip(self.hidden, mixed, strict=True):
            inputs = torch.cat([beside, functional.silu(layer(inputs))], dim=-1)
        return inputs


class Encoder(nn.Module):
    """Image and mixed neurons to mean and log variance of q(z|x,c), each `[batch, latent]`."""

    def __init__(self, settings: dict[str, Any], pixels: int):
        super().__init__()
        self.neurons = CategoryNeurons(pixels, settings["category_widths"], settings["mixed_widths"])
        self.posterior = linear(self.neurons.sizes[-1], 2 * settings["latent_size"])

    def forward(self, x: torch.Tensor, mixed: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log variance, the latter within bounds."""
        mean, log_var = self.posterior(self.neurons(x, mixed)).chunk(2, dim=-1)
        return mean, log_var.clamp(-8, 8)


class Decoder(nn.Module):
    """Latent and mixed neurons to logits `[batch, pixels]`, through a map of low rank."""

    def __init__(self, settings: dict[str, Any], mean_image: torch.Tensor):
        super().__init__()
        widths, mixed_widths = settings["category_widths"][::-1], settings["mixed_widths"][::-1]
        self.neurons = CategoryNeurons(settings["latent_size"], widths, mixed_widths)
        self.basis = linear(self.neurons.sizes[-1], settings["output_rank"], bias=False)
        self.pixels = nn.Linear(settings["output_rank"], len(mean_image))
        nn.init.zeros_(self.pixels.weight)
        with torch.no_grad():
            self.pixels.bias.copy_(torch.logit(mean_image, eps=0.005))

    def forward(self, z: torch.Tensor, mixed: list[torch.Tensor]) -> torch.Tensor:
        """Logits of the pixels."""
        return self.pixels(self.basis(self.neurons(z, mixed)))


class Mixed(nn.Module):
    """The part that all categories share."""

    def __init__(self, settings: dict[str, Any], pixels: int):
        super().__init__()
        self.encoder = MixedNeurons(pixels, settings["mixed_widths"])
        self.decoder = MixedNeurons(settings["latent_size"], settings["mixed_widths"][::-1])


class CVAE(nn.Module):
    """One category's network, with the mixed part in it."""

    def __init__(self, mixed: Mixed, settings: dict[str, Any], mean_image: torch.Tensor):
        super().__init__()
        self.mixed = mixed
        self.encoder = Encoder(settings, len(mean_image))
        self.decoder = Decoder(settings, mean_image)
        self.log_scale, self.latent_size = settings["log_scale"], settings["latent_size"]

    def forward(self, x: torch.Tensor, noise: torch.Tensor, neurons: list[torch.Tensor] | None = None) -> torch.Tensor:
        """ELBO in nats per image `[batch]`, with one sample z = mean + deviation * noise.

        `neurons` are the encoder's mixed ones, where they are known.
        """
        mean, log_var = self.encoder(x, self.mixed.encoder(x) if neurons is None else neurons)
        z = mean + torch.exp(0.5 * log_var) * noise
        drawn = torch.sigmoid(self.decoder(z, self.mixed.decoder(z)))
        constant = self.log_scale + 0.5 * np.log(2 * np.pi)
        squares = ((x - drawn) * np.exp(-self.log_scale)).square()
        log_likelihood = -(0.5 * squares + constant).sum(dim=-1)
        kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(dim=-1)
        return log_likelihood - kl


def linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """A layer that starts with a variance of 1 / inputs, and zero biases."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train(
    model: CVAE,
    images: torch.Tensor,
    settings: dict[str, Any],
    steps: int,
    *,
    train_mixed: bool,
    known: list[torch.Tensor] | None = None,
) -> Iterator[torch.Tensor]:
    """Trains a category, and gives the loss of every step.

    Args:
        model: of the category.
        images: `[n, pixels]` in [0, 1].
        settings: batch_size, learning_rate.
        steps: to train.
        train_mixed: whether the mixed part learns.
        known: the encoder's mixed neurons of all images, where they stay as they are.
    """
    model.mixed.requires_grad_(train_mixed)
    # `fused`: the fastest of its implementations.
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=settings["learning_rate"], fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    batch = settings["batch_size"]
    for _ in range(steps):
        index = torch.randint(len(images), (batch,), device=images.device)
        noise = torch.randn(batch, model.latent_size, device=images.device)
        neurons = None if known is None else [layer[index] for layer in known]
        loss = -model(images[index], noise, neurons).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        yield loss.detach()


@torch.no_grad()
def neurons_of(mixed: Mixed, images: torch.Tensor) -> list[torch.Tensor]:
    """The encoder's mixed neurons of images, once for all steps."""
    return mixed.encoder(images)


@torch.no_grad()
def evidence(models: Sequence[CVAE], images: torch.Tensor) -> torch.Tensor:
    """The ELBO at the posterior's mean, of every category: `[n, categories]` in nats per image."""
    blocks = []
    for x in images.split(BLOCK):
        neurons, noise = models[0].mixed.encoder(x), x.new_zeros(len(x), models[0].latent_size)
        blocks.append(torch.stack([model(x, noise, neurons) for model in models], dim=1))
    return torch.cat(blocks)


def main(task: dict[str, Any]) -> dict[str, float]:
    """Learns all categories of a task that `twins` wrote, one by one, and recognizes its test images."""
    begun = time.perf_counter()
    settings, where = task["settings"], device()
    torch.manual_seed(task["seed"])
    arrays = np.load(task["file"])
    images, test = (torch.from_numpy(arrays[name]).to(where) / 255 for name in ("train", "test"))
    labels = torch.from_numpy(arrays["train_labels"]).to(where)
    mixed = Mixed(settings, images.shape[1]).to(where)
    models, first_steps = [], 0.0
    for category, steps in enumerate(task["steps"]):
        start, own = time.perf_counter(), images[labels == category]
        model = CVAE(mixed, settings, own.mean(dim=0)).to(where)
        known = neurons_of(mixed, own) if models else None
        losses = train(model, own, settings, steps, train_mixed=not models, known=known)
        loss = float(next(losses))
        if category < 2:
            first_steps += time.perf_counter() - start
        for last in losses:
            loss = last
        if not np.isfinite(float(loss)):
            raise FloatingPointError(f"the loss of category {category} is not finite")
        models.append(model)
    learned = time.perf_counter()
    answers = evidence(models, test).argmax(dim=1).cpu().numpy()
    return {
        "first steps": first_steps,
        "learning": learned - begun - first_steps,
        "recognizing": time.perf_counter() - learned,
        "accuracy": float((answers == arrays["test_labels"]).mean()),
    }


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    imports = time.time() - given["started"]
    print(json.dumps({"imports": imports, **main(given)}))
