"""Baseline in PyTorch with the networks, loss, optimizer, schedule and steps of ours.

The code is written as a user of PyTorch writes it: eager on a CPU, compiled on a GPU.
This module imports PyTorch and NumPy, and nothing of lifelong_cvae. `twin_process` runs it. Weights are initialized as
in Flax, and the biases of the pixels at the mean image, as in ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

# Images per call outside training.
BLOCK = 1000


class MixedNeurons(nn.Module):
    """Hidden layers of the mixed part: `[batch, inputs]` to a list of activations `[batch, width]`."""

    def __init__(self, inputs: int, widths: Sequence[int]):
        super().__init__()
        self.hidden = nn.ModuleList(make_linear(*sizes) for sizes in pairwise((inputs, *widths)))

    def forward(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """Returns the activations of each layer."""
        activations = []
        for layer in self.hidden:
            inputs = functional.silu(layer(inputs))
            activations.append(inputs)
        return activations


class CategoryNeurons(nn.Module):
    """Hidden layers of one category, which also read the mixed activations of the layer below."""

    def __init__(self, inputs: int, widths: Sequence[int], mixed_widths: Sequence[int]):
        super().__init__()
        self.sizes = [inputs, *(width + mixed for width, mixed in zip(widths, mixed_widths, strict=True))]
        layers = zip(self.sizes, widths, strict=False)
        self.hidden = nn.ModuleList(make_linear(size, width) for size, width in layers)

    def forward(self, inputs: torch.Tensor, mixed: list[torch.Tensor]) -> torch.Tensor:
        """Returns the last mixed and category activations side by side, `[batch, sizes[-1]]`."""
        for layer, mixed_activations in zip(self.hidden, mixed, strict=True):
            inputs = torch.cat([mixed_activations, functional.silu(layer(inputs))], dim=-1)
        return inputs


class Encoder(nn.Module):
    """Image and mixed activations to mean and log variance of q(z|x,c), each `[batch, latent]`."""

    def __init__(self, settings: dict[str, Any], pixels: int):
        super().__init__()
        self.neurons = CategoryNeurons(pixels, settings["category_widths"], settings["mixed_widths"])
        self.posterior = make_linear(self.neurons.sizes[-1], 2 * settings["latent_size"])

    def forward(self, x: torch.Tensor, mixed: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns mean and log variance; the log variance is clipped to [-8, 8]."""
        mean, log_var = self.posterior(self.neurons(x, mixed)).chunk(2, dim=-1)
        return mean, log_var.clamp(-8, 8)


class Decoder(nn.Module):
    """Latent and mixed activations to logits `[batch, pixels]`, through a map of low rank."""

    def __init__(self, settings: dict[str, Any], mean_image: torch.Tensor):
        super().__init__()
        widths, mixed_widths = settings["category_widths"][::-1], settings["mixed_widths"][::-1]
        self.neurons = CategoryNeurons(settings["latent_size"], widths, mixed_widths)
        self.basis = make_linear(self.neurons.sizes[-1], settings["output_rank"], bias=False)
        self.pixels = nn.Linear(settings["output_rank"], len(mean_image))
        nn.init.zeros_(self.pixels.weight)
        with torch.no_grad():
            self.pixels.bias.copy_(torch.logit(mean_image, eps=0.005))

    def forward(self, z: torch.Tensor, mixed: list[torch.Tensor]) -> torch.Tensor:
        """Returns the logits of the pixels."""
        return self.pixels(self.basis(self.neurons(z, mixed)))


class Mixed(nn.Module):
    """The mixed part, which all categories share."""

    def __init__(self, settings: dict[str, Any], pixels: int):
        super().__init__()
        self.encoder = MixedNeurons(pixels, settings["mixed_widths"])
        self.decoder = MixedNeurons(settings["latent_size"], settings["mixed_widths"][::-1])


