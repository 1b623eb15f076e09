"""The typical wrong answers to the exercises of notebook 01, and words of the hint that each must get.

An answer is the body of the function, or the whole of a function or class.
"""

from __future__ import annotations

SQUARE = "square = (x_hat - x) ** 2; return "
FOUR = "four = mean**2 + logvar.exp() - 1 - logvar; return "
EACH = "return (0.5 * ({})).flatten(1).sum(dim=1)"
BOUND = (
    "n, error = x[0].numel(), (x_hat - x).square().flatten(1).sum(dim=1); log = math.log(2 * math.pi * sigma**2)\n"
    "    return "
)
LOSS = (
    "error = (x_hat - x).square().flatten(1).sum(dim=1).mean()\n"
    "    divergence = 0.5 * (mean**2 + logvar.exp() - 1 - logvar)\n    return "
)
MEAN = LOSS.replace(".flatten(1).sum(dim=1).mean()", ".mean()")
SUM = LOSS.replace(".flatten(1).sum(dim=1).mean()", ".sum()")

MISTAKES: dict[str, list[tuple[str, str]]] = {
    "error": [
        (SQUARE + "square.mean()", "averages over the values"),
        ("return F.mse_loss(x_hat, x)", "averages over the values"),
        (SQUARE + "square.sum()", "sums over the batch"),
        (SQUARE + "square.flatten(1).sum(dim=1)", "one error for each image"),
        (SQUARE + "square.sum(dim=1).mean()", "channels only"),
        (SQUARE + "square.sum(dim=(2, 3)).mean()", "averages over the channels"),
        (SQUARE + "square.flatten(1).sum(dim=1).sqrt().mean()", "takes a root"),
        ("return (x_hat - x).flatten(1).norm(dim=1).mean()", "takes a root"),
        ("return (x_hat - x).abs().flatten(1).sum(dim=1).mean()", "absolute"),
        ("return (x_hat - x).flatten(1).sum(dim=1).mean()", "not squared"),
        ("return (x_hat - x).flatten(1).sum(dim=1).square().mean()", "Square first"),
        ("return (x_hat**2 - x**2).flatten(1).sum(dim=1).mean()", "Subtract first"),
        ("x_hat -= x; return x_hat.square().flatten(1).sum(dim=1).mean()", "in place"),
    ],
    "reparameterize": [
        ("return mean", "plain autoencoder"),
        ("return mean + std**2 * noise", "variance"),
        ("return mean + std**0.5 * noise", "root of std"),
        ("return mean + torch.exp(0.5 * std) * noise", "log-variance"),
        ("return mean + std.exp() * noise", "as a logarithm"),
        ("return (mean + noise) * std", "scales the mean"),
        ("return std + mean * noise", "swapped"),
        ("return mean - std * noise", "subtracts"),
        ("return (noise - mean) / std", "the other way"),
        ("return mean + noise", "leaves std out"),
        ("return std * noise", "leaves the mean out"),
        ("return mean + std", "leaves the noise out"),
        ("return mean + std * torch.randn_like(std)", "draw none of its own"),
        ("return torch.normal(mean, std)", "draw none of its own"),
        ("return (mean + std * noise).detach()", "no gradient"),
        ("mean += std * noise; return mean", "in place"),
        ("return mean + sdt * noise", "NameError"),
        ("return 'mean'", "no numbers"),
    ],
    "kl": [
        (FOUR + "0.5 * four", "one value for each dimension"),
        (FOUR + "0.5 * four.sum()", "sums over the batch, too"),
        (FOUR + "0.5 * four.mean()", "averages"),
        (FOUR + "0.5 * four.flatten(1).mean(dim=1)", "averages over the dimensions"),
        (FOUR + "0.5 * four.sum(dim=0)", "sums over the batch"),
        (FOUR + "0.5 * four.sum(dim=1)", "one axis only"),
        (FOUR + "-0.5 * four.flatten(1).sum(dim=1)", "sign"),
        (FOUR + "four.flatten(1).sum(dim=1)", "twice too large"),
        (EACH.format("mean**2 + logvar.exp() - logvar"), "-1 is missing"),
        (EACH.format("mean**2 + (0.5 * logvar).exp() - 1 - logvar"), "variance is exp(logvar)"),
        (EACH.format("mean**2 + logvar.exp() ** 2 - 1 - logvar"), "squares the variance"),
        (EACH.format("mean**2 + logvar - 1 - logvar.log()"), "logarithm already"),
        (EACH.format("mean**2 + logvar**2 - 1 - logvar"), "for the standard deviation"),
        (EACH.format("mean**2 + logvar.exp() - 1 - logvar / 2"), "not half of it"),
        (EACH.format("mean**2 + logvar.exp() - 1 + logvar"), "wrong sign"),
        (EACH.format("mean + logvar.exp() - 1 - logvar"), "must be squared"),
        (EACH.format("mean.abs() + logvar.exp() - 1 - logvar"), "must be squared"),
        (EACH.format("logvar.exp() - 1 - logvar"), "leaves the mean out"),
        (EACH.format("mean**2 + logvar.exp() - 1"), "leaves the logarithm out"),
        (EACH.format("(1 + mean**2) / logvar.exp() - 1 + logvar"), "the other way"),
    ],
    "elbo": [
        (BOUND + "-(error / (2 * sigma**2) + 0.5 * n * log + kl)", "ELBO itself"),
        (BOUND + "error / (2 * sigma**2) + 0.5 * n * log - kl", "KL has the wrong sign"),
        (BOUND + "error / (2 * sigma**2) + 0.5 * n * log", "leaves the KL out"),
        (BOUND + "error / (2 * sigma**2) + kl", "logarithm is missing"),
        (BOUND + "error / (2 * sigma**2) + 0.5 * log + kl", "number of values"),
        (BOUND + "error / (2 * sigma**2) + n * log + kl", "twice too large"),
        (BOUND + "error / (2 * sigma**2) + n * math.log(sigma) + kl", "2 pi"),
        (BOUND + "error / (2 * sigma**2) - 0.5 * n * log + kl", "wrong sign"),
        (BOUND + "error / sigma**2 + 0.5 * n * log + kl", "1/2 before the squared error"),
        (BOUND + "error / (2 * sigma) + 0.5 * n * log + kl", "divides the error by sigma"),
        (BOUND + "error / 2 + 0.5 * n * log + kl", "divided by sigma squared"),
        (BOUND + "error / n / (2 * sigma**2) + 0.5 * n * log + kl", "Sum it"),
        (BOUND + "(error / (2 * sigma**2) + 0.5 * n * log + kl).mean()", "one value for each image"),
        (
            "n, error = x[0].numel(), (x_hat - x).square().flatten(1).sum(dim=1)\n"
            "    return error / (2 * sigma) + 0.5 * n * math.log(2 * math.pi * sigma) + kl",
            "sigma where the formula has sigma squared",
        ),
    ],
    "debug": [
        (LOSS + "error", "nothing pulls the latents"),
        (MEAN + "error", "Without the KL"),
        (MEAN + "error + kl_weight * divergence.mean()", "The KL was right"),
        (LOSS + "error + kl_weight * divergence.mean()", "error is right now"),
        (MEAN + "error - kl_weight * divergence.sum(dim=1).mean()", "sign of the KL"),
        (SUM + "error + kl_weight * divergence.sum(dim=1).mean()", "summed over the batch"),
        (SUM + "error + kl_weight * divergence.sum()", "Both terms"),
        (
            LOSS.replace("square()", "abs()") + "error + kl_weight * divergence.sum(dim=1).mean()",
            "Absolute errors",
        ),
    ],
    "scaling": [
        ("return latents.std()", "1 / std"),
        ("return 1 / latents.var()", "variance"),
        ("return latents.var()", "the variance"),
        ("return 1 / latents.std(dim=(0, 2, 3))", "one number"),
        ("return 1 / latents.std(dim=(0, 2, 3)).mean()", "mean of the channels' std"),
        ("return (1 / latents.std(dim=(0, 2, 3))).mean()", "channels' factors"),
        ("return 1 / latents.std(dim=0)", "one factor for each value"),
        ("return 1 / latents[0].std()", "first latent"),
        ("return 1 / latents.flatten(1).std(dim=1).mean()", "each latent's std"),
        ("return 1 / latents.square().mean().sqrt()", "Take the mean off"),
        ("return 1 / latents.abs().mean()", "mean absolute value"),
        ("return 1 / latents.abs().max()", "largest value"),
        ("return 0.18215", "any other latents"),
    ],
    "path": [
        ("return torch.stack([start, end])", "where latents lie"),
        ("return torch.cat([start[None], latents, start[None]])", "stop at end"),
        ("return torch.cat([end[None], latents.flip(0), start[None]])", "Turn it round"),
        ("return torch.cat([start, end])", "shape"),
        ("return [start, end]", "Return one tensor"),
        ("return torch.stack([start, latents.mean(dim=0), end])", "where latents lie"),
        ("nearest = torch.cdist(start[None], latents).argmin(); return latents[nearest][None]", "shape"),
    ],
}
