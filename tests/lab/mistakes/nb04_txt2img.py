"""The typical wrong answers to the exercises of notebook 04, and words of the hint that each must get.

An answer is the body of the function, or the whole of a function or class.
"""

# fmt: off
LEAVES, RETURNS = "(1 - alpha_bar_t) ** 0.5", "(1 - alpha_bar_prev) ** 0.5"


def loop(
    guided: str = "guide(eps_uncond, eps_cond, guidance_scale)",
    x0_hat: str = "(x_t - (1 - alpha_bar(t)) ** 0.5 * eps) / alpha_bar(t) ** 0.5",
    x_prev: str = "alpha_bar(t_prev) ** 0.5 * x0_hat + (1 - alpha_bar(t_prev)) ** 0.5 * eps",
    uncond: str = "x_t, t, empty",
    cond: str = "x_t, t, context",
    end: str = "return x_t",
) -> str:
    """The solution's body, with some of its expressions replaced."""
    return f"""alpha_bar, x_t = model.schedule.alpha_bar, x_T
    predict = model.unet
    for t, t_prev in zip(timesteps, [*timesteps[1:], -1]):
        eps_uncond, eps_cond = predict({uncond}), predict({cond})
        eps = {guided}
        x0_hat = {x0_hat}
        x_t = {x_prev}
    {end}"""


def interval(inside: str = "low < t <= high", outside: str = "eps_cond", unet: str = "predict(x_t, t, empty)") -> str:
    """A body that is right but for what is given, and predicts without the prompt at every timestep."""
    return f"""alpha_bar, x_t, predict = model.schedule.alpha_bar, x_T, model.unet
    for i, (t, t_prev) in enumerate(zip(timesteps, [*timesteps[1:], -1])):
        eps_cond, eps_uncond = predict(x_t, t, context), {unet}
        eps = guide(eps_uncond, eps_cond, guidance_scale) if {inside} else {outside}
        x0_hat = (x_t - (1 - alpha_bar(t)) ** 0.5 * eps) / alpha_bar(t) ** 0.5
        x_t = alpha_bar(t_prev) ** 0.5 * x0_hat + (1 - alpha_bar(t_prev)) ** 0.5 * eps
    return x_t"""


