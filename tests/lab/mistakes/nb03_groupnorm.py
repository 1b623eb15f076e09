"""The typical wrong answers to the exercises of notebook 03, and words of the hint that each must get.

An answer is the body of the function, or the whole of a function or class.
"""

# fmt: off
SQUARED = "s = (x_t[:, None] - alpha_bar_t**0.5 * points).square().sum(dim=2); "
WEIGHTS = SQUARED + "w = (-s / (2 * (1 - alpha_bar_t))).softmax(dim=1); return "
GUESS = SQUARED + "return (-s / {}).softmax(dim={}) @ points"
X0 = "x0_hat = (x_t - (1 - alpha_bar_t) ** 0.5 * eps) / alpha_bar_t**0.5; "
BACK = "return alpha_bar_prev**0.5 * x0_hat + (1 - alpha_bar_prev) ** 0.5 * eps"
V = "a, s = alpha_bar_t**0.5, (1 - alpha_bar_t) ** 0.5; return "
ETA = ("variance = (1 - alpha_bar_prev) / (1 - alpha_bar_t) * (1 - alpha_bar_t / alpha_bar_prev); "
       f"sigma = eta * variance**0.5; {X0}signal = alpha_bar_prev**0.5 * x0_hat; return signal + ")
LESS = "(1 - alpha_bar_prev - sigma**2) ** 0.5 * eps"
R = ("b, n, p = map(ldm.samplers.log_snr, (alpha_bar_before, alpha_bar_t, alpha_bar_prev)); "
     "r = (n - b) / (p - n); ")
D = R + "D = x0_hat + {} * (x0_hat - x0_before); "
END = ("eps = (x_t - alpha_bar_t**0.5 * D) / (1 - alpha_bar_t) ** 0.5; "
       "return alpha_bar_prev**0.5 * D + (1 - alpha_bar_prev) ** 0.5 * eps")
OLD_EPS = ("eps = (x_t - alpha_bar_t**0.5 * x0_hat) / (1 - alpha_bar_t) ** 0.5; "
           "return alpha_bar_prev**0.5 * D + (1 - alpha_bar_prev) ** 0.5 * eps")
SNR = "lambda a: a / (1 - a)"
LOOP = """def walk_down(predict, x, timesteps, alpha_bar):
    for t, t_prev in zip(timesteps, {}):
        eps = predict(x, t)
        x0_hat = {}
        x = {}
    return x
"""
STEPS, TO_X0 = "[*timesteps[1:], -1]", "(x - (1 - alpha_bar(t)) ** 0.5 * eps) / alpha_bar(t) ** 0.5"
FIXED = "alpha_bar(t_prev) ** 0.5 * x0_hat + (1 - alpha_bar(t_prev)) ** 0.5 * eps"
BROKEN = "alpha_bar(t_prev) ** 0.5 * x0_hat + (1 - alpha_bar(t)) ** 0.5 * eps"
NORM = """class GroupNorm(nn.Module):
    def __init__(self, num_groups, num_channels, eps):
        super().__init__()
        self.num_groups, self.eps = num_groups, eps
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x):
        b, c, h, w = x.shape
        weight, bias = self.weight[:, None, None], self.bias[:, None, None]
        g = x.{cut}
        mean, var = g.mean(dim={dim}, keepdim=True), g.var(dim={dim}, keepdim=True, unbiased={unbiased})
        y = ({top} / {root}).reshape(b, c, h, w)
        return {result}
"""
NORM_PARTS = {"cut": "reshape(b, self.num_groups, -1)", "dim": "2", "unbiased": "False", "top": "(g - mean)",
              "root": "(var + self.eps).sqrt()", "result": "y * weight + bias"}


def norm(**parts: str) -> str:
    return NORM.format(**(NORM_PARTS | parts))


