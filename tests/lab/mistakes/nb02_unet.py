"""The typical wrong answers to the exercises of notebook 02, and words of the hint that each must get.

An answer is the body of the function, or the whole of a function or class.
"""

A = "a = model.schedule.alpha_bar(t); return "
COS_SIN = "return torch.cat([a.cos(), a.sin()], dim=1)"
TIME = "a = t[:, None] * 10_000 ** (-torch.arange(dim // 2) / (dim // 2)); return "

FIRST = "h = self.conv1(F.silu(self.norm1(x)))"
ADD = "h = h + self.time_emb_proj(F.silu(temb))[:, :, None, None]"
LATE_SILU = "h = h + F.silu(self.time_emb_proj(temb))[:, :, None, None]"
SECOND = "h = self.conv2(F.silu(self.norm2(h)))"
END = "return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))"


def block(body: str) -> str:
    return f"class ResidualBlock(ldm.blocks.ResnetBlock):\n    def forward(self, x, temb=None): {body}"


QK = "q @ k.transpose(-1, -2)"
D = "q.shape[-1] ** 0.5"

U = """def through_the_u(unet, x_t, t, context):
    t = torch.as_tensor(t).reshape(-1)
    temb = unet.time_embedding(timestep_embedding(t, unet.config.block_out_channels[0]))
    h = unet.conv_in(x_t)
    skips = [h]
    for level in unet.down_blocks:
        for i, block in enumerate(level.resnets):
            h = block(h, temb)
            h = level.attentions[i](h, context) if level.attentions else h
            skips.append(h)
        for halve in level.downsamplers:
            h = halve(h)
            skips.append(h)  # halved
    h = unet.mid_block(h, temb, context)
    for level in unet.up_blocks:
        for i, block in enumerate(level.resnets):
            both = torch.cat([h, skips.pop()], dim=1)
            h = block(both, temb)
            h = level.attentions[i](h, context) if level.attentions else h
        for double in level.upsamplers:
            h = double(h)
    return unet.conv_out(F.silu(unet.conv_norm_out(h)))
"""
ATTEND = "            h = level.attentions[i](h, context) if level.attentions else h\n"

ASK = "x_t = small.schedule.add_noise(x0, eps, t); return "
T, EPS = "t = torch.randint(1000, (len(x0),)); ", "eps = torch.randn_like(x0); "
MSE = "F.mse_loss(unet(x_t, t, context), eps)"

WHO = """def suspects():
    return {{"hears no text": {}, "is always told t = 500": {},
            "has lost its outermost skip": {}, "has lost its innermost skip": {}}}
"""


def denoiser(forward: str, init: str = "self.layer = nn.Conv2d(4, 4, 1)") -> str:
    return f"""class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        {init}
    def forward(self, x_t, t, context):
        {forward}
"""


