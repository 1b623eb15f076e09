"""The typical wrong answers to the exercises of the notebook on flows, and words of the hint that each must get.

An answer is the body of the function, or the whole of a function or class.
"""

# fmt: off
LINE = "x_s = (1 - s) * x0 + s * eps; return "
SQUARE = "(u(x_s, s) - ({})).square().mean()"
AB = "a, b = alpha_bar_t**0.5, (1 - alpha_bar_t) ** 0.5; return "
LEVELS = ("a, b = alpha_bar_t**0.5, (1 - alpha_bar_t) ** 0.5; "
          "c, d = alpha_bar_prev**0.5, (1 - alpha_bar_prev) ** 0.5; "
          "x0_hat = (x_t - b * eps) / a; ")
STEP = LEVELS + "h = d / (c + d) - b / (a + b); u = eps - x0_hat; x_s = x_t / (a + b); return "
THERE = "k = u(x, s); h = s_next - s; m = u({}); return {}"
TIMES = "a, b = alpha_bars.sqrt(), (1 - alpha_bars).sqrt(); s = {}; wanted = {}; "
NEAREST = "return (s - wanted[:, None]).abs().argmin(dim=1).tolist()"
SHARE, EVEN = "b / (a + b)", "torch.linspace(s[-1].item(), 0, n + 1)[:-1]"
MORPH = """def learn_morph(start, end):
    def pairs(count):
        x0, eps = {}
        return x0[torch.randint(len(x0), (count,))], eps[torch.randint(len(eps), (count,))]

    return nb.toy.fit(pairs, {})
"""
SEEN = "x_t = schedule.add_noise(x0, eps, t); x_t[t == 999] = eps[t == 999]; "
TAUGHT = ("loss = {}; optimizer.zero_grad(); loss.backward(); optimizer.step(); return loss.item()")
ERROR = "(unet(x_t, t, words) - ({})).square().mean()"
VELOCITY = TAUGHT.format(ERROR.format("eps - x0"))
LINE_S = "s = schedule.flow_times[t].float().view(-1, 1, 1, 1); x_t = (1 - s) * x0 + s * eps; "