MISTAKES: dict[str, list[tuple[str, str]]] = {
    "timesteps": [
        ("return list(range(T, 0, -(T // n)))[:n]", "starts at 1000"),
        ("return [i * (T // n) + offset for i in range(n)]", "go up"),
        ("return [i * (T // n) for i in range(n)]", "go up, and they miss the offset"),
        ("return [i * (T // n) for i in reversed(range(n))]", "add the offset"),
        ("return list(range(T - 1, -1, -(T // n)))[:n]", "trailing"),
        ("return torch.linspace(T - 1, 0, n).round()", "linspace"),
        ("return [i * (T // n) + offset for i in range(n, 0, -1)]", "one stride too high"),
        ("return [i * n + offset for i in reversed(range(n))]", "The stride is n"),
        ("return list(range((n - 1) * (T // n) + offset, 0, -T // n))", "rounds away from 0"),
        ("return [int(i * T / n) + offset for i in reversed(range(n))]", "Divide first"),
        ("return [round(i * T / n) + offset for i in reversed(range(n))]", "Divide first"),
        ("return [i * T / n + offset for i in reversed(range(n))]", "not whole numbers"),
        ("return [float(i * (T // n) + offset) for i in reversed(range(n))]", "Make each an int"),
        ("return list(range(T - T // n + offset, 0, -T // n))[: n - 1]", "shape"),
        ("return [i * (T // n) + offset for i in range(n - 1, 0, -1)]", "last timestep is missing"),
        ("return [i * (T // n) + offset for i in reversed(range(n - 1))]", "first timestep is missing"),
        ("return reversed(range(n))", "holds no numbers"),
    ],
    "guide": [
        ("return eps_cond + guidance_scale * (eps_cond - eps_uncond)", "already overshoots"),
        ("return (1 + guidance_scale) * eps_cond - guidance_scale * eps_uncond", "already overshoots"),
        ("return eps_uncond - guidance_scale * (eps_cond - eps_uncond)", "sign"),
        ("return eps_uncond + guidance_scale * (eps_uncond - eps_cond)", "sign"),
        ("return eps_cond + guidance_scale * (eps_uncond - eps_cond)", "swapped"),
        ("return torch.lerp(eps_cond, eps_uncond, guidance_scale)", "swapped"),
        ("return eps_uncond + (guidance_scale - 1) * (eps_cond - eps_uncond)", "one step short"),
        ("return eps_uncond + guidance_scale * eps_cond", "adds all of eps_cond"),
        ("return guidance_scale * (eps_cond - eps_uncond)", "arrow alone"),
        ("return guidance_scale * eps_cond - eps_uncond", "add up to 1"),
        ("w = guidance_scale - 1; return (1 + w) * eps_cond + w * eps_uncond", "add up to 1"),
        ("return (eps_uncond + guidance_scale * eps_cond) / (1 + guidance_scale)", "stays between"),
        ("return guidance_scale * eps_cond", "leaves eps_uncond out"),
        ("return eps_cond", "does not depend on guidance_scale"),
        ("return eps_uncond", "The result is eps_uncond"),
        ("eps_uncond += guidance_scale * (eps_cond - eps_uncond); return eps_uncond", "in place"),
    ],
    "loop": [
        (loop(guided="guide(eps_cond, eps_uncond, guidance_scale)"), "two predictions are swapped"),
        (loop(guided="eps_cond"), "Guidance is missing"),
        (loop(guided="eps_uncond"), "no say"),
        (loop(guided="eps_cond + guidance_scale * (eps_cond - eps_uncond)"), "one arrow too far"),
        (loop(cond="x_t, t, empty"), "no say"),
        (loop(uncond="x_t, t, context"), "Guidance is missing"),
        (loop(cond="x_t, t, empty", uncond="x_t, t, context"), "two predictions are swapped"),
        (loop(cond="x_T, t, context", uncond="x_T, t, empty"), "sees x_T in every round"),
        (loop(x0_hat="(x_t - (1 - alpha_bar(t_prev)) ** 0.5 * eps) / alpha_bar(t_prev) ** 0.5"), "x_t never changes"),
        (loop(x0_hat="(x_t - (1 - alpha_bar(t_prev)) ** 0.5 * eps) / alpha_bar(t_prev) ** 0.5",
              x_prev="alpha_bar(t) ** 0.5 * x0_hat + (1 - alpha_bar(t)) ** 0.5 * eps"), "levels are swapped"),
        (loop(x0_hat="(x_t - (1 - alpha_bar(t)) * eps) / alpha_bar(t)"), "missing in x0_hat"),
        (loop(x_prev="alpha_bar(t_prev) * x0_hat + (1 - alpha_bar(t_prev)) * eps"), "missing in the new x_t"),
        (loop(x0_hat="(x_t - (1 - alpha_bar(t)) * eps) / alpha_bar(t)",
              x_prev="alpha_bar(t_prev) * x0_hat + (1 - alpha_bar(t_prev)) * eps"), "square roots are missing"),
        (loop(x0_hat="x_t - (1 - alpha_bar(t)) ** 0.5 * eps"), "not divided"),
        (loop(x0_hat="(x_t + (1 - alpha_bar(t)) ** 0.5 * eps) / alpha_bar(t) ** 0.5"), "wrong sign"),
        (loop(x0_hat="(x_t - (1 - alpha_bar(t)) ** 0.5 * eps) * alpha_bar(t) ** 0.5"), "Divide by it"),
        (loop(x0_hat="x_t - (1 - alpha_bar(t)) ** 0.5 * eps / alpha_bar(t) ** 0.5"), "in brackets"),
        (loop(x_prev="x0_hat"), "without any noise"),
        (loop(x_prev="alpha_bar(t_prev) ** 0.5 * x0_hat"), "No noise goes back in"),
        (loop(x_prev="alpha_bar(t_prev) ** 0.5 * x0_hat + (1 - alpha_bar(t)) ** 0.5 * eps"), "old level"),
        (loop(x_prev="alpha_bar(t) ** 0.5 * x0_hat + (1 - alpha_bar(t)) ** 0.5 * eps"), "x_t never changes"),
        (loop(x_prev="(1 - alpha_bar(t_prev)) ** 0.5 * x0_hat + alpha_bar(t_prev) ** 0.5 * eps"),
         "x0_hat and eps are swapped"),
        (loop(x_prev="alpha_bar(t_prev) ** 0.5 * x_t + (1 - alpha_bar(t_prev)) ** 0.5 * eps"), "of x0_hat and eps"),
        (loop(x_prev="x_t - eps"), "subtracts all of eps"),
        (loop(x_prev="alpha_bar(t_prev) ** 0.5 * x0_hat + (1 - alpha_bar(t_prev)) ** 0.5 * eps_cond"), "is eps_cond"),
        (loop(x_prev="alpha_bar(t_prev) ** 0.5 * x0_hat + (1 - alpha_bar(t_prev)) ** 0.5 * eps_uncond"),
         "is eps_uncond"),
        (loop(end="return x0_hat"), "returns x0_hat"),
        (loop(end="    return x_t"), "runs only once"),
        (loop(uncond="x_t, empty, t"), "raised"),
        (loop(cond="x_t, max(t_prev, 0), context", uncond="x_t, max(t_prev, 0), empty"), "told t_prev"),
    ],
    "interval": [
        (interval(inside="not low < t <= high"), "swapped"),
        (interval(outside="eps_uncond"), "Follow the prompt there"),
        (interval(inside="True"), "at every timestep"),
        (interval(inside="False"), "never guides"),
        (interval(inside="t > low"), "high has no effect"),
        (interval(inside="t <= high"), "low has no effect"),
        (interval(inside="low <= t <= high"), "low itself is outside"),
        (interval(inside="low < t < high"), "high itself is inside"),
        (interval(inside="low <= t < high"), "wrong way round"),
        (interval(), "not needed"),
    ],
    "bugs": [
        ("return {'A': 5, 'B': 1, 'C': 2, 'D': 1}", "Image D: a dog with glasses shows"),
        ("return {'A': 3, 'B': 1, 'C': 2, 'D': 4}", "Image A: the scene is all there"),
        ("return {'A': 5, 'B': 6, 'C': 2, 'D': 4}", "3 of 4 found. Image B: nothing but a blur"),
        ("return {'A': 5, 'B': 1, 'C': 6, 'D': 4}", "What does it avoid"),
        ("return {'A': 5, 'B': 1}", "Image C has no number"),
        ("return [5, 1, 2, 4]", "Return a dict"),
        ("return 1 / 0", "ZeroDivisionError"),
    ],
}
# fmt: on