MISTAKES: dict[str, list[tuple[str, str]]] = {
    "add-noise": [
        (A + "a * x0 + (1 - a) * eps", "Both square roots are missing"),
        (A + "torch.sqrt(a) * x0 + torch.sqrt(1 - a) * eps", "plain number"),
        (A + "a**0.5 * x0 + (1 - a) * eps", "noise's weight has a square root"),
        (A + "a * x0 + (1 - a) ** 0.5 * eps", "latent's weight has a square root"),
        (A + "a**0.5 * x0 + (1 - a**0.5) * eps", "over the whole of 1 - alpha_bar"),
        (A + "(1 - a) ** 0.5 * x0 + a**0.5 * eps", "weights are swapped"),
        (A + "(1 - a) * x0 + a * eps", "swapped, and their square roots"),
        (A + "a**0.5 * x0 - (1 - a) ** 0.5 * eps", "not subtracted"),
        (A + "x0 + (1 - a) ** 0.5 * eps", "must fade"),
        (A + "a**0.5 * x0 + eps", "noise is there in full"),
        (A + "x0 + eps", "weights are missing"),
        (A + "a**0.5 * (x0 + eps)", "Both have the latent's weight"),
        (A + "a**2 * x0 + (1 - a) ** 2 * eps", "Those are squares"),
        ("a = model.schedule.alpha_bar(t); x0 *= a**0.5; return x0 + (1 - a) ** 0.5 * eps", "in place"),
    ],
    "clean-guess": [
        (A + "x_t - (1 - a) ** 0.5 * eps_hat", "divide by that"),
        (A + "x_t - (1 - a) ** 0.5 * eps_hat / a**0.5", "brackets"),
        (A + "(x_t + (1 - a) ** 0.5 * eps_hat) / a**0.5", "not added"),
        (A + "(x_t - eps_hat) / a**0.5", "subtract that much of it"),
        (A + "x_t - eps_hat", "Plain subtraction"),
        (A + "(x_t - (1 - a) * eps_hat) / a", "Both square roots"),
        (A + "(x_t - (1 - a) ** 0.5 * eps_hat) / a", "divides by alpha_bar"),
        (A + "(x_t - (1 - a) * eps_hat) / a**0.5", "noise's weight has a square root"),
        (A + "(x_t - (1 - a**0.5) * eps_hat) / a**0.5", "over the whole"),
        (A + "(x_t - (1 - a) ** 0.5 * eps_hat) * a**0.5", "divide by it"),
        (A + "(x_t - a**0.5 * eps_hat) / (1 - a) ** 0.5", "swapped"),
        (A + "((1 - a) ** 0.5 * eps_hat - x_t) / a**0.5", "sign is wrong"),
    ],
    "step-back": [
        ("return add_noise(clean_guess(x_t, eps_hat, t), eps_hat, t)", "ends where it began"),
        ("return clean_guess(x_t, eps_hat, t)", "whole way to the guess"),
        ("return add_noise(clean_guess(x_t, eps_hat, t_prev), eps_hat, t)", "two timesteps are swapped"),
        ("return add_noise(clean_guess(x_t, eps_hat, t_prev), eps_hat, t_prev)", "ends where it began"),
        ("return add_noise(eps_hat, clean_guess(x_t, eps_hat, t), t_prev)", "clean latent first"),
        ("return add_noise(clean_guess(x_t, eps_hat, t), torch.randn_like(x_t), t_prev)", "draws new noise"),
        ("return add_noise(x_t, eps_hat, t_prev)", "to the guess of the clean latent"),
        ("return add_noise(clean_guess(x_t, eps_hat, t), x_t, t_prev)", "the noise is eps_hat"),
        ("return add_noise(clean_guess(x_t, eps_hat, t), eps_hat, t - t_prev)", "not the difference"),
        ("return x_t - eps_hat", "all the noise at once"),
    ],
    "time": [
        (TIME + "torch.cat([a.sin(), a.cos()], dim=1)", "sines come first"),
        (TIME + "torch.stack([a.sin(), a.cos()], dim=2).flatten(1)", "as in the paper"),
        (TIME + "torch.stack([a.cos(), a.sin()], dim=2).flatten(1)", "take turns"),
        (f"a = t[:, None] * 10_000 ** (-torch.arange(dim) / dim); {COS_SIN}", "One row per timestep"),
        (f"a = t[:, None] * 10_000 ** (torch.arange(dim // 2) / (dim // 2)); {COS_SIN}", "minus is missing"),
        (f"a = t[:, None] * 10_000 ** (-torch.arange(dim // 2) / dim); {COS_SIN}", "divide it by dim/2"),
        (f"a = t[:, None] * 10_000 ** (-torch.arange(dim // 2) / (dim // 2 - 1)); {COS_SIN}", "dim/2 - 1"),
        (f"a = t[:, None] * 10_000 ** (-torch.arange(1, dim // 2 + 1) / (dim // 2)); {COS_SIN}", "counts from 0"),
        (TIME.replace("[:, None]", "[:, None] / 1000").replace("return ", COS_SIN), "divides t by 1000"),
        (TIME.replace("[:, None]", "[:, None] * 2 * torch.pi").replace("return ", COS_SIN), "2 pi"),
        (TIME.replace("[:, None]", "[0]") + "torch.cat([a.cos(), a.sin()])", "One row per timestep"),
    ],
    "block": [
        (block(body), hint)
        for body, hint in [
            (f"{FIRST}; {ADD}; {SECOND}; return h", "shortcut is missing"),
            (f"{FIRST}; {SECOND}; {END}", "time is missing"),
            (f"{FIRST}; {SECOND}; {ADD}; {END}", "too late"),
            (f"{FIRST}; h = F.silu(self.norm2(h)); {ADD}; h = self.conv2(h); {END}", "after the second norm"),
            (f"{FIRST}; {ADD.replace('F.silu(temb)', 'temb')}; {SECOND}; {END}", "through a SiLU first"),
            (f"{FIRST}; {LATE_SILU}; {SECOND}; {END}", "SiLU comes after"),
            (f"{FIRST}; {ADD.replace('[:, :, None, None]', '')}; {SECOND}; {END}", "spreads it over all positions"),
            (f"h = self.conv1(self.norm1(x)); {ADD}; h = self.conv2(self.norm2(h)); {END}", "Without a SiLU"),
            (f"h = self.conv1(self.norm1(x)); {ADD}; {SECOND}; {END}", "first SiLU is missing"),
            (f"{FIRST}; {ADD}; h = self.conv2(self.norm2(h)); {END}", "second SiLU is missing"),
            (
                f"h = self.conv1(self.norm1(F.silu(x))); {ADD}; h = self.conv2(self.norm2(F.silu(h))); {END}",
                "wrong order",
            ),
            (f"{FIRST}; {ADD}; {SECOND}; {END}".replace("silu(self", "relu(self"), "ReLU"),
            (f"h = self.conv1(F.silu(x)); {ADD}; h = self.conv2(F.silu(h)); {END}", "norms are missing"),
            (
                f"h = F.silu(self.norm1(self.conv1(x))); {ADD}; h = F.silu(self.norm2(self.conv2(h))); {END}",
                "before them",
            ),
            (f"x = F.silu(self.norm1(x)); h = self.conv1(x); {ADD}; {SECOND}; {END}", "before norm and SiLU"),
            (f"x = self.norm1(x); h = self.conv1(F.silu(x)); {ADD}; {SECOND}; {END}", "not its norm"),
            (f"{FIRST}; {ADD}; {SECOND}; return h + x", "self.conv_shortcut"),
            (f"{FIRST}; {ADD}; {SECOND}; {END}", "VAE, which knows no time"),
        ]
    ],
    "attention": [
        (f"return ({QK}).softmax(dim=-1) @ v", "not divided by sqrt(d)"),
        (f"return ({QK} / q.shape[-1]).softmax(dim=-1) @ v", "has its square root"),
        (f"return ({QK} * {D}).softmax(dim=-1) @ v", "multiplies by sqrt(d)"),
        (f"return ({QK} / q.shape[-2] ** 0.5).softmax(dim=-1) @ v", "number of queries"),
        (f"return ({QK} / k.shape[-2] ** 0.5).softmax(dim=-1) @ v", "number of keys"),
        (f"return ({QK} / {D}).softmax(dim=-2) @ v", "over the queries"),
        (f"return ({QK} / {D}).softmax(dim=1) @ v", "With dim=1"),
        (f"return ({QK} / {D}).softmax(dim=0) @ v", "With dim=0"),
        (f"return ({QK} / {D}) @ v", "softmax is missing"),
        (f"return ({QK} / {D}).softmax(dim=-1)", "values are still to be mixed"),
        (f"return ({QK}).softmax(dim=-1) / {D} @ v", "after the softmax"),
        (f"return ({QK} / {D}).sigmoid() @ v", "do not compete"),
        (f"return (q @ k / {D}).softmax(dim=-1) @ v", "along their last axis"),
        (f"return (q @ k.T / {D}).softmax(dim=-1) @ v", "along their last axis"),
        (f"return (q * k / {D}).softmax(dim=-1) * v", "along their last axis"),
    ],
    "u": [
        (U.replace("[h, skips.pop()]", "[skips.pop(), h]"), "wrong order"),
        (
            U.replace(ATTEND + "            skips.append(h)\n", "            skips.append(h)\n" + ATTEND),
            "before the transformer",
        ),
        (U.replace("skips.pop()", "skips.pop(0)"), "Last in, first out"),
        (U.replace("skips = [h]", "skips = []"), "never pushed"),
        (U.replace("            skips.append(h)  # halved\n", ""), "other channels or another size"),
        (
            U.replace("            both = torch.cat([h, skips.pop()], dim=1)", "            both = h + skips.pop()"),
            "other channels or another size",
        ),
        (U.replace("torch.cat([h, skips.pop()], dim=1)", "torch.cat([h, skips[-1]], dim=1)"), "another size"),
        (
            U.replace("            both = torch.cat([h, skips.pop()], dim=1)", "            both = h"),
            "other channels",
        ),
        (U.replace("torch.cat([h, skips.pop()], dim=1)", "torch.cat([h, skips.pop()])"), "other channels"),
    ],
    "suspects": [
        (WHO.format('"A"', '"C"', '"D"', '"B"'), "where would the glasses"),
        (WHO.format('"C"', '"B"', '"D"', '"A"'), "scene with scraps in it"),
        (WHO.format('"C"', '"A"', '"B"', '"D"'), "cell by cell"),
        ('def suspects(): return {"hears no text": "A"}', "four keys"),
    ],
    "loss": [
        (f"{T}{EPS}{ASK}F.mse_loss(unet(x_t, t, context), x0)", "clean latent"),
        (f"{T}{EPS}{ASK}F.mse_loss(unet(x_t, t, context), x_t)", "with x_t"),
        (f"{T}{EPS}{ASK}F.mse_loss(unet(x_t, t, context), torch.randn_like(x0))", "Draw it once"),
        (f"{T}{EPS}{ASK}F.l1_loss(unet(x_t, t, context), eps)", "square them"),
        (f"{T}{EPS}{ASK}(unet(x_t, t, context) - eps).mean()", "cancel out"),
        (f"{T}{EPS}{ASK}(unet(x_t, t, context) - eps).square().sum()", "is a sum"),
        (f"{T}{EPS}{ASK}(unet(x_t, t, context) - eps).square()", "single number"),
        (f"{T}{EPS}{ASK}{MSE}.sqrt()", "takes the root"),
        (f"{T}{EPS}{ASK}{MSE}.item()", "No gradient"),
        (f"{T}eps = torch.rand_like(x0); {ASK}{MSE}", "never negative"),
        (f"{T}eps = torch.randn_like(x0[0]); {ASK}{MSE}", "same noise"),
        (f"t = torch.randint(1000, (1,)); {EPS}{ASK}{MSE}", "timestep of its own"),
        (f"t = torch.randint(1000, ()).item(); {EPS}{ASK}{MSE}", "timestep of its own"),
        (f"t = torch.randint(1000, (1,)).expand(len(x0)); {EPS}{ASK}{MSE}", "share one timestep"),
        (f"t = torch.randint(999, (len(x0),)); {EPS}{ASK}{MSE}", "leaves its upper end out"),
        (f"t = torch.randint(1, 1000, (len(x0),)); {EPS}{ASK}{MSE}", "from 1 to 999"),
        (f"t = torch.randint(100, (len(x0),)); {EPS}{ASK}{MSE}", "all timesteps"),
        (f"{T}{EPS}{ASK}F.mse_loss(unet(x0, t, context), eps)", "clean latents"),
        (f"{T}{EPS}{ASK}F.mse_loss(unet(x_t, t / 1000, context), eps)", "whole numbers"),
        (f"{T}{EPS}{ASK}F.mse_loss(unet(x_t, torch.randint(1000, t.shape), context), eps)", "another t"),
        (f"{T}{EPS}{ASK}F.mse_loss(unet(x_t, context, t), eps)", "timestep of its own"),
    ],
    "denoiser": [
        (denoiser("return x_t[:, :2]"), "of the latents' shape"),
        (denoiser("return x_t", "pass"), "0 weights"),
        (denoiser("return self.layer(x_t)", "self.layer = nn.Conv2d(4, 4, 1001, padding=500)"), "allowed are"),
    ],
}
