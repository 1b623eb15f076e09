"""The typical wrong answers to the exercises of notebook beyond/teach_it, and words of the hint that each must get.

An answer is the body of the function, or the whole of a function or class.
"""

ZERO_B = "nn.init.zeros_(self.lora_B.weight)"


def layer(forward: str, start: str = ZERO_B) -> str:
    """The solution's class with another forward or start."""
    return f"""class LoRALinear(nn.Module):
    def __init__(self, base_layer, rank, lora_alpha):
        super().__init__()
        self.base_layer = base_layer
        self.lora_A = nn.Linear(base_layer.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, base_layer.out_features, bias=False)
        self.scale = lora_alpha / rank
        {start}

    def forward(self, x):
        {forward}
"""


RIGHT_FORWARD = "return self.base_layer(x) + self.scale * self.lora_B(self.lora_A(x))"


def added(
    when: str = "name.endswith(tuple(target_modules))",
    what: str = "LoRALinear(layer, rank, rank)",
    before: str = "unet = copy.deepcopy(unet)",
    after: str = "pass",
    end: str = "return unet",
) -> str:
    """The body of add_lora with some of its parts replaced."""
    return f"""import copy
    {before}
    for name, layer in list(unet.named_modules()):
        if {when}:
            parent, _, child = name.rpartition(".")
            setattr(unet.get_submodule(parent), child, {what})
            {after}
    {end}"""


def step(
    join: str = "x0, context = torch.cat([new[0], old[0]]), torch.cat([new[1], old[1]])",
    loss: str = "loss = loss_of(net, x0, context)",
    rest: str = "optimizer.zero_grad(); loss.backward(); optimizer.step()",
    end: str = "return loss.item()",
) -> str:
    return f"{join}\n    {loss}\n    {rest}\n    {end}"


def stacked(A: str = "torch.cat([A1, A2])", B: str = "torch.cat([s1 * B1, s2 * B2], dim=1)") -> str:
    return f"return {A}, {B}"


MISTAKES: dict[str, list[tuple[str, str]]] = {
    "lora-linear": [
        (layer("return self.base_layer(x)"), "not used yet"),
        (layer("return self.scale * self.lora_B(self.lora_A(x))"), "base_layer is missing"),
        (layer("return self.lora_B(self.lora_A(x))"), "and self.scale, too"),
        (layer("return self.base_layer(x) + self.lora_B(self.lora_A(x))"), "strength is missing"),
        (layer("return self.base_layer(x) + self.lora_B(self.lora_A(x)) / self.scale"), "You divide"),
        (
            layer("return self.scale * (self.base_layer(x) + self.lora_B(self.lora_A(x)))"),
            "also multiplies base_layer",
        ),
        (layer("return self.base_layer(x) - self.scale * self.lora_B(self.lora_A(x))"), "sign"),
        (layer("y = self.base_layer(x)\n        return y + self.scale * self.lora_B(self.lora_A(y))"), "reads what"),
        (layer("return self.base_layer(x) + self.scale * self.lora_A(self.lora_B(x))"), "lora_A reads x first"),
        (layer(RIGHT_FORWARD, "pass"), "must change nothing"),
        (layer(RIGHT_FORWARD, "nn.init.zeros_(self.lora_A.weight)"), "lora_A starts at zero"),
        (layer(RIGHT_FORWARD, f"{ZERO_B}; nn.init.zeros_(self.lora_A.weight)"), "Both matrices start at zero"),
    ],
    "add-lora": [
        (added(before="pass"), "Work on a copy"),
        (added(when="isinstance(layer, nn.Linear)"), "Every linear layer"),
        (added(when="name.endswith(target_modules[0])"), "Each target counts"),
        (added(when="'mid_block' in name and name.endswith(tuple(target_modules))"), "in each block"),
        (added(when="name.endswith(('to_k', *target_modules))"), "is no target"),
        (added(what="LoRALinear(layer, 8, 8)"), "rank should be 3"),
        (added(what="LoRALinear(layer, rank, 1)"), "strength is not 1"),
        (added(after="return unet"), "Each target counts"),
        (added(end="return list(unet.modules())"), "must return the new UNet"),
    ],
    "lesson": [
        (step(join="x0, context = new"), "only learns from the new"),
        (step(join="x0, context = old"), "only learns from the old"),
        (step(join="pass", loss="loss = loss_of(net, *new) + loss_of(net, *old)"), "adds two means"),
        (step(join="x0, context = torch.cat([new[0], old[0]]), torch.cat([old[1], new[1]])"), "another order"),
        (step(rest="loss.backward(); optimizer.step()"), "earlier steps"),
        (step(rest="loss.backward(); optimizer.zero_grad(); optimizer.step()"), "throws the new gradients away"),
        (step(rest="optimizer.zero_grad(); optimizer.step()"), "loss.backward()"),
        (step(rest="optimizer.zero_grad(); loss.backward()"), "optimizer.step()"),
        (step(rest="optimizer.step(); optimizer.zero_grad(); loss.backward()"), "too early"),
    ],
    "merge": [
        ("return W", "not used yet"),
        ("return W + B @ A", "strength is missing"),
        ("return scale * (W + B @ A)", "also multiplies W"),
        ("return scale * B @ A", "W is missing"),
        ("return W - scale * B @ A", "sign"),
        ("return W + scale * A @ B", "sizes do not fit"),
        ("return W + scale * (B @ A).T", "transposed"),
        ("return W + B @ A / scale", "You divide"),
        ("W += scale * B @ A\n    return W", "in place"),
    ],
    "stack": [
        ("return s1 * A1 + s2 * A2, B1 + B2", "four products"),
        ("return A1 + A2, s1 * B1 + s2 * B2", "four products"),
        (stacked(B="torch.cat([B1, B2], dim=1)"), "strengths are missing"),
        (stacked(A="torch.cat([s1 * A1, s2 * A2])"), "count twice"),
        (stacked(B="torch.cat([s2 * B1, s1 * B2], dim=1)"), "swapped"),
        (stacked(A="torch.cat([A2, A1])"), "order differs"),
        (stacked(B="torch.cat([s2 * B2, s1 * B1], dim=1)"), "order differs"),
        (stacked(B="torch.cat([s1 * B1, s2 * B2])"), "by columns"),
        (stacked(A="torch.cat([A1, A2], dim=1)"), "by columns"),
        ("return s1 * B1 @ A1 + s2 * B2 @ A2", "two matrices"),
        ("return A1, s1 * B1", "second LoRA is missing"),
    ],
    "own": [
        ("return [], []", "There are 0 images"),
        ("return [ldm.scenes.Scene().render()] * 5, ['a dog'] * 5", "are the same"),
        ("return [ldm.scenes.Scene().render()], ['a dog', 'a cat']", "each image needs one"),
        ("return ['dog.png'], ['a dog']", "PIL images"),
        ("return [ldm.scenes.Scene().render()], [7]", "list of strings"),
        ("return [ldm.scenes.Scene().render()]", "two lists"),
    ],
}
