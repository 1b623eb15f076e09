"""The typical wrong answers to each exercise: the body of its function, and words of the hint that it must get."""

from __future__ import annotations

# fmt: off
# 01
KL = "fraction = (std**2 + (mean - prior_mean) ** 2) / (2 * prior_std**2); return "
FAR = "far = (mean - prior_mean) ** 2; return "
F = "f = 2 ** (len(block_out_channels) - 1); return "
# 02
TIME = "a = t[:, None] * 10_000 ** (-torch.arange(dim // 2) / (dim // 2)); return "
COS_SIN = "return torch.cat([a.cos(), a.sin()], dim=1)"
FIRST, SECOND = "h = self.conv1(F.silu(self.norm1(x)))", "h = self.conv2(F.silu(self.norm2(h)))"
ADD = "h = h + self.time_emb_proj(F.silu(temb))[:, :, None, None]"
END = "return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))"
Q_K = "q, k = to_q(x), to_k(context); d = q.shape[-1] // heads; "
HEADS = Q_K + "q, k = (y.unflatten(-1, (heads, -1)).transpose(1, 2) for y in (q, k)); return "
SOFTMAX = "return (q @ k.mT / d**0.5).softmax(dim=-1)"
SKIPS = ("skips = [channels[0]]\n    for i, c in enumerate(channels): "
         "skips += [c] * (layers + (i < len(channels) - 1))\n    ")
READ = ("own, reads = channels[-1], []\n    for c in reversed(channels):\n"
        "        for _ in range(layers + 1): reads.append(own + ")
DONE = "; own = c\n    return reads"
# 03
GROUPED = """b, c = x.shape[:2]; groups = x.reshape(b, num_groups, -1)
    mean = groups.mean(dim=2).repeat_interleave(c // num_groups, dim=1)
    variance = groups.var(dim=2, unbiased=False).repeat_interleave(c // num_groups, dim=1)
    """
ALL = "mean, variance = x.mean(dim=(1, 2, 3))[:, None], x.var(dim=(1, 2, 3), unbiased=False)[:, None]; "
EACH = "mean, variance = x.mean(dim=(2, 3)), x.var(dim=(2, 3), unbiased=False); "
INTERLEAVED = """b, c, h, w = x.shape; groups = x.reshape(b, c // num_groups, num_groups, h, w)
    mean = groups.mean(dim=(1, 3, 4)).repeat(1, c // num_groups)
    variance = groups.var(dim=(1, 3, 4), unbiased=False).repeat(1, c // num_groups)
    """
WHOLE_BATCH = """b, c = x.shape[:2]; groups = x.transpose(0, 1).reshape(num_groups, -1)
    mean = groups.mean(dim=1).repeat_interleave(c // num_groups).expand(b, c)
    variance = groups.var(dim=1, unbiased=False).repeat_interleave(c // num_groups).expand(b, c)
    """
ROOT = "scale = weight / (variance + eps).sqrt(); return "
BOTH = "scale, bias - scale * mean"
MORE = "alpha = alpha_bar_t / alpha_bar_s; return "
A = "a = alpha_bar_t / alpha_bar_prev; return "
X0 = "x0_hat = (x_t - (1 - alpha_bar_t) ** 0.5 * eps) / alpha_bar_t**0.5; "
DDIM = X0 + "return alpha_bar_prev**0.5 * x0_hat + (1 - alpha_bar_prev) ** 0.5 * eps"
ETA = ("variance = (1 - alpha_bar_prev) / (1 - alpha_bar_t) * (1 - alpha_bar_t / alpha_bar_prev); "
       f"sigma = eta * variance**0.5; {X0}signal = alpha_bar_prev**0.5 * x0_hat; return signal + ")
