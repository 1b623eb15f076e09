"""The typical wrong answers to the exercises of notebook 05, and words of the hint that each must get.

An answer is the body of the function, or the whole of a function or class.
"""

IMG2IMG = """def my_img2img(model, prompt, image, strength, seed):
    shape, generator = (1, 4, image.height // 8, image.width // 8), torch.Generator().manual_seed(seed)
    posterior_noise, noise = (torch.randn(shape, generator=generator) for _ in range(2))
    z = {z}
    timesteps = {timesteps}
    x = {x}
    context, empty = {contexts}
    states = list(ldm.denoise(model, x, context, timesteps, negative_context=empty, guidance_scale={scale}))
    return {result}
"""
PARTS = {
    "z": "model.encode(ldm.images.to_tensor(image), posterior_noise)",
    "timesteps": "strength_timesteps(model.schedule.timesteps(20), strength)",
    "x": "noisy_start(z, noise, model.schedule.alpha_bar(timesteps[0]))",
    "contexts": 'model.embed([prompt, ""]).chunk(2)',
    "scale": "4.0",
    "result": "ldm.images.to_pil(model.decode(states[-1].x_t))[0]",
}
FACTOR = "model.vae.config.scaling_factor"
PIXELS = "ldm.images.to_tensor(image)"
DECODED = "ldm.images.to_pil(model.decode({}))[0]"


def img2img(**wrong: str) -> str:
    return IMG2IMG.format(**(PARTS | wrong))


INVERT = """def invert(model, z, context, timesteps):
    x, up = z, {up}
    for t, t_next in zip([-1, *up], up):
        a, a_next = model.schedule.alpha_bar(t), model.schedule.alpha_bar(t_next)
        eps = model.unet(x, torch.tensor([t_next]), context)
        x0_hat = {x0_hat}
        x = a_next**0.5 * x0_hat + (1 - a_next) ** 0.5 * eps
    return x
"""
X0_HAT = "(x - (1 - a) ** 0.5 * eps) / a**0.5"

