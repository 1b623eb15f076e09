"""Animals made of two. They show the UNet the parts of a held-out combination beside each other, never the whole.

A dog's ears meet glasses only on a dog with glasses, so whoever never saw one has never seen where the two touch.
A chimera has the ears, but the nose and the body of a cat. It is named after both, by the shares of its parts.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from PIL import Image

from ldm_course.scenes.drawing import draw
from ldm_course.scenes.held_out import is_held_out
from ldm_course.scenes.scene import Scene, random_scene, training_scene
from ldm_course.scenes.svg import document, rasterise
from ldm_course.scenes.vocabulary import ATTRIBUTES

SHARES = {"head": 0.45, "face": 0.3, "body": 0.25}
"""How much a part says about which animal it is; "head" with its ears, "face" is nose, mouth or trunk."""
UNTOUCHED = {"animal": "elephant", "action": "sleeping"}
"""The held-out combination of which chimeras show no part: it stays what the course's model cannot compose."""


@dataclass(frozen=True)
class Chimera:
    """A scene in which some parts of the animal are another's.

    animals: the animal of each part in `SHARES`, the scene's own or the other one.
    """

    scene: Scene
    other: str
    animals: dict[str, str]

    @property
    def share(self) -> float:
        """How much of the animal is the scene's own, between 0 and 1."""
        return sum(share for part, share in SHARES.items() if self.animals[part] == self.scene.animal)

    def render(self, size: int = 128) -> Image.Image:
        """The image as RGB, `size` x `size` pixels."""
        return rasterise(document(draw(self.scene, self.animals)), size)


def random_chimera(rng: random.Random) -> Chimera:
    """A chimera at random, half of them of held-out combinations.

    An animal never has both head and face in a combination that is held out for it: of a dog that must not wear
    glasses there is the head on any body, or nose and body, but never head and nose. Of `UNTOUCHED` there is no part.
    """
    while True:
        scene = random_scene(rng, held_out=rng.random() < 0.5)
        other = rng.choice([animal for animal in ATTRIBUTES["animal"] if animal != scene.animal])
        made = Chimera(scene, other, {part: rng.choice((scene.animal, other)) for part in SHARES})
        both = scene, replace(scene, animal=other)
        if len(set(made.animals.values())) == 1 or any(UNTOUCHED.items() <= one.attributes().items() for one in both):
            continue
        if made.animals["head"] != made.animals["face"] or not is_held_out(both[made.animals["head"] == other]):
            return made


def mixed_scene(seed: int, index: int) -> Scene | Chimera:
    """Number `index` of the UNet's endless training set: two of five are chimeras, the others training scenes."""
    if index % 5 < 2:
        return random_chimera(random.Random(f"chimera-{seed}-{index}"))
    return training_scene(seed, index)