LESS = "(1 - alpha_bar_prev - sigma**2) ** 0.5 * eps"
# 04
UNIT = "image, text = F.normalize(image, dim=1), F.normalize(text, dim=1); return "
RATIO = "a = (alpha_bar_prev / alpha_bar_t) ** 0.5; "
# 05, 06
LOOP = "return list(ldm.denoise(model, {}, context, timesteps, negative_context=empty, guidance_scale=7.5))[-1].x_t"
KNOWN = "known = alpha_bar**0.5 * z + (1 - alpha_bar) ** 0.5 * noise; return "
HOOK = "return lambda x, t_prev: ldm.pipelines.keep_known_region({})"
LEVEL = "model.schedule.alpha_bar(t_prev) if t_prev >= 0 else 1.0"

MISTAKES: dict[str, dict[str, list[tuple[str, str]]]] = {
    "01_autoencoder_vs_vae": {
        "reparameterize": [
            ("return mean", "plain autoencoder"),
            ("return mean + std**2 * noise", "variance"),
            ("return mean + torch.exp(0.5 * std) * noise", "log-variance"),
            ("return (mean + noise) * std", "scales the mean"),
            ("return std + mean * noise", "swapped"),
            ("return mean + noise", "leaves std out"),
            ("return mean + std", "leaves the noise out"),
            ("return mean + std * torch.randn_like(std)", "draw none of its own"),
            ("return (mean + std * noise).detach()", "no gradient"),
            ("mean += std * noise; return mean", "in place"),
            ("return mean + sdt * noise", "NameError"),
            ("return 'mean'", "no numbers"),
            ("return (mean + std * noise).tolist()", "no gradient"),
        ],
        "kl": [
            (KL + "torch.log(prior_std / std) + fraction", "1/2 too high"),
            (KL + "torch.log(std / prior_std) + fraction - 0.5", "fraction round"),
            (KL + "2 * (torch.log(prior_std / std) + fraction - 0.5)", "twice"),
            (KL + "0.5 - torch.log(prior_std / std) - fraction", "sign"),
            (KL + "(torch.log(prior_std / std) + fraction - 0.5).sum()", "sums everything"),
            (KL + "torch.log(prior_std / std) + fraction * prior_std - 0.5", "divides by prior_std"),
            ("return torch.log(prior_std / std) + (std**2 + mean**2) / (2 * prior_std**2) - 0.5", "prior_mean out"),
            (FAR + "torch.log(prior_std / std) + (std + far) / (2 * prior_std) - 0.5", "square std"),
            (FAR + "torch.log(std / prior_std) + (prior_std**2 + far) / (2 * std**2) - 0.5", "other way"),
            ("return 0.5 * (mean**2 + std**2 - 1) - torch.log(std)", "N(0, 1)"),
        ],
        "shape": [
            ("return latent_channels, height // 8, width // 8", "always divides by 8"),
            ("f = 2 ** len(block_out_channels); return latent_channels, height // f, width // f", "once too often"),
            (F + "2 * latent_channels, height // f, width // f", "log-variances"),
            (F + "height // f, width // f, latent_channels", "come first"),
            (F + "block_out_channels[-1], height // f, width // f", "channels of the last level"),
            (F + "latent_channels, -(-height // f), -(-width // f)", "rounds up"),
            ("f = 2 * (len(block_out_channels) - 1); return latent_channels, height // f, width // f", "2 ** n"),
            (F + "latent_channels, width // f, height // f", "swapped"),
        ],
        "factor": [
            ("return latents.std()", "1 / std"),
            ("return 1 / latents.var()", "variance"),
            ("return 1 / latents.std(dim=(0, 2, 3))", "one number"),
            ("return 1 / latents.std(dim=(0, 2, 3)).mean()", "mean of the channels' std"),
            ("return (1 / latents.std(dim=(0, 2, 3))).mean()", "channels' factors"),
            ("return 1 / latents.square().mean().sqrt()", "take the mean off"),
            ("return 1 / latents.abs().mean()", "mean absolute value"),
            ("return 1 / latents.abs().max()", "largest value"),
        ],
    },
    "02_unet": {
        "time": [
            (TIME + "torch.cat([a.sin(), a.cos()], dim=1)", "sines come first"),
            (TIME + "torch.stack([a.sin(), a.cos()], dim=2).flatten(1)", "as in the paper"),
            (TIME + "torch.stack([a.cos(), a.sin()], dim=2).flatten(1)", "take turns"),
            (f"a = t[:, None] * 10_000 ** (torch.arange(dim // 2) / (dim // 2)); {COS_SIN}", "minus is missing"),
            (f"a = t[:, None] * 10_000 ** (-torch.arange(dim // 2) / dim); {COS_SIN}", "divide it by dim/2"),
            (f"a = t[:, None] * 10_000 ** (-torch.arange(dim // 2) / (dim // 2 - 1)); {COS_SIN}", "dim/2 - 1"),
            (TIME.replace("[:, None]", "[:, None] / 1000").replace("return ", COS_SIN), "divides t by 1000"),
            (TIME.replace("[:, None]", "[:, None] * 2 * torch.pi").replace("return ", COS_SIN), "2 pi"),
            (TIME.replace("[:, None]", "") + "torch.cat([a.cos(), a.sin()])", "shape"),
        ],
        "block": [
            ("def forward(self, x, temb=None): " + body, hint) for body, hint in [
                (f"{FIRST}; {ADD}; {SECOND}; return h", "shortcut is missing"),
                (f"{FIRST}; {SECOND}; {END}", "time is missing"),
                (f"{FIRST}; {SECOND}; {ADD}; {END}", "too late"),
                (f"{FIRST}; {ADD.replace('F.silu(temb)', 'temb')}; {SECOND}; {END}", "through a SiLU first"),
                (f"h = self.conv1(self.norm1(x)); {ADD}; h = self.conv2(self.norm2(h)); {END}", "Without a SiLU"),
                (f"{FIRST}; {ADD}; {SECOND}; {END}".replace("silu(self", "relu(self"), "ReLU"),
                (f"h = self.conv1(F.silu(x)); {ADD}; h = self.conv2(F.silu(h)); {END}", "norms are missing"),
                (f"h = F.silu(self.norm1(self.conv1(x))); {ADD}; h = F.silu(self.norm2(self.conv2(h))); {END}",
                 "before them"),
                (f"{FIRST}; {ADD}; {SECOND}; return h + x", "self.conv_shortcut"),
                (f"{FIRST}; {ADD}; {SECOND}; {END}", "VAE, which knows no time"),
            ]
        ],
        "map": [
            (HEADS + "(q @ k.mT).softmax(dim=-1)", "not divided by sqrt(d)"),
            (HEADS + "(q @ k.mT / (d * heads) ** 0.5).softmax(dim=-1)", "width of one head"),
            (HEADS + "(q @ k.mT / d).softmax(dim=-1)", "square root"),
            (HEADS + "(q @ k.mT / d**0.5).softmax(dim=-2)", "runs over the positions"),
            (HEADS + "q @ k.mT / d**0.5", "softmax over the tokens is still to come"),
            (HEADS + "(q @ k.mT / d**0.5).softmax(dim=-1).mT", "swapped"),
            (HEADS + "(q @ k.mT / d**0.5).softmax(dim=-1).mean(dim=1)", "keep them apart"),
            (f"{Q_K}q, k = (y.reshape(len(y), heads, -1, d) for y in (q, k)); {SOFTMAX}", "out of the positions"),
            (f"{Q_K}q, k = (y.unflatten(-1, (-1, heads)).movedim(-1, 1) for y in (q, k)); {SOFTMAX}",
             "take turns in the channels"),
        ],
        "channels": [
            ("return [2 * c for c in reversed(channels) for _ in range(layers + 1)]", "as wide as the level"),
            ("skips = [channels[0]] + [c for c in channels for _ in range(layers)]\n    "
             f"{READ}skips.pop() if skips else own){DONE}", "halvings are missing"),
            (SKIPS + "return skips[::-1]", "skips alone"),
            (SKIPS + "return [c + skips.pop() for c in reversed(channels) for _ in range(layers + 1)]", "from below"),
            (f"{SKIPS}{READ}skips.pop(0)){DONE}", "Last in, first out"),
            (f"{SKIPS}{READ}skips.pop()){DONE}[::-1]", "starts at the top"),
            (f"{SKIPS}skips = skips[1:]\n    {READ}sum(skips[-1:])); skips = skips[:-1]{DONE}",
             "One skip is missing"),
            (f"{SKIPS}skips.append(channels[-1])\n    {READ}skips.pop()){DONE}", "last level does not halve"),
        ],
    },
    "03_groupnorm": {
        "scale-and-shift": [
            (GROUPED + ROOT + "scale, -scale * mean", "bias is left out"),
            (GROUPED + ROOT.replace("weight", "1") + BOTH, "weight is left out"),
            (GROUPED + ROOT + "scale, bias.expand(b, c)", "mean is not taken off"),
            (GROUPED + ROOT + "scale, bias - mean", "after scaling"),
            (GROUPED + ROOT + "scale, bias + scale * mean", "wrong sign"),
            (GROUPED + ROOT.replace(".sqrt()", "") + BOTH, "root is missing"),
            (GROUPED + "scale = weight / (variance.sqrt() + eps); return " + BOTH, "under the root"),
            (GROUPED.replace("unbiased=False", "unbiased=True") + ROOT + BOTH, "m - 1"),
            (EACH + ROOT + BOTH, "InstanceNorm"),
            (ALL + ROOT + BOTH, "num_groups is left out"),
            (INTERLEAVED + ROOT + BOTH, "interleaved"),
            (WHOLE_BATCH + ROOT + BOTH, "whole batch"),
            ("return weight, bias", "two tensors"),
            (GROUPED + ROOT + "scale[:, :, None, None], (bias - scale * mean)[:, :, None, None]", "(2, 6, 1, 1)"),
            ("return 1.0, 0.0", "two tensors"),
            ("return F.group_norm(x, num_groups, weight, bias, eps)", "two tensors"),
        ],
        "more-noise": [
            ("return alpha_bar_t**0.5 * x_s + (1 - alpha_bar_t) ** 0.5 * noise", "from a clean latent"),
            (MORE + "alpha**0.5 * x_s + ((1 - alpha_bar_t) ** 0.5 - (1 - alpha_bar_s) ** 0.5) * noise",
             "in their variance"),
            (MORE + "alpha**0.5 * x_s + (alpha_bar_s - alpha_bar_t) ** 0.5 * noise", "shrinks with the signal"),
            (MORE + "alpha**0.5 * x_s + (1 - alpha_bar_t) ** 0.5 * noise", "counted twice"),
            (MORE + "alpha * x_s + (1 - alpha) * noise", "square roots"),
            ("return x_s + (alpha_bar_s - alpha_bar_t) ** 0.5 * noise", "must shrink"),
            (MORE + "(1 - alpha) ** 0.5 * x_s + alpha**0.5 * noise", "weights are swapped"),
        ],
        "ddpm-mean": [
            (A + "(x_t - (1 - a) * eps) / a**0.5", "not yet divided"),
            (A + "x_t - (1 - a) / (1 - alpha_bar_t) ** 0.5 * eps", "must grow"),
            (A + "a**0.5 * (x_t - (1 - a) / (1 - alpha_bar_t) ** 0.5 * eps)", "multiplies by sqrt(alpha_t)"),
            (A + "(x_t - (1 - alpha_bar_t) ** 0.5 * eps) / a**0.5", "takes all the noise out"),
            ("return (x_t - (1 - alpha_bar_t) ** 0.5 * eps) / alpha_bar_t**0.5", "x0_hat"),
            (A + "(x_t - (1 - a) / (1 - alpha_bar_prev) ** 0.5 * eps) / a**0.5", "the level that x_t is at"),
            (A + "(x_t + (1 - a) / (1 - alpha_bar_t) ** 0.5 * eps) / a**0.5", "sign"),
            (DDIM, "DDIM's step"),
        ],
        "eta": [
            (ETA + "(1 - alpha_bar_prev) ** 0.5 * eps + sigma * noise", "Too much noise"),
            (ETA + "((1 - alpha_bar_prev) ** 0.5 - sigma) * eps + sigma * noise", "Variances add up"),
            (ETA + LESS + " + sigma**2 * noise", "weight is sigma"),
            (ETA + LESS, "fresh noise is missing"),
            (DDIM, "DDIM whatever eta"),
            (ETA.replace("eta *", "1.0 *") + LESS + " + sigma * noise", "DDPM whatever eta"),
            (ETA.replace("(1 - alpha_bar_prev) / (1 - alpha_bar_t) * ", "")
             + "max(0, 1 - alpha_bar_prev - sigma**2) ** 0.5 * eps + sigma * noise", "*posterior's*"),
        ],
    },
    "04_txt2img": {
        "nearest": [
            ("return (image @ text.T).argmax(dim=1)", "Long caption vectors win"),
            ("return (F.normalize(image, dim=1) @ text.T).argmax(dim=1)", "Long caption vectors win"),
            ("return torch.cdist(image, text).argmin(dim=1)", "compares end points"),
            (UNIT + "(image @ text.T).argmax(dim=0)", "nearest image of each caption"),
            (UNIT + "(text @ image.T).argmax(dim=1)", "nearest image of each caption"),
            (UNIT + "(image @ text.T).argmin(dim=1)", "farthest captions"),
            (UNIT + "(image @ text.T).max(dim=1).values", "largest cosine of each image"),
            (UNIT + "image @ text.T", "all cosines"),
            (UNIT.replace("dim=1", "dim=0") + "(image @ text.T).argmax(dim=1)", "along dimension 0"),
        ],
        "timesteps": [
            ("return list(range(T, 0, -(T // n)))[:n]", "starts at 1000"),
            ("return [i * (T // n) + offset for i in range(n)]", "go up"),
            ("return [i * (T // n) for i in reversed(range(n))]", "add the offset"),
            ("return list(range(T - 1, -1, -(T // n)))[:n]", "trailing"),
            ("return torch.linspace(T - 1, 0, n).round()", "linspace"),
            ("return list(range(T - T // n + offset, 0, -T // n))[: n - 1]", "shape"),
        ],
        "guided": [
            ("return (1 + guidance_scale) * eps_cond - guidance_scale * eps_uncond", "guidance_scale - 1"),
            ("w = guidance_scale - 1; return (1 + w) * eps_uncond - w * eps_cond", "swapped"),
            ("return eps_uncond - guidance_scale * (eps_cond - eps_uncond)", "sign"),
            ("w = guidance_scale - 1; return (1 + w) * eps_cond + w * eps_uncond", "add up to 1"),
            ("return eps_cond", "does not depend on guidance_scale"),
            ("eps_cond *= guidance_scale; return eps_cond", "in place"),
        ],
        "ddim": [
            ("return x_t - eps", "subtracts all of eps"),
            ("return (x_t - (1 - alpha_bar_t) ** 0.5 * eps) / alpha_bar_t**0.5", "x0_hat"),
            (RATIO + "return a * (x_t - (1 - alpha_bar_t) ** 0.5 * eps)", "No noise is added again"),
            (RATIO + "b = (1 - alpha_bar_t) ** 0.5; return a * x_t + (b - a * b) * eps", "noise of the old level"),
            ("a = alpha_bar_prev / alpha_bar_t; b = (1 - alpha_bar_prev) - a * (1 - alpha_bar_t); "
             "return a * x_t + b * eps", "square roots"),
            ("x0_hat = (x_t - (1 - alpha_bar_prev) ** 0.5 * eps) / alpha_bar_prev**0.5; "
             "return alpha_bar_t**0.5 * x0_hat + (1 - alpha_bar_t) ** 0.5 * eps", "swapped"),
        ],
    },
    "05_img2img": {
        "timesteps": [
            ("return timesteps[: int(len(timesteps) * strength)]", "the most noise"),
            ("return timesteps[int(len(timesteps) * strength) :]", "share to keep"),
            ("return timesteps[-int(len(timesteps) * strength) :]", "t[-0:]"),
            ("return timesteps[len(timesteps) - round(len(timesteps) * strength) :]", "nearest"),
            ("return timesteps[len(timesteps) + int(-len(timesteps) * strength // 1) :]", "rounded up"),
            ("return [t for t in timesteps if t < 1000 * strength]", "number of timesteps"),
        ],
        "steps": [
            ("return done", "only a share of them"),
            ("return int(done * strength)", "the number to ask for"),
            ("return int(done / strength)", "This rounds down"),
            ("return round(done / strength)", "to the nearest"),
            ("return done / strength", "must be whole"),
            ("return int(done / strength) + 1", "one step too many"),
        ],
        "start": [
            ("return z + noise", "Both terms have full weight"),
            ("return z + (1 - alpha_bar) ** 0.5 * noise", "z has full weight"),
            ("return alpha_bar * z + (1 - alpha_bar) * noise", "square roots"),
            ("return (1 - alpha_bar) ** 0.5 * z + alpha_bar**0.5 * noise", "swapped"),
            ("return noise", "z is missing"),
            ("return alpha_bar**0.5 * z", "noise is missing"),
        ],
        "repaint": [
            (LOOP.format("noise"), "noise alone"),
            (LOOP.format("z"), "without any noise"),
            (LOOP.format("model.schedule.add_noise(z, noise, timesteps[-1])"), "*last* timestep"),
            (LOOP.format("model.schedule.add_noise(z, noise, 999)"), "t = 999"),
            ("context, empty = empty, context; x = model.schedule.add_noise(z, noise, timesteps[0]); "
             + LOOP.format("x"), "contexts are swapped"),
            ("return model.schedule.add_noise(z, noise, timesteps[0])", "noisy start"),
        ],
    },
    "06_inpainting": {
        "cells": [
            ("return mask[..., ::8, ::8]", "Grey values stay grey"),
            ("return (torch.nn.functional.avg_pool2d(mask, 8) >= 0.5).float()", "The mean"),
            ("return (torch.nn.functional.max_pool2d(mask, 8) >= 0.5).float()", "if any of its pixels"),
            ("return (mask[..., ::8, ::8] < 0.5).float()", "Zeros and ones are swapped"),
            ("return (mask[..., 4::8, 4::8] >= 0.5).float()", "in the middle"),
            ("return (mask >= 0.5).float()", "for each pixel"),
        ],
        "keep-known-region": [
            (KNOWN + "torch.where(m == 1, known, x)", "Inside and outside"),
            ("return torch.where(m == 1, x, z)", "clean latent"),
            ("return torch.where(m == 1, x, z + noise)", "full weight"),
            ("return torch.where(m == 1, x, (1 - alpha_bar) ** 0.5 * z + alpha_bar**0.5 * noise)",
             "weights are swapped"),
            ("return torch.where(m == 1, x, alpha_bar * z + (1 - alpha_bar) * noise)", "square roots"),
            (KNOWN + "x + (1 - m) * known", "Replace x there"),
            ("return m * x", "is 0 outside"),
            ("return x", "returns x unchanged"),
        ],
        "hook": [
            (HOOK.format("x, z, noise, m, model.schedule.alpha_bar(t_prev)"), "At the end"),
            (HOOK.format("x, z, noise, m, model.schedule.alpha_bar(max(t_prev, 0))"), "At the end"),
            (HOOK.format("x, z, noise, m, 1.0"), "clean latent"),
            (HOOK.format("x, z, noise, m, 0.0"), "only noise"),
            (HOOK.format("x, z, noise, 1 - m, " + LEVEL), "Inside and outside"),
            (HOOK.format("x, noise, z, m, " + LEVEL), "z and noise are swapped"),
            ("return lambda x, t_prev: x", "returns x unchanged"),
            ("return lambda x, t_prev: None", "returns nothing"),
            ("return ldm.pipelines.keep_known_region(z, z, noise, m, 1.0)", "a function of x and t_prev"),
        ],
        "composite": [
            ("return (1 - mask) * new + mask * old", "New and old are swapped"),
            ("return torch.where(mask >= 0.5, new, old)", "cuts the mask"),
            ("return mask * new", "black"),
            ("return mask * new + old", "full weight everywhere"),
        ],
    },
}
# fmt: on