MISTAKES: dict[str, list[tuple[str, str]]] = {
    "flow-loss": [
        ("x_s = s * x0 + (1 - s) * eps; return " + SQUARE.format("eps - x0"), "the wrong way"),
        ("x_s = s * x0 + (1 - s) * eps; return " + SQUARE.format("x0 - eps"), "the wrong way"),
        (LINE + SQUARE.format("x0 - eps"), "wrong sign"),
        (LINE + SQUARE.format("eps"), "predicts noise"),
        (LINE + SQUARE.format("x0"), "predicts the clean point"),
        (LINE + SQUARE.format("s * (eps - x0)"), "way already gone"),
        (LINE + SQUARE.format("eps - x_s"), "still to go"),
        ("x_s = (1 - s)**0.5 * x0 + s**0.5 * eps; return " + SQUARE.format("eps - x0"), "roots belong"),
        ("x_s = x0; return " + SQUARE.format("eps - x0"), "not the clean one"),
        ("x_s = eps; return " + SQUARE.format("eps - x0"), "not the noise"),
        (LINE + "(u(x_s, 1 - s) - (eps - x0)).square().mean()", "wrong time"),
        (LINE + "(u(x_s, s) - (eps - x0)).square().sum()", "sum of the squares"),
        (LINE + "(u(x_s, s) - (eps - x0)).square().sum(dim=1).mean()", "two coordinates"),
        (LINE + "(u(x_s, s) - (eps - x0)).abs().mean()", "absolute error"),
        (LINE + "(u(x_s, s) - (eps - x0)).mean().square()", "cancel"),
        (LINE + "(u(x_s, s) - (eps - x0)).square()", "one number"),
    ],
    "heun-step": [
        ("return x + (s_next - s) * u(x, s)", "Euler's step alone"),
        ("return x - (s_next - s) * u(x, s)", "negative already"),
        (THERE.format("x + h * k, s_next", "x + h * (k + m)"), "take their mean"),
        (THERE.format("x + h * k, s_next", "x + h * m"), "second velocity alone"),
        (THERE.format("x, s_next", "x + h * (k + m) / 2"), "not at x again"),
        (THERE.format("x + h * k, s", "x + h * (k + m) / 2"), "it is s_next"),
        (THERE.format("x - h * k, s_next", "x + h * (k + m) / 2"), "The first step goes"),
        (THERE.format("x - h * k, s_next", "x - h * (k + m) / 2"), "away from the data"),
        (THERE.format("x + h * k, s_next", "x - h * (k + m) / 2"), "The last step"),
        (THERE.format("x + h / 2 * k, s + h / 2", "x + h * m"), "midpoint"),
        (THERE.format("x + h * k, s_next", "x + h * k + h * m"), "take their mean"),
        (THERE.format("x + h * k, s_next", "x + h * k + h / 2 * m"), "Start again from x"),
        (THERE.format("x + k, s_next", "x + h * (k + m) / 2"), "no length"),
        (THERE.format("x + h * k, s_next", "(k + m) / 2"), "Now go along it"),
    ],
    "from-velocity": [
        (AB + "(x_t + a * u) / (a + b), (x_t - b * u) / (a + b)", "wrong order"),
        (AB + "x_t - b * u, x_t + a * u", "do not add up to 1"),
        (AB + "(x_t - b * u) / (a**2 + b**2), (x_t + a * u) / (a**2 + b**2)", "add up to 1"),
        (AB + "(x_t + b * u) / (a + b), (x_t + a * u) / (a + b)", "sign of u in x0_hat"),
        (AB + "(x_t - b * u) / (a + b), (x_t - a * u) / (a + b)", "sign of u in eps"),
        (AB + "(x_t + b * u) / (a + b), (x_t - a * u) / (a + b)", "Both signs"),
        (AB + "(x_t - a * u) / (a + b), (x_t + b * u) / (a + b)", "weights are swapped"),
        (AB + "a * x_t - b * u, b * x_t + a * u", "reads u as v"),
        (AB + "(x_t - b * u) / a, u", "u for eps"),
        ("return x_t - (1 - alpha_bar_t) * u, x_t + alpha_bar_t * u", "roots are missing"),
        (AB + "x_t - b / (a + b) * u, x_t + a / (a + b) * u", "divide it by the sum"),
        (AB + "(x_t - b * u) / (a + b), u - (x_t - b * u) / (a + b)", "plus x0_hat"),
        (AB + "(x_t - b * u) / (a + b)", "return two tensors"),
    ],
    "flow-step": [
        (STEP + "x_s + h * u", "multiply by the sum"),
        (STEP + "(c + d) * (x_t + h * u)", "divide by the sum"),
        (STEP + "x_t + h * u", "divide first"),
        (STEP + "(a + b) * (x_s + h * u)", "old sum"),
        (STEP + "(c + d) * (x_s - h * u)", "towards the noise"),
        (STEP + "(c + d) * (x_s + h * (x0_hat - eps))", "towards the noise"),
        (STEP + "(c + d) * (x_s + h * eps)", "along eps"),
        (STEP + "(c + d) * (x_s + h * (eps - x_t))", "took x_t"),
        (STEP + "(c + d) * (x_s + h * (eps - x_s))", "took x_s"),
        (STEP + "(c + d) * (x_s + (d - b) * u)", "not b"),
        (STEP + "(c + d) * (x_s + (d**2 - b**2) * u)", "with b ="),
        (STEP + "(c + d) * (x_s + (c / (c + d) - a / (a + b)) * u)", "towards the noise"),
        (STEP + "(c + d) * (x_s + h * (eps - (x_t - b * eps)))", "not yet divided"),
        (STEP + "(x_s + h * u) / (c + d)", "At the end"),
        (STEP + "(c + d) * (x_t * (a + b) + h * u)", "At the beginning"),
    ],
    "even-times": [
        (TIMES.format(SHARE, "torch.linspace(s[-1].item(), 0, n)") + NEAREST, "leave out the end"),
        (TIMES.format(SHARE, "torch.linspace(s[-1].item(), 0, n + 1)") + NEAREST, "n + 1 timesteps"),
        (TIMES.format(SHARE, "torch.linspace(s[-1].item(), 0, n + 1)[1:]") + NEAREST, "leaves out the start"),
        (TIMES.format(SHARE, "torch.linspace(0, s[-1].item(), n + 1)[1:]") + NEAREST, "from low to high"),
        (TIMES.format(SHARE, "torch.linspace(1, 0, n + 1)[:-1]") + NEAREST, "does not reach"),
        (TIMES.format("b", EVEN) + NEAREST, "even in sqrt"),
        (TIMES.format("1 - alpha_bars", EVEN) + NEAREST, "even in 1 - alpha_bar"),
        ("return [round(t) for t in torch.linspace(999, 0, n + 1)[:-1].tolist()]", "even in t"),
        ("return [999 - round(i * 999 / n) for i in range(n)]", "even in t"),
        ("return [1000 - i * (1000 // n) - 1 for i in range(n)]", "even in t"),
    ],
    "shift": [
        ("return k * s", "leaves the line"),
        ("return k * s / (1 - s)", "the new ratio"),
        ("return s / (k + (1 - k) * s)", "towards the data"),
        ("return k**2 * s / (1 + (k**2 - 1) * s)", "k squared"),
        ("return k**0.5 * s / (1 + (k**0.5 - 1) * s)", "root of k"),
        ("return k * s / (1 + k * s)", "forgets the 1 - s"),
        ("return s ** (1 / k)", "not k-fold"),
    ],
    "reflow-step": [
        ("x_t = schedule.add_noise(x0, eps, t); " + VELOCITY, "put eps there"),
        ("x_t = eps; " + VELOCITY, "noise alone at every level"),
        (LINE_S + VELOCITY, "size, not the point"),
        (LINE_S + "x_t[t == 999] = eps[t == 999]; " + VELOCITY, "size, not the point"),
        ("x_t = schedule.add_noise(eps, x0, t); " + VELOCITY, "swapped in the mixture"),
        ("x_t = schedule.add_noise(eps, x0, t); x_t[t == 999] = eps[t == 999]; " + VELOCITY, "are swapped"),
        ("eps2 = torch.randn_like(x0); x_t = schedule.add_noise(x0, eps2, t); x_t[t == 999] = eps2[t == 999]; "
         + VELOCITY, "fresh noise"),
        ("x_t = schedule.add_noise(x0, torch.randn_like(eps), t); x_t[t == 999] = eps[t == 999]; " + VELOCITY,
         "fresh noise"),
        ("eps = torch.randn_like(eps); " + SEEN + VELOCITY, "fresh noise"),
        ("x_t = x0; " + VELOCITY, "sees the finished latent"),
        (SEEN + TAUGHT.format(ERROR.format("x0 - eps")), "wrong sign"),
        (SEEN + TAUGHT.format(ERROR.format("eps")), "target is the noise"),
        (SEEN + TAUGHT.format(ERROR.format("x0")), "target is the clean latent"),
        (SEEN + TAUGHT.format(ERROR.format("eps - x_t")), "still to go"),
        (SEEN + f"loss = {ERROR.format('eps - x0')}; loss.backward(); optimizer.step(); return loss.item()",
         "zero_grad"),
        (SEEN + f"loss = {ERROR.format('eps - x0')}; loss.backward(); optimizer.step(); optimizer.zero_grad()",
         "return the loss"),
        (SEEN + f"loss = {ERROR.format('eps - x0')}; optimizer.zero_grad(); loss.backward(); return loss.item()",
         "optimizer.step()"),
        (SEEN + f"return {ERROR.format('eps - x0')}", "optimizer.step()"),
        (SEEN + TAUGHT.format("(unet(x_t, t, words) - (eps - x0)).square().sum()"), "sum of the squares"),
        (SEEN + TAUGHT.format("(unet(x_t, t, words) - (eps - x0)).abs().mean()"), "absolute error"),
        (SEEN + TAUGHT.format("(unet(x_t, t, 0 * words) - (eps - x0)).square().mean()"), "see the words"),
        ("x_t = x0; x_t[t == 999] = eps[t == 999]; " + VELOCITY, "in place"),
        (SEEN + "return ((unet(x_t, t, words) - (eps - x0))**2)", "one number"),
    ],
    "morph": [
        (MORPH.format("start, end", 800), "from the heart to the three dots"),
        (MORPH.format("end, torch.randn(1000, 2)", 300), "Train longer"),
        ("return lambda x, s: 0 * x", "Train longer"),
        ("return lambda x, s: x / 0", "not finite"),
    ],
}