MISTAKES: dict[str, list[tuple[str, str]]] = {
    "best-guess": [
        ("s = (x_t[:, None] - points).square().sum(dim=2); "
         "return (-s / (2 * (1 - alpha_bar_t))).softmax(dim=1) @ points", "has moved"),
        ("s = (x_t[:, None] - alpha_bar_t * points).square().sum(dim=2); "
         "return (-s / (2 * (1 - alpha_bar_t))).softmax(dim=1) @ points", "root is missing"),
        (GUESS.format("(1 - alpha_bar_t)", 1), "The 2 is missing"),
        (GUESS.format("(2 * (1 - alpha_bar_t) ** 0.5)", 1), "the variance belongs there"),
        (GUESS.format("(2 * alpha_bar_t)", 1), "variance of the noise"),
        (GUESS.format("2", 1), "The variance is missing"),
        (GUESS.format("1", 1), "The variance is missing"),
        (GUESS.format("(2 * (alpha_bar_t - 1))", 1), "minus is missing"),
        (GUESS.format("(2 * (1 - alpha_bar_t))", 0), "over the dots"),
        (SQUARED + "return (-s.sqrt() / (2 * (1 - alpha_bar_t))).softmax(dim=1) @ points", "must be squared"),
        (SQUARED + "return points[s.argmin(dim=1)]", "nearest point alone"),
        ("return points.mean(dim=0).expand(len(x_t), -1)", "plain mean"),
        (WEIGHTS + "w @ (alpha_bar_t**0.5 * points)", "points themselves"),
        (WEIGHTS + "w", "Those are the weights"),
        (WEIGHTS + "(x_t - alpha_bar_t**0.5 * (w @ points)) / (1 - alpha_bar_t) ** 0.5", "noise eps"),
        (SQUARED + "return (-s / (2 * (1 - alpha_bar_t))).exp() @ points", "do not add up to 1"),
        (SQUARED + "w = (-s / (2 * (1 - alpha_bar_t))).exp(); return w @ points / w.sum(dim=1, keepdim=True)",
         "underflows"),
        ("x_t -= 1; return x_t", "in place"),
    ],
    "ddim": [
        ("return x_t - eps", "subtracts all of eps"),
        (X0 + "return x0_hat", "guess itself"),
        ("return x_t - (1 - alpha_bar_t) ** 0.5 * eps", "leaves the signal shrunken"),
        (X0 + "return alpha_bar_prev**0.5 * x0_hat", "No noise is put back"),
        (X0 + "return alpha_bar_prev**0.5 * x0_hat + (1 - alpha_bar_t) ** 0.5 * eps", "old level"),
        (X0 + "return alpha_bar_t**0.5 * x0_hat + (1 - alpha_bar_prev) ** 0.5 * eps", "weight of the old level"),
        (X0 + "return alpha_bar_t**0.5 * x0_hat + (1 - alpha_bar_t) ** 0.5 * eps", "It returns x_t"),
        (X0.replace("_t)", "_prev)").replace("bar_t*", "bar_prev*")
         + BACK.replace("_prev", "_t"), "swapped"),
        (X0.replace(" - (1 - alpha_bar_t) ** 0.5", " + (1 - alpha_bar_t) ** 0.5") + BACK, "sign in the estimate"),
        (X0 + BACK.replace(" + ", " - "), "wrong sign"),
        ("x0_hat = (x_t - (1 - alpha_bar_t) * eps) / alpha_bar_t; "
         "return alpha_bar_prev * x0_hat + (1 - alpha_bar_prev) * eps", "square roots are missing"),
        (X0 + "return alpha_bar_prev * x0_hat + (1 - alpha_bar_prev) * eps", "missing in the mixture"),
        ("x0_hat = (x_t - (1 - alpha_bar_t) * eps) / alpha_bar_t; " + BACK, "missing in the estimate"),
        ("x0_hat = (x_t - (1 - alpha_bar_t) * eps) / alpha_bar_t**0.5; " + BACK, "A square root"),
        ("x0_hat = (x_t - (1 - alpha_bar_t) ** 0.5 * eps) / alpha_bar_t; " + BACK, "A square root"),
        ("x0_hat = x_t - (1 - alpha_bar_t) ** 0.5 * eps; " + BACK, "not yet divided"),
        (X0 + "return x0_hat + (1 - alpha_bar_prev) ** 0.5 * eps", "full weight"),
        ("return alpha_bar_prev**0.5 * x_t + (1 - alpha_bar_prev) ** 0.5 * eps", "adds noise to x_t"),
        ("return x_t - ((1 - alpha_bar_t) ** 0.5 - (1 - alpha_bar_prev) ** 0.5) * eps", "does not grow"),
        ("x0_hat = (x_t - math.sqrt(1 - alpha_bar) * eps); return x0_hat", "NameError"),
    ],
    "from-v": [
        (V + "(s * x_t + a * v, a * x_t - s * v)", "wrong order"),
        (V + "(a * x_t + s * v, s * x_t - a * v)", "Both signs"),
        (V + "(a * x_t + s * v, s * x_t + a * v)", "sign of v in x0_hat"),
        (V + "(a * x_t - s * v, s * x_t - a * v)", "sign of v in eps"),
        (V + "(a * x_t - s * v, a * v - s * x_t)", "sign of x_t in eps"),
        (V.replace("**0.5", "").replace(" ** 0.5", "") + "(a * x_t - s * v, s * x_t + a * v)", "square roots"),
        (V + "((x_t - s * v) / a, v)", "takes v for eps"),
        (V + "(s * x_t - a * v, a * x_t + s * v)", "weights are swapped"),
        (V + "(a * x_t - s * v, (x_t - (a * x_t - s * v)) / s)", "what is left"),
        (V + "a * x_t - s * v", "two tensors"),
    ],
    "ddpm": [
        (ETA + "(1 - alpha_bar_prev) ** 0.5 * eps + sigma * noise", "Too much noise"),
        (ETA + "((1 - alpha_bar_prev) ** 0.5 - sigma) * eps + sigma * noise", "Variances add up"),
        (ETA + LESS + " + sigma**2 * noise", "weight is sigma"),
        (ETA + LESS, "fresh noise is missing"),
        (X0 + BACK, "DDIM whatever eta"),
        (ETA.replace("eta *", "1.0 *") + LESS + " + sigma * noise", "DDPM whatever eta"),
        (ETA.replace("(1 - alpha_bar_prev) / (1 - alpha_bar_t) * ", "")
         + "max(0, 1 - alpha_bar_prev - sigma**2) ** 0.5 * eps + sigma * noise", "*posterior's*"),
        (ETA.replace("(1 - alpha_bar_prev) / (1 - alpha_bar_t) * ", "") + LESS + " + sigma * noise",
         "negative number"),
        (ETA.replace("(1 - alpha_bar_prev) / (1 - alpha_bar_t) * ", "")
         + "math.sqrt(1 - alpha_bar_prev - sigma**2) * eps + sigma * noise", "negative number"),
        (ETA.replace("eta * variance**0.5", "(eta * variance) ** 0.5") + LESS + " + sigma * noise",
         "eta multiplies the standard deviation"),
        (ETA + "sigma * noise", "All the noise is fresh"),
        (ETA + LESS + " - sigma * noise", "noise is subtracted"),
        (ETA.replace("alpha_bar_prev**0.5 *", "alpha_bar_prev *") + LESS + " + sigma * noise", "weight of x0_hat"),
        (ETA.replace("alpha_bar_t / alpha_bar_prev", "alpha_bar_t") + LESS + " + sigma * noise", "this one step"),
        (ETA.replace("alpha_bar_t / alpha_bar_prev", "alpha_bar_prev / alpha_bar_t") + LESS + " + sigma * noise",
         "upside down"),
        (ETA.replace("alpha_bar_prev**0.5 * x0_hat", "x0_hat") + LESS + " + sigma * noise", "full weight"),
        ("a = alpha_bar_t / alpha_bar_prev; sigma = eta * (1 / (1 - alpha_bar_prev) + a / (1 - a)) ** -0.5; "
         + X0 + "return alpha_bar_prev**0.5 * x0_hat + " + LESS + " + sigma * noise", "one fraction"),
        (ETA.replace("variance**0.5", "variance") + LESS + " + sigma * noise", "root is missing"),
    ],
    "dpmpp-2m": [
        (D.format("1 / r") + END, "half as far"),
        (D.format("-1 / (2 * r)") + END, "Go on in the direction"),
        (D.format("r / 2") + END, "upside down"),
        (D.format("r") + END, "upside down"),
        (D.format("0") + END, "That is DDIM"),
        (D.format("-0.5") + END, "mean of both guesses"),
        (D.format("0.5") + END, "lengths of the steps have no say"),
        (D.format("1 / (2 * r)") + OLD_EPS, "It must fit D"),
        (D.format("1 / (2 * r)") + END.replace("prev**0.5 * D", "prev**0.5 * x0_hat"), "for eps alone"),
        (D.format("1 / (2 * r)").replace("ldm.samplers.log_snr", "float") + END, "measured in alpha_bar"),
        (D.format("1 / (2 * r)").replace("ldm.samplers.log_snr", SNR) + END, "logarithm is missing"),
        (D.format("1 / (2 * r)").replace("ldm.samplers.log_snr", "math.log") + END, "not of the signal alone"),
        (D.format("1 / (2 * r)") + "return D", "That is D"),
        (D.format("1 / (2 * r)") + END.replace(" / (1 - alpha_bar_t) ** 0.5", ""), "not yet divided"),
    ],
    "find-the-bug": [
        (LOOP.format(STEPS, TO_X0, FIXED.replace("t_prev", "t")), "x never moves"),
        (LOOP.format(STEPS, TO_X0.replace("(t)", "(t_prev)"), FIXED), "never moves"),
        (LOOP.format(STEPS, TO_X0.replace("x - ", "x + "), BROKEN), "sign of the estimate"),
        (LOOP.format(STEPS, TO_X0, BROKEN.replace("x0_hat + ", "x0_hat - ")), "The sign was right"),
        (LOOP.format(STEPS, TO_X0, "alpha_bar(t_prev) ** 0.5 * x0_hat"), "Without any noise"),
        (LOOP.format("timesteps[1:]", TO_X0, FIXED), "so is the last step"),
        (LOOP.format("timesteps[1:]", TO_X0, BROKEN), "list of levels was right"),
        (LOOP.format(STEPS, "x - (1 - alpha_bar(t)) ** 0.5 * eps", FIXED), "The division"),
    ],
    "group-norm": [
        (norm(result="y"), "are not used"),
        (norm(result="y * weight"), "The shift is missing"),
        (norm(result="y + bias"), "The scale is missing"),
        (norm(result="(y + bias) * weight"), "shifts first"),
        (norm(top="g"), "mean is not taken off"),
        (norm(root="1"), "does not divide"),
        (norm(root="(var + self.eps)"), "root is missing"),
        (norm(root="(var.sqrt() + self.eps)"), "under the root"),
        (norm(root="var.sqrt()"), "eps is left out"),
        (norm(unbiased="True"), "m - 1"),
        (norm(root="(g.std(dim=2, keepdim=True) + self.eps)"), "m - 1"),
        (norm(cut="reshape(b, c, -1)"), "InstanceNorm"),
        (norm(cut="reshape(b, 1, -1)"), "num_groups is left out"),
        (norm(cut="reshape(b, c // self.num_groups, -1)"), "channels in a group"),
        (norm(cut="reshape(b, -1, self.num_groups, h, w)", dim="(1, 3, 4)"), "interleaved"),
        (norm(cut="reshape(b, self.num_groups, -1, h, w)", dim="(0, 2, 3, 4)"), "whole batch"),
        (norm(cut="reshape(b, self.num_groups, -1, h, w)", dim="2"), "Each position"),
        (norm(result="(y * weight + bias).reshape(b, self.num_groups, -1, h, w)"), "still cut into groups"),
        (norm(result="y * self.weight + self.bias"), "(c, 1, 1)"),
        (norm().replace("self.weight", "self.gamma"), "weight"),
    ],
    "solver": [
        ("for a, b in zip(alpha_bars, alpha_bars[1:]):\n"
         "        x0_hat, eps = predict(x, a); x = b**0.5 * x0_hat + (1 - b) ** 0.5 * eps\n    return x",
         "DDIM's is 0.112"),
        ("for a, b in zip(alpha_bars, alpha_bars[1:]):\n        _, eps = predict(x, a); _, more = predict(x, b)\n"
         "    return x", "alpha_bar = 1"),
        ("for a in alpha_bars:\n        predict(x, min(a, 0.99))\n    return x", "11 times"),
        ("return predict(x, alpha_bars[0])", "Return x at the last level"),
    ],
}
# fmt: on
