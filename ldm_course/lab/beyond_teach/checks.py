"""Checks of notebook teach_it's exercises."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image, ImageChops
from torch import Tensor, nn

from ldm_course import lora
from ldm_course.lab.shared.verdict import RIGHT, WRONG, Verdict, compare, draws, not_tried, raised
from ldm_course.model import LatentDiffusion
from ldm_course.pipelines import txt2img
from ldm_course.train import teach

STEPS = 4  # of the image on which a part is tried
Layer = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, float], Tensor]  # x, W, bias, A, B, scale


# ---- the layer -------------------------------------------------------------------------------------------------


def lora_linear(yours: Callable[..., Any]) -> Verdict:
    """The LoRA layer: first a fresh one, then one with trained matrices."""

    def applied(x: Tensor, W: Tensor, b: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
        base = nn.Linear(W.shape[1], W.shape[0])
        base.weight, base.bias = nn.Parameter(W), nn.Parameter(b)
        layer = yours(base, len(A), alpha)
        layer.lora_A.weight, layer.lora_B.weight = nn.Parameter(A), nn.Parameter(B)
        return layer(x)

    def right(x: Tensor, W: Tensor, b: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
        return F.linear(x, W, b) + alpha / len(A) * x @ A.T @ B.T

    def base_and(of: Callable[[Tensor, float, int], Tensor]) -> Layer:
        return lambda x, W, b, A, B, alpha: F.linear(x, W, b) + of(x @ A.T @ B.T, alpha, len(A))

    mistakes: list[tuple[Layer, str]] = [
        (lambda x, W, b, A, B, a: F.linear(x, W, b), "lora_A and lora_B are not used yet: add what they make of x."),
        (
            lambda x, W, b, A, B, a: a / len(A) * x @ A.T @ B.T,
            "base_layer is missing. The small matrices only add to what it returns.",
        ),
        (lambda x, W, b, A, B, a: x @ A.T @ B.T, "base_layer is missing, and self.scale, too."),
        (base_and(lambda y, a, r: y), "The strength is missing: multiply what lora_B returns by self.scale."),
        (base_and(lambda y, a, r: r / a * y), "You divide by self.scale. Multiply by it."),
        (base_and(lambda y, a, r: a * y), "The strength is lora_alpha / rank, and that is self.scale."),
        (
            lambda x, W, b, A, B, a: a / len(A) * (F.linear(x, W, b) + x @ A.T @ B.T),
            "self.scale also multiplies base_layer's answer. Multiply only the part of lora_B.",
        ),
        (
            lambda x, W, b, A, B, a: F.linear(x, W, b) + a / len(A) * F.linear(x, W, b) @ A[:, : W.shape[0]].T @ B.T,
            "lora_A reads what base_layer returns. It must read x, the same input.",
        ),
        (
            lambda x, W, b, A, B, a: F.linear(x, W, b) - a / len(A) * x @ A.T @ B.T,
            "The sign is wrong: the change is added.",
        ),
    ]
    x, W, A, B = (draws(1, shape, seed)[0] for seed, shape in enumerate(((2, 3, 6), (6, 6), (2, 6), (6, 2))))
    (b,) = draws(1, (6,), seed=9)
    cases = [(x, W, b, A, B, 2.0), (x, W, b, A, B, 5.0)]
    try:
        verdict = compare(applied, right, cases, mistakes)
    except AttributeError as error:
        verdict = raised(error)
    if "shapes cannot be multiplied" in verdict.message:
        verdict = Verdict(WRONG, "The sizes do not fit. lora_A reads x first, and lora_B reads what lora_A returns.")
    return replace(verdict.then(lambda: _starts_as_nothing(yours)), answer=lora.LoRALinear)


def _starts_as_nothing(yours: Callable[..., Any]) -> Verdict:
    torch.manual_seed(0)
    base = nn.Linear(6, 4)
    layer = yours(base, 3, 3.0)
    (x,) = draws(1, (2, 6))
    zeros = not layer.lora_A.weight.any(), not layer.lora_B.weight.any()
    if zeros == (True, True):
        return Verdict(WRONG, "Both matrices start at zero. Then neither ever gets a gradient: only lora_B may.")
    if zeros == (True, False):
        return Verdict(WRONG, "lora_A starts at zero. That works, too, but everybody else starts lora_B at zero.")
    if not torch.equal(layer(x), base(x)):
        return Verdict(WRONG, "A new layer must change nothing: set lora_B's weight to zero, with nn.init.zeros_.")
    return Verdict(RIGHT, "It gives the package's values, and a new one changes nothing.")


# ---- into the UNet ---------------------------------------------------------------------------------------------

Add = Callable[[Any, int, Sequence[str]], Any]


def add_lora(yours: Add, layer_class: type[nn.Module], model: LatentDiffusion) -> Verdict:
    """Layers around the right ones, in a copy, that then takes part in the real pipeline."""
    verdict = _add_lora(yours, layer_class, model)
    return replace(verdict, answer=_right_add(layer_class))


def _right_add(layer_class: type[nn.Module]) -> Add:
    def add_lora(unet: Any, rank: int, target_modules: Sequence[str]) -> Any:
        unet = copy.deepcopy(unet)
        for name, layer in list(unet.named_modules()):
            if name.endswith(tuple(target_modules)):
                parent, _, child = name.rpartition(".")
                setattr(unet.get_submodule(parent), child, layer_class(layer, rank, rank))
        return unet

    return add_lora


def _add_lora(yours: Add, layer_class: type[nn.Module], model: LatentDiffusion) -> Verdict:
    targets = ("attn2.to_k", "to_out.0")
    given = copy.deepcopy(model.unet)
    wanted = {name for name, _ in given.named_modules() if name.endswith(targets)}
    every = {name for name, layer in given.named_modules() if isinstance(layer, nn.Linear)}
    try:
        changed = yours(given, 3, targets)
    except Exception as error:
        return raised(error)
    if changed is None or changed is Ellipsis:
        return not_tried()
    if not isinstance(changed, nn.Module):
        return Verdict(WRONG, f"It must return the new UNet, not a {type(changed).__name__}.")
    found = {name for name, layer in changed.named_modules() if isinstance(layer, layer_class)}
    if changed is given or any(isinstance(layer, layer_class) for layer in given.modules()):
        return Verdict(WRONG, "It changes the UNet that it was given. Work on a copy: copy.deepcopy(unet).")
    if not found:
        return not_tried()
    if found == every:
        return Verdict(WRONG, "Every linear layer got a LoRA. Only those whose name ends with a target should.")
    if found < wanted:
        return Verdict(
            WRONG, f"Only {len(found)} of {len(wanted)} layers got a LoRA. Each target counts, in each block."
        )
    if found != wanted:
        extra = sorted(found - wanted)[0]
        return Verdict(WRONG, f"{extra} got a LoRA and is no target. Compare the end of the whole name.")
    new: list[Any] = [changed.get_submodule(name) for name in found]
    ranks = {len(layer.lora_A.weight) for layer in new}
    if ranks != {3}:
        return Verdict(WRONG, f"The rank should be 3 here, and it is {ranks.pop()}. Pass rank on to LoRALinear.")
    if {layer.scale for layer in new} != {1.0}:
        return Verdict(WRONG, "The strength is not 1. Pass the rank as lora_alpha, too.")
    return _has_effect(changed, model)


def _has_effect(changed: Any, model: LatentDiffusion) -> Verdict:
    """The same image with the new layers at first, and another once their B is no longer 0."""
    before, after = _image(model), _image(replace(model, unet=changed))
    if _difference(before, after) > 1:
        return Verdict(WRONG, "With the new layers the pipeline generates another image, before any training.")
    with torch.no_grad():
        for name, weight in changed.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.1)
    if _difference(before, _image(replace(model, unet=changed))) <= 1:
        return Verdict(WRONG, "The pipeline's image does not depend on the new layers. Are they in the UNet's place?")
    return Verdict(
        RIGHT, "The pipeline runs on the new layers, and as long as B is zero it generates the same image."
    )


def _image(model: LatentDiffusion) -> Image.Image:
    return txt2img(model, "a dog with glasses", seed=0, num_inference_steps=STEPS)


def _difference(one: Image.Image, other: Image.Image) -> int:
    return max(high for _, high in ImageChops.difference(one, other).getextrema())  # type: ignore[misc]


# ---- a step of teaching ----------------------------------------------------------------------------------------

Step = Callable[..., Any]


@dataclass(frozen=True)
class Course:
    """A tiny task with the form of the real one: a network, its optimizer, and batches of new and old."""

    net: nn.Module
    optimizer: torch.optim.Optimizer
    new: tuple[Tensor, Tensor]
    old: tuple[Tensor, Tensor]


def _course() -> Course:
    torch.manual_seed(0)
    net = nn.Linear(4, 4)
    x, c, y, d = draws(4, (3, 4), seed=7)
    return Course(net, torch.optim.SGD(net.parameters(), lr=0.1), (x, c), (3 * y, d))


def _loss(net: nn.Module, x0: Tensor, context: Tensor) -> Tensor:
    return (net(x0) - context).square().mean(dim=1).mean()


def _step(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    new: tuple[Tensor, Tensor],
    old: tuple[Tensor, Tensor],
    loss_of: Callable[..., Tensor],
) -> float:
    x0, context = torch.cat([new[0], old[0]]), torch.cat([new[1], old[1]])
    loss = loss_of(net, x0, context)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def lesson(yours: Step) -> Verdict:
    """One step of gradient descent on new and old examples together, tried twice on a small network."""

    def run(step: Step) -> Callable[[float], Tensor]:
        def twice(_: float) -> Any:
            course = _course()
            for _ in range(2):
                answer = step(course.net, course.optimizer, course.new, course.old, _loss)
                if answer is None or answer is Ellipsis:
                    return answer
            weight = next(course.net.parameters())
            return torch.cat([weight.flatten(), torch.as_tensor(float(answer))[None]])

        return twice

    def wrong(sources: str) -> Callable[[float], Tensor]:
        def step(net: nn.Module, optimizer: Any, new: Any, old: Any, loss_of: Any) -> float:
            if sources == "sum":
                loss = loss_of(net, *new) + loss_of(net, *old)
            elif sources == "swapped":
                loss = loss_of(net, torch.cat([new[0], old[0]]), torch.cat([old[1], new[1]]))
            else:
                loss = loss_of(net, *{"new": new, "old": old}[sources])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.item()

        return run(step)

    mistakes: list[tuple[Callable, str]] = [
        (wrong("new"), "It only learns from the new examples. Join them with the old ones, or it forgets."),
        (wrong("old"), "It only learns from the old examples. Join them with the new ones."),
        (wrong("sum"), "This adds two means, so each step is twice as long. Join the examples, and take one mean."),
        (wrong("swapped"), "The contexts are in another order than the latents: new first in both."),
    ]
    verdict = compare(run(yours), run(_step), [(0.0,)], mistakes)
    if verdict.status == WRONG and "raised" not in verdict.message:
        verdict = replace(verdict, message=_wrong_order(yours) or verdict.message)
    return replace(verdict, answer=_step)


def _wrong_order(yours: Step) -> str | None:
    """What is wrong with the order in which a step zeroes the gradients, computes them and uses them."""
    course, calls = _course(), []

    class Spy:
        def zero_grad(self) -> None:
            calls.append("zero")
            course.optimizer.zero_grad()

        def step(self) -> None:
            calls.append("step")
            course.optimizer.step()

    next(course.net.parameters()).register_hook(lambda _: calls.append("backward"))
    yours(course.net, Spy(), course.new, course.old, _loss)
    if "backward" not in calls:
        return "Nothing computes gradients yet: call loss.backward()."
    if "step" not in calls:
        return "Nothing is changed yet: call optimizer.step() at the end."
    if calls.index("step") < calls.index("backward"):
        return "optimizer.step() comes too early, before the gradients of this loss are there."
    if "zero" not in calls:
        return (
            "The gradients of earlier steps are still there and add up: call optimizer.zero_grad() before backward."
        )
    if calls.index("backward") < calls.index("zero") < calls.index("step"):
        return "zero_grad comes after backward, and throws the new gradients away."
    return None


# ---- merging, and two in one -----------------------------------------------------------------------------------

Merge = Callable[[Tensor, Tensor, Tensor, float], Tensor]


def merge(yours: Merge, model: LatentDiffusion) -> Verdict:
    """One weight that does all; first alone, then in every layer of the real UNet."""

    def right(W: Tensor, A: Tensor, B: Tensor, scale: float) -> Tensor:
        return W + scale * B @ A

    mistakes: list[tuple[Merge, str]] = [
        (lambda W, A, B, s: W, "A and B are not used yet."),
        (lambda W, A, B, s: W + B @ A, "The strength is missing: scale times B A."),
        (lambda W, A, B, s: s * (W + B @ A), "scale also multiplies W. Multiply only B A."),
        (lambda W, A, B, s: s * B @ A, "W is missing: the change is added to it."),
        (lambda W, A, B, s: W - s * B @ A, "The sign is wrong: the change is added."),
        (lambda W, A, B, s: W + s * (B @ A).T, "The change is transposed: first B, then A, as B @ A."),
        (lambda W, A, B, s: W + B @ A / s, "You divide by scale. Multiply by it."),
        (lambda W, A, B, s: W + s * s * B @ A, "scale is in it twice."),
    ]
    W, A, B = (draws(1, shape, seed)[0] for seed, shape in enumerate(((6, 6), (2, 6), (6, 2))))
    verdict = compare(yours, right, [(W, A, B, 0.5), (W, A, B, 2.0)], mistakes)
    if "shapes cannot be multiplied" in verdict.message or "must match the size" in verdict.message:
        verdict = replace(
            verdict, message="The sizes do not fit. B is (out, r) and A is (r, in), so the change is B @ A."
        )
    return verdict.then(lambda: _merged_image(yours, model))


def _merged_image(yours: Merge, model: LatentDiffusion) -> Verdict:
    torch.manual_seed(0)
    beside = lora.add_lora(model.unet, rank=2, lora_alpha=3)
    with torch.no_grad():
        for weight in lora.lora_parameters(beside):
            weight.copy_(0.1 * torch.randn_like(weight))
        merged = copy.deepcopy(model.unet)
        for name, layer in lora.lora_layers(beside).items():
            own: Any = merged.get_submodule(name)
            new = yours(own.weight.clone(), layer.lora_A.weight, layer.lora_B.weight, layer.scale)
            own.weight = nn.Parameter(new, requires_grad=False)
    one, other = _image(replace(model, unet=beside)), _image(replace(model, unet=merged))
    off = _difference(one, other)
    if off > (1 if model.dtype == torch.float32 else 16):
        return Verdict(WRONG, f"With your weights the pipeline generates another image, {off}/255 off.", (one, other))
    count = len(lora.lora_layers(beside))
    message = f"The pipeline ran on {count} layers that you merged, and generated the image of the unmerged ones."
    return Verdict(RIGHT, message, (one, other))


Stack = Callable[[Tensor, Tensor, float, Tensor, Tensor, float], tuple[Tensor, Tensor]]


def stack(yours: Stack) -> Verdict:
    """Two LoRAs of one layer as one: what counts is the product B A."""

    def product(stacked: Stack) -> Callable[..., Any]:
        def change(*case: Any) -> Any:
            answer = stacked(*case)
            if answer is None or answer is Ellipsis or any(part is Ellipsis for part in answer):
                return None
            A, B = answer
            return B @ A

        return change

    def right(A1: Tensor, B1: Tensor, s1: float, A2: Tensor, B2: Tensor, s2: float) -> tuple[Tensor, Tensor]:
        return torch.cat([A1, A2]), torch.cat([s1 * B1, s2 * B2], dim=1)

    mistakes: list[tuple[Callable, str]] = [
        (
            lambda A, B, s, C, D, t: (s * B + t * D) @ (A + C),
            "B1 + B2 times A1 + A2 has four products, and two of them mix the LoRAs. Keep them side by side.",
        ),
        (
            lambda A, B, s, C, D, t: (B + D) @ (s * A + t * C),
            "B1 + B2 times A1 + A2 has four products, and two of them mix the LoRAs. Keep them side by side.",
        ),
        (
            lambda A, B, s, C, D, t: (s * B + t * D) @ (s * A + t * C),
            "B1 + B2 times A1 + A2 has four products, and two of them mix the LoRAs. Keep them side by side.",
        ),
        (
            lambda A, B, s, C, D, t: (B + D) @ (A + C),
            "B1 + B2 times A1 + A2 has four products, and two of them mix the LoRAs. Keep them side by side.",
        ),
        (lambda A, B, s, C, D, t: B @ A + D @ C, "The strengths are missing: multiply each B by its own."),
        (
            lambda A, B, s, C, D, t: s * s * B @ A + t * t * D @ C,
            "The strengths are in both matrices, so they count twice. Put them into one of the two.",
        ),
        (lambda A, B, s, C, D, t: t * B @ A + s * D @ C, "The strengths are swapped."),
        (lambda A, B, s, C, D, t: D @ A + B @ C, "The order differs: what is first in A must be first in B."),
        (
            lambda A, B, s, C, D, t: t * D @ A + s * B @ C,
            "The order differs: what is first in A must be first in B.",
        ),
        (lambda A, B, s, C, D, t: s * B @ A, "The second LoRA is missing."),
        (lambda A, B, s, C, D, t: (s + t) * (B @ A + D @ C), "Each LoRA has a strength of its own."),
    ]
    A1, A2, B1, B2 = (draws(1, shape, seed)[0] for seed, shape in enumerate(((2, 6), (2, 6), (5, 2), (5, 2))))
    verdict = compare(product(yours), product(right), [(A1, B1, 0.5, A2, B2, 3.0)], mistakes)
    if verdict.status == WRONG and "raised RuntimeError" in verdict.message:
        hint = "The sizes do not fit. A grows by rows, dim=0, and B by columns, dim=1, to the rank r1 + r2."
        verdict = replace(verdict, message=hint)
    if verdict.status == WRONG and "raised TypeError" in verdict.message or "raised ValueError" in verdict.message:
        verdict = replace(verdict, message="Return two matrices, A and B.")
    different = (draws(1, (3, 6), 11)[0], draws(1, (5, 3), 12)[0])

    def other_ranks() -> Verdict:
        try:
            answer = product(yours)(A1, B1, 0.5, *different, 3.0)
        except Exception:
            return Verdict(WRONG, "It fails if the two ranks differ. Join the matrices with torch.cat.")
        expected = product(right)(A1, B1, 0.5, *different, 3.0)
        if not torch.allclose(answer, expected, rtol=1e-4, atol=1e-5):
            return Verdict(WRONG, "It is right for equal ranks only.")
        return Verdict(RIGHT, "One LoRA of rank r1 + r2 does what the two did.")

    return replace(verdict.then(other_ranks), answer=right)


# ---- the open build --------------------------------------------------------------------------------------------

FEWEST, MOST, TRIED = 4, 20, 40  # drawings, and steps of the check


def own_drawings(yours: Callable[[], Any], model: LatentDiffusion) -> Verdict:
    """Drawings and captions of the learner's own: does a short lesson lower the error on them?"""
    try:
        answer = yours()
    except Exception as error:
        return raised(error)
    if answer is None or answer is Ellipsis:
        return not_tried()
    if not isinstance(answer, tuple) or len(answer) != 2:
        return Verdict(WRONG, "Return two lists: the images, and a caption for each.")
    images, captions = answer
    if images is Ellipsis or captions is Ellipsis:
        return not_tried()
    if not isinstance(images, (list, tuple)) or not all(isinstance(image, Image.Image) for image in images):
        return Verdict(WRONG, "The images must be a list of PIL images.")
    if not isinstance(captions, (list, tuple)) or not all(isinstance(caption, str) for caption in captions):
        return Verdict(WRONG, "The captions must be a list of strings.")
    if len(images) != len(captions):
        return Verdict(WRONG, f"There are {len(images)} images and {len(captions)} captions; each image needs one.")
    if not FEWEST <= len(images) <= MOST:
        return Verdict(WRONG, f"There are {len(images)} images; {FEWEST} to {MOST} are asked for.")
    if len({image.convert("RGB").resize((32, 32)).tobytes() for image in images}) < len(images):
        return Verdict(WRONG, "Two of the images are the same. Vary whatever is not the thing itself.")
    examples = teach.encode_examples(model, images, [[caption] for caption in captions])
    *_, last = teach.teach(model, examples, steps=TRIED, learning_rate=2e-3)
    before, after = (_error(one, examples) for one in (model, last.model))
    told = f"Its error on your drawings was {before:.4f}, and after {TRIED} steps it is {after:.4f}"
    if not after < before:
        return Verdict(WRONG, f"{told}. It knew these drawings already: draw something new.")
    return Verdict(RIGHT, f"{told}. Now teach it properly, and look.")


@torch.no_grad()
def _error(model: LatentDiffusion, examples: teach.Examples) -> float:
    """The loss on the examples, always with the same noise."""
    generator = torch.Generator("cpu").manual_seed(0)
    x0, context = examples.batch(32, generator)
    return teach.teaching_loss(model, x0, context, generator).item()