MISTAKES: dict[str, list[tuple[str, str]]] = {
    "timesteps": [
        ("return timesteps[: int(len(timesteps) * strength)]", "keeps the first timesteps"),
        ("return timesteps[int(len(timesteps) * strength) :]", "the share to keep"),
        ("return timesteps[-int(len(timesteps) * strength) :]", "At strength 0"),
        ("return timesteps[-max(1, int(len(timesteps) * strength)) :]", "At strength 0"),
        ("return timesteps[len(timesteps) - round(len(timesteps) * strength) :]", "rounded to the nearest"),
        ("return timesteps[len(timesteps) - math.ceil(len(timesteps) * strength) :]", "rounded up"),
        ("return timesteps[int(len(timesteps) * (1 - strength)) :]", "has the opposite effect"),
        ("return timesteps[len(timesteps) - int(len(timesteps) * strength) - 1 :]", "one timestep too many"),
        ("return timesteps[len(timesteps) - int(len(timesteps) * strength) + 1 :]", "one timestep too few"),
        ("return timesteps[::-1][: int(len(timesteps) * strength)]", "order is reversed"),
        ("return [t for t in timesteps if t < 1000 * strength]", "share of the number of timesteps"),
        ("return int(len(timesteps) * strength)", "Return the timesteps themselves"),
        ("return timesteps[len(timesteps) * (1 - strength) :]", "slice indices must be integers"),
    ],
    "start": [
        ("return z + noise", "full weight at every level"),
        ("return z + (1 - alpha_bar) ** 0.5 * noise", "z has full weight"),
        ("return alpha_bar**0.5 * z + noise", "noise has full weight"),
        ("return alpha_bar * z + (1 - alpha_bar) * noise", "square roots are missing"),
        ("return alpha_bar * z + (1 - alpha_bar) ** 0.5 * noise", "A square root is missing"),
        ("return alpha_bar**0.5 * z + (1 - alpha_bar) * noise", "A square root is missing"),
        ("return alpha_bar**0.5 * z + (1 - alpha_bar**0.5) * noise", "their squares"),
        ("return alpha_bar**0.5 * z + (1 - alpha_bar**2) ** 0.5 * noise", "squared once more"),
        ("return alpha_bar * z + (1 - alpha_bar**2) ** 0.5 * noise", "Its square root is"),
        ("return (1 - alpha_bar) ** 0.5 * z + alpha_bar**0.5 * noise", "weights are swapped"),
        ("return (1 - alpha_bar) * z + alpha_bar * noise", "weights are swapped"),
        ("return alpha_bar**0.5 * z - (1 - alpha_bar) ** 0.5 * noise", "noise is subtracted"),
        ("return (z - (1 - alpha_bar) ** 0.5 * noise) / alpha_bar**0.5", "takes noise off"),
        ("return alpha_bar**0.5 * z", "noise is missing"),
        ("return noise", "z is missing"),
        ("z *= alpha_bar**0.5\n    return z + (1 - alpha_bar) ** 0.5 * noise", "in place"),
    ],
    "img2img": [
        (img2img(z=f"model.encode({PIXELS})"), "z is the posterior's mean"),
        (img2img(z=f"model.encode({PIXELS}, noise)", x=PARTS["x"].replace("noise", "posterior_noise")), "swapped"),
        (img2img(z=f"model.vae.encode({PIXELS}).sample(posterior_noise).detach()"), "lacks the scaling factor"),
        (img2img(z=f"model.vae.encode({PIXELS}).mean.detach()"), "lacks the scaling factor"),
        (img2img(z=f"model.vae.config.scaling_factor * {PARTS['z']}"), "applied twice"),
        (img2img(x="z"), "without any noise"),
        (img2img(x="noise"), "from noise alone"),
        (img2img(x="noisy_start(z, noise, model.schedule.alpha_bar(timesteps[-1]))"), "noise of the last timestep"),
        (img2img(x="noisy_start(z, noise, model.schedule.alpha_bar(999))"), "t = 999"),
        (img2img(x="noisy_start(z, noise, model.schedule.alpha_bar(951))"), "first of all 20 timesteps"),
        (img2img(timesteps="model.schedule.timesteps(20)"), "runs all 20 steps"),
        (img2img(timesteps="model.schedule.timesteps(20)", x="noise"), "text-to-image"),
        (img2img(contexts='model.embed(["", prompt]).chunk(2)'), "contexts are swapped"),
        (img2img(contexts='model.embed(["", ""]).chunk(2)'), "The prompt is not used"),
        (img2img(scale="1.0"), "no guidance"),
        (img2img(scale="7.5"), "7.5"),
        (img2img(result=DECODED.format("states[-2].x_t")), "before the last step"),
        (img2img(result=DECODED.format("states[-2].x0_hat")), "last estimate"),
        (img2img(result=DECODED.format("states[0].x_t")), "This is the noisy start"),
        (img2img(result=DECODED.format("states[0].x0_hat")), "estimate of the first step"),
        (img2img(result=DECODED.format("states[-1].eps")), "the noise that was predicted"),
        (img2img(result=DECODED.format(f"states[-1].x_t / {FACTOR}")), "model.decode does that already"),
        (img2img(result=DECODED.format(f"{FACTOR} * states[-1].x_t")), "model.decode divides"),
        (img2img(result="states[-1].x_t"), "This is a latent"),
    ],
    "diagnosis": [
        ('return {"A": 1, "B": 2, "C": 3, "D": 4}[column]', "0 of 4 are right. Look at column A"),
        ('return {"A": 2, "B": 1, "C": 4, "D": 3}[column]', "2 of 4 are right. Look at column A"),
        ('return {"A": 3, "B": 1, "C": 2, "D": 4}[column]', "Look at column C"),
    ],
    "invert": [
        ("return z", "Walk up"),
        (INVERT.format(up="timesteps", x0_hat=X0_HAT), "You walk down"),
        (INVERT.format(up="timesteps[1:][::-1]", x0_hat=X0_HAT), "one level too early"),
        (INVERT.format(up="timesteps[::-1]", x0_hat="x - eps"), "Print t and t_next"),
        ("return z[0]", "z's shape"),
    ],
}  # fmt: skip