class CVAE(nn.Module):
    """Network of one category, including the mixed part."""

    def __init__(self, mixed: Mixed, settings: dict[str, Any], mean_image: torch.Tensor):
        super().__init__()
        self.mixed = mixed
        self.encoder = Encoder(settings, len(mean_image))
        self.decoder = Decoder(settings, mean_image)
        self.log_scale, self.latent_size = settings["log_scale"], settings["latent_size"]

    def forward(
        self, x: torch.Tensor, noise: torch.Tensor, activations: list[torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Computes the ELBO in nats per image `[batch]`, with one sample z = mean + std * noise.

        Args:
            x: images in [0, 1], `[batch, pixels]`.
            noise: standard normal, `[batch, latent]`.
            activations: the encoder's mixed activations of x; default None computes them.
        """
        mean, log_var = self.encoder(x, self.mixed.encoder(x) if activations is None else activations)
        z = mean + torch.exp(0.5 * log_var) * noise
        decoded = torch.sigmoid(self.decoder(z, self.mixed.decoder(z)))
        constant = self.log_scale + 0.5 * np.log(2 * np.pi)
        squares = ((x - decoded) * np.exp(-self.log_scale)).square()
        log_likelihood = -(0.5 * squares + constant).sum(dim=-1)
        kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(dim=-1)
        return log_likelihood - kl


@dataclass
class Learner:
    """The mixed part, and the network of each category."""

    mixed: Mixed
    settings: dict[str, Any]
    device: torch.device
    models: list[CVAE] = field(default_factory=list)


def build(task: dict[str, Any]) -> Learner:
    """Returns a learner without categories, with the `settings` of the task."""
    torch.manual_seed(task["seed"])
    settings, device = task["settings"], select_device()
    return Learner(Mixed(settings, math.prod(task["image_shape"])).to(device), settings, device)


def train(learner: Learner, images: np.ndarray, steps: int) -> Iterator[torch.Tensor]:
    """Learns one more category from images uint8 `[n, pixels]`, and yields the loss of each step."""
    settings, first = learner.settings, not learner.models
    x = _to_float(images, learner.device)
    model = CVAE(learner.mixed, settings, x.mean(dim=0)).to(learner.device)
    activations = None if first else encoder_activations(learner.mixed, x)
    yield from train_steps(model, x, settings, steps, train_mixed=first, activations=activations)
    learner.models.append(model)


def predict(learner: Learner, images: np.ndarray) -> np.ndarray:
    """Returns the category of the highest ELBO for images uint8 `[n, pixels]`, `[n]`."""
    return evidence(learner.models, _to_float(images, learner.device)).argmax(dim=1).cpu().numpy()


def select_device() -> torch.device:
    """Returns the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def make_linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """Returns a layer with weights of variance 1 / inputs, and zero biases."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def train_steps(
    model: CVAE,
    images: torch.Tensor,
    settings: dict[str, Any],
    steps: int,
    *,
    train_mixed: bool,
    activations: list[torch.Tensor] | None = None,
) -> Iterator[torch.Tensor]:
    """Trains a category, and yields the loss of each step.

    Args:
        model: model of the category.
        images: `[n, pixels]` in [0, 1].
        settings: batch_size, learning_rate, full_rate_steps, adam_b2.
        steps: number of steps.
        train_mixed: whether the mixed part learns.
        activations: the encoder's mixed activations of all images, if the mixed part is frozen; None computes them in
            every step.
    """
    model.mixed.requires_grad_(train_mixed)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # The fused implementation is the fastest one.
    peak = settings["learning_rate"] * min(1.0, steps / settings["full_rate_steps"]) ** 0.5
    optimizer = torch.optim.Adam(parameters, lr=peak, betas=(0.9, settings["adam_b2"]), fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    batch = settings["batch_size"]
    # On a CPU compiling takes longer than what it saves. CUDA graphs (mode="reduce-overhead") fail with PyTorch 2.11.
    elbo = torch.compile(model) if images.is_cuda else model
    for _ in range(steps):
        index = torch.randint(len(images), (batch,), device=images.device)
        noise = torch.randn(batch, model.latent_size, device=images.device)
        batch_activations = None if activations is None else [layer[index] for layer in activations]
        loss = -elbo(images[index], noise, batch_activations).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        yield loss.detach()


@torch.no_grad()
def encoder_activations(mixed: Mixed, images: torch.Tensor) -> list[torch.Tensor]:
    """Computes the encoder's mixed activations of images."""
    return mixed.encoder(images)


@torch.no_grad()
def evidence(models: Sequence[CVAE], images: torch.Tensor) -> torch.Tensor:
    """Computes the ELBO at the posterior mean in nats per image, `[n, categories]`."""
    blocks = []
    for x in images.split(BLOCK):
        activations, noise = models[0].mixed.encoder(x), x.new_zeros(len(x), models[0].latent_size)
        blocks.append(torch.stack([model(x, noise, activations) for model in models], dim=1))
    return torch.cat(blocks)


def _to_float(images: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(images).to(device) / 255
