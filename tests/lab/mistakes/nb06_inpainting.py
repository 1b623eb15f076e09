"""The typical wrong answers to the exercises of notebook 06, and words of the hint that each must get.

An answer is the body of the function, or the whole of a function or class.
"""

KNOWN = "known = alpha_bar**0.5 * z + (1 - alpha_bar) ** 0.5 * noise; return "
HOOK = "return lambda x, t_prev: keep_known_region({})"
LEVEL = "1.0 if t_prev == -1 else model.schedule.alpha_bar(t_prev)"
UP = "r = alpha_bar(t) / alpha_bar(t_prev); x = {}"
ROUNDS = """def repaint(predict, alpha_bar, timesteps, rounds, z, m, draw):
    x = draw()
    for t, t_prev in zip(timesteps, [*timesteps[1:], -1]):
        for again in range(rounds if t_prev >= 0 else 1):
            eps = predict(x, t)
            x0_hat = (x - (1 - alpha_bar(t)) ** 0.5 * eps) / alpha_bar(t) ** 0.5
            x = alpha_bar(t_prev) ** 0.5 * x0_hat + (1 - alpha_bar(t_prev)) ** 0.5 * eps
            x = keep_known_region(x, z, draw(), m, {level})
            if again < rounds - 1 and t_prev >= 0:
                {up}
    return x
"""
RIGHT_LEVEL = "alpha_bar(t_prev) if t_prev >= 0 else 1.0"
RIGHT_UP = UP.format("r**0.5 * x + (1 - r) ** 0.5 * draw()")


def rounds(up: str = RIGHT_UP, level: str = RIGHT_LEVEL) -> str:
    return ROUNDS.format(up=up, level=level)


MISTAKES: dict[str, list[tuple[str, str]]] = {
    "cells": [
        ("return mask[..., ::8, ::8]", "Grey values stay grey"),
        ("return mask[..., ::8, ::8] >= 0.5", "Make it float"),
        ("return (mask[..., ::8, ::8] > 0).float()", "Any grey counts"),
        ("return (F.avg_pool2d(mask, 8) >= 0.5).float()", "The mean"),
        ("return F.avg_pool2d(mask, 8)", "The mean"),
        ("return (F.interpolate(mask, scale_factor=1 / 8, mode='bilinear') >= 0.5).float()", "The mean"),
        ("return (F.interpolate(mask, scale_factor=1 / 8, mode='area') >= 0.5).float()", "The mean"),
        ("return (F.max_pool2d(mask, 8) >= 0.5).float()", "if any of its pixels"),
        ("return F.max_pool2d(mask, 8)", "if any of its pixels"),
        ("return (mask[..., ::8, ::8] < 0.5).float()", "Zeros and ones are swapped"),
        ("return (mask[..., 4::8, 4::8] >= 0.5).float()", "in the middle"),
        ("return (mask[..., 7::8, 7::8] >= 0.5).float()", "The bottom right pixel"),
        ("return (mask >= 0.5).float()", "for each pixel"),
        ("return (mask[::8, ::8] >= 0.5).float()", "for each pixel"),
        ("return (mask[..., :8, :8] >= 0.5).float()", "one corner"),
        ("return (mask[..., ::8] >= 0.5).float()", "The rows need"),
    ],
    "keep-known-region": [
        (KNOWN + "torch.where(m == 1, known, x)", "Inside and outside"),
        ("return torch.where(m == 1, x, z)", "clean latent"),
        ("return torch.where(m == 1, x, z + noise)", "full weight"),
        ("return torch.where(m == 1, x, z + (1 - alpha_bar) ** 0.5 * noise)", "z has full weight"),
        ("return torch.where(m == 1, x, alpha_bar**0.5 * z)", "no noise has been added"),
        ("return torch.where(m == 1, x, (1 - alpha_bar) ** 0.5 * z + alpha_bar**0.5 * noise)", "weights are swapped"),
        ("return torch.where(m == 1, x, alpha_bar * z + (1 - alpha_bar) * noise)", "square root"),
        ("return torch.where(m == 1, x, alpha_bar**0.5 * z + (1 - alpha_bar) * noise)", "square root"),
        ("return torch.where(m == 1, x, alpha_bar * z + (1 - alpha_bar) ** 0.5 * noise)", "square root"),
        ("return torch.where(m == 1, x, alpha_bar**0.5 * z + (1 - alpha_bar**0.5) * noise)", "the squares add up"),
        ("return torch.where(m == 1, x, alpha_bar**0.5 * z - (1 - alpha_bar) ** 0.5 * noise)", "subtracted"),
        (KNOWN + "x + (1 - m) * known", "Replace x there"),
        (KNOWN + "m * x + known", "Inside of the mask this adds"),
        (KNOWN + "(1 - m) * known", "0 inside"),
        (KNOWN + "known", "everywhere, in the hole"),
        ("return m * x + (1 - m) * alpha_bar**0.5 * z + (1 - alpha_bar) ** 0.5 * noise", "also reaches the hole"),
        (KNOWN + "x.mul_(m).add_((1 - m) * known)", "in place"),
        ("return m * x", "is 0 outside"),
        ("return x", "returns x unchanged"),
    ],
    "hook": [
        (HOOK.format("x, z, noise, m, model.schedule.alpha_bar(t_prev)"), "At the end"),
        (HOOK.format("x, z, noise, m, model.schedule.alpha_bar(max(t_prev, 0))"), "At the end"),
        (HOOK.format("x, z, noise, m, float(model.schedule.alpha_bars[t_prev])"), "Python's [-1]"),
        (HOOK.format("x, z, noise, m, 1.0"), "clean latent"),
        (HOOK.format("x, z, noise, m, 0.0"), "only noise"),
        (
            HOOK.format("x, z, noise, m, 1.0 if t_prev == -1 else 1 - model.schedule.alpha_bar(t_prev)"),
            "1 - alpha_bar",
        ),
        (HOOK.format(f"x, z, noise, m, ({LEVEL}) ** 0.5"), "takes the roots itself"),
        (HOOK.format("x, z, noise, m, 1.0 if t_prev <= 1 else model.schedule.alpha_bar(t_prev)"), "Only -1"),
        (HOOK.format("x, z, noise, m, " + LEVEL) + " if t_prev >= 0 else x", "x comes back unchanged"),
        (HOOK.format("x, z, noise, m, " + LEVEL) + " if t_prev >= 0 else z", "fills the hole"),
        (HOOK.format("x, z, noise, 1 - m, " + LEVEL), "Inside and outside"),
        (HOOK.format("x, noise, z, m, " + LEVEL), "z and noise are swapped"),
        (HOOK.format("x, z, torch.randn_like(x), m, " + LEVEL), "draws noise anew"),
        ("return lambda x, t_prev: x", "returns x unchanged"),
        ("return lambda x, t_prev: None", "returns nothing"),
        ("return keep_known_region(z, z, noise, m, 1.0)", "a function of x and t_prev"),
    ],
    "culprits": [
        ("return {'A': 4, 'B': 1, 'C': 3, 'D': 2}", "2 of 4 are right. In A"),
        ("return {'A': 3, 'B': 2, 'C': 4, 'D': 1}", "2 of 4 are right. In B"),
        ("return {'A': '3', 'B': '1', 'C': '2', 'D': '4'}", "2 of 4 are right. In C"),
        ("return {'A': 3, 'B': 1, 'C': 4, 'D': 1}", "3 of 4 are right. In D"),
        ("return [3, 1, 4, 2]", "Return a dict"),
    ],
    "repaint": [
        (rounds().replace("rounds if t_prev >= 0 else 1", "1"), "Each step was taken once"),
        (rounds(up="pass"), "still at the level of t = 601"),
        (rounds(up=UP.format("(1 / r) ** 0.5 * x + (1 - 1 / r) ** 0.5 * draw()")), "upside down"),
        (rounds(up=UP.format("r * x + (1 - r) * draw()")), "needs the weight sqrt(r)"),
        (rounds(up=UP.format("x + (1 - r) ** 0.5 * draw()")), "needs the weight sqrt(r)"),
        (
            rounds(up=UP.format("m * (r**0.5 * x + (1 - r) ** 0.5 * draw()) + (1 - m) * x")),
            "the known region has a wrong",
        ),
        (rounds(up=UP.format("(1 - m) * (r**0.5 * x + (1 - r) ** 0.5 * draw()) + m * x")), "noise the whole of x"),
        (rounds(level="alpha_bar(t)"), "the known region has a wrong level"),
        (rounds(level="alpha_bar(t_prev)"), "without noise after the last step"),
        (rounds().replace("    return x", "    return z[0]"), "of z's shape"),
    ],
}
