"""What a scene holds: setting, time of day and placed things, from which image, text and labels follow.

Positions are fractions of the frame (x from the left, y from the top), sizes are fractions of its height.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

Time = Literal["day", "sunset", "night"]

LABELS = (
    "animal",
    "beach",
    "bird",
    "boat",
    "bridge",
    "building",
    "car",
    "cloud",
    "flower",
    "house",
    "lighthouse",
    "moon",
    "mountain",
    "night",
    "person",
    "rainbow",
    "road",
    "snow",
    "star",
    "sunset",
    "tree",
    "water",
)

MIN_LABELS = 2
MAX_LABELS = 6
_CANDIDATES = 14  # positions tried for a thing; the one that hides the least is taken


class Thing(NamedTuple):
    """Something visible, drawn with randomness of its own, so that removing it changes nothing else."""

    label: str
    variant: str
    x: float
    y: float
    size: float
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """Everything that can be seen in one image."""

    setting: str
    time: Time
    horizon: float
    """Where the land or water meets what stands behind it."""
    shore: float
    """Where the near ground starts: the horizon where there is no water, 1 where water fills the foreground."""
    seed: int
    """Randomness of what is no thing: palette, hills, grass."""
    things: tuple[Thing, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of all things and of the time of day, in the order of `LABELS`."""
        seen = {thing.label for thing in self.things} | {self.time}
        return tuple(label for label in LABELS if label in seen)

    def of(self, label: str) -> tuple[Thing, ...]:
        """The things with this label."""
        return tuple(thing for thing in self.things if thing.label == label)

    def has(self, label: str, variant: str) -> bool:
        """Whether a thing with this label and variant is there."""
        return any(thing.variant == variant for thing in self.of(label))


class _Chance(NamedTuple):
    label: str
    probability: float
    needs: str = ""
    unless: str = ""


class _Setting(NamedTuple):
    weight: float
    times: tuple[float, float, float]  # day, sunset, night
    horizon: tuple[float, float]
    always: tuple[str, ...]
    chances: tuple[_Chance, ...]


_SETTINGS = {
    "coast": _Setting(
        0.2,
        (0.45, 0.35, 0.2),
        (0.42, 0.56),
        ("water",),
        (
            _Chance("beach", 0.55),
            _Chance("boat", 0.6),
            _Chance("lighthouse", 0.42),
            _Chance("person", 0.5, needs="beach"),
            _Chance("tree", 0.45, needs="beach"),
            _Chance("mountain", 0.12),
        ),
    ),
    "lake": _Setting(
        0.15,
        (0.55, 0.25, 0.2),
        (0.44, 0.56),
        ("water",),
        (
            _Chance("mountain", 0.65),
            _Chance("snow", 0.4, needs="mountain"),
            _Chance("tree", 0.6),
            _Chance("boat", 0.4),
            _Chance("bridge", 0.2),
            _Chance("house", 0.25),
            _Chance("animal", 0.15),
            _Chance("person", 0.15),
        ),
    ),
    "mountain": _Setting(
        0.15,
        (0.6, 0.2, 0.2),
        (0.52, 0.64),
        ("mountain",),
        (
            _Chance("snow", 0.6),
            _Chance("tree", 0.6),
            _Chance("road", 0.25),
            _Chance("car", 0.4, needs="road"),
            _Chance("animal", 0.3),
            _Chance("house", 0.3),
            _Chance("flower", 0.2),
            _Chance("person", 0.2),
        ),
    ),
    "city": _Setting(
        0.18,
        (0.4, 0.2, 0.4),
        (0.6, 0.68),
        ("building",),
        (
            _Chance("water", 0.45),
            _Chance("bridge", 0.5, needs="water"),
            _Chance("boat", 0.35, needs="water"),
            _Chance("road", 0.6, unless="boat"),
            _Chance("car", 0.75, needs="road"),
            _Chance("person", 0.35),
            _Chance("tree", 0.35),
        ),
    ),
    "village": _Setting(
        0.13,
        (0.5, 0.22, 0.28),
        (0.46, 0.58),
        ("house",),
        (
            _Chance("snow", 0.4),
            _Chance("road", 0.5),
            _Chance("car", 0.5, needs="road"),
            _Chance("tree", 0.55),
            _Chance("animal", 0.25),
            _Chance("flower", 0.35, unless="snow"),
            _Chance("person", 0.3),
            _Chance("mountain", 0.15),
        ),
    ),
    "meadow": _Setting(
        0.11,
        (0.75, 0.2, 0.05),
        (0.44, 0.58),
        (),
        (
            _Chance("flower", 0.75),
            _Chance("animal", 0.6),
            _Chance("tree", 0.5),
            _Chance("road", 0.2),
            _Chance("house", 0.15),
            _Chance("person", 0.25),
        ),
    ),
    "forest": _Setting(
        0.08,
        (0.6, 0.15, 0.25),
        (0.48, 0.58),
        ("tree",),
        (
            _Chance("snow", 0.35),
            _Chance("road", 0.45),
            _Chance("animal", 0.45),
            _Chance("flower", 0.3, unless="snow"),
            _Chance("person", 0.3),
        ),
    ),
}

_SKY: dict[Time, tuple[_Chance, ...]] = {
    "day": (_Chance("cloud", 0.5), _Chance("rainbow", 0.17, unless="snow"), _Chance("bird", 0.25)),
    "sunset": (_Chance("cloud", 0.4), _Chance("bird", 0.35)),
    "night": (_Chance("moon", 0.68), _Chance("star", 0.65)),
}

_VARIANTS = {
    "animal": ("sheep", "cow", "horse", "dog"),
    "boat": ("sail", "sail", "motor", "rowing"),
    "bridge": ("arches",),
    "flower": ("poppy", "daisy", "tulip", "lavender", "sunflower"),
    "moon": ("full", "crescent"),
    "road": ("winding",),
    "snow": ("ground",),
    "tree": ("conifer", "broadleaf", "poplar"),
}
_VARIANTS_IN = {
    ("coast", "tree"): ("palm",),
    ("city", "tree"): ("broadleaf", "poplar"),
    ("city", "bridge"): ("arches", "suspension"),
    ("city", "road"): ("street",),
    ("forest", "animal"): ("deer", "deer", "dog"),
    ("lake", "snow"): ("caps",),
    ("mountain", "snow"): ("caps",),
}


class _Placing(NamedTuple):
    zone: Literal["sky", "water", "ground", "backdrop"]
    number: tuple[int, int]
    size: tuple[float, float]  # as near as possible; things on the ground and on water shrink with distance
    aspect: float  # width / height
    depth: tuple[float, float] = (0.0, 1.0)  # 0 at the horizon, 1 at the lower edge


_PLACING = {
    "beach": _Placing("backdrop", (1, 1), (1, 1), 1),
    "bridge": _Placing("backdrop", (1, 1), (0.1, 0.15), 1),
    "building": _Placing("backdrop", (1, 1), (0.3, 0.48), 1),
    "mountain": _Placing("backdrop", (1, 1), (0.24, 0.4), 1),
    "rainbow": _Placing("backdrop", (1, 1), (0.55, 0.85), 1),
    "road": _Placing("backdrop", (1, 1), (0.13, 0.19), 1),
    "snow": _Placing("backdrop", (1, 1), (1, 1), 1),
    "star": _Placing("backdrop", (1, 1), (1, 1), 1),
    "water": _Placing("backdrop", (1, 1), (1, 1), 1),
    "moon": _Placing("sky", (1, 1), (0.09, 0.16), 1),
    "cloud": _Placing("sky", (2, 4), (0.12, 0.2), 2.4),
    "bird": _Placing("sky", (3, 7), (0.045, 0.085), 2),
    "lighthouse": _Placing("backdrop", (1, 1), (0.32, 0.4), 0.3),
    "boat": _Placing("water", (1, 3), (0.3, 0.5), 0.9, (0.12, 0.6)),
    "house": _Placing("ground", (1, 2), (0.4, 0.52), 1.4, (0.08, 0.4)),
    "tree": _Placing("ground", (1, 4), (0.55, 0.8), 0.6, (0.08, 0.5)),
    "car": _Placing("ground", (1, 2), (0.15, 0.17), 2.2, (0.5, 0.85)),
    "animal": _Placing("ground", (1, 3), (0.19, 0.25), 1.4, (0.4, 0.9)),
    "person": _Placing("ground", (1, 3), (0.32, 0.4), 0.4, (0.4, 0.9)),
    "flower": _Placing("ground", (1, 1), (0.12, 0.2), 4, (0.75, 0.95)),
}
_NUMBER_IN = {("village", "house"): (2, 4), ("forest", "tree"): (9, 14), ("coast", "tree"): (1, 3)}
_SHORE_IN = {"coast": (0.7, 0.8), "lake": (0.72, 0.84), "city": (0.77, 0.81)}


_Box = tuple[float, float, float, float]  # left, top, right, bottom


class _Land(NamedTuple):
    """What positions depend on."""

    setting: str
    horizon: float
    shore: float
    road: Thing | None


def road_at(road: Thing, horizon: float, y: float) -> tuple[float, float]:
    """Centre and half-width of a winding road at height `y`, as fractions of the frame's width."""
    depth = max(0.0, (y - horizon) / (1 - horizon))
    bend = 0.16 * np.sin(road.seed % 7 + 4.2 * np.sqrt(depth)) * (1 - depth) * depth**0.5
    return road.x + (0.5 - road.x) * 0.6 * (1 - depth) + float(bend), road.size * depth**1.3 + 0.004


def draw_scene(rng: np.random.Generator) -> Scene:
    """Draw the content of one scene."""
    names = list(_SETTINGS)
    weights = np.array([_SETTINGS[name].weight for name in names])
    name = names[rng.choice(len(names), p=weights / weights.sum())]
    times: tuple[Time, ...] = ("day", "sunset", "night")
    time = times[rng.choice(3, p=_SETTINGS[name].times)]
    labels = _draw_labels(_SETTINGS[name], time, rng)
    horizon = rng.uniform(*_SETTINGS[name].horizon)
    shore = horizon
    if "water" in labels:
        near = {"beach", "road", *(label for label, placing in _PLACING.items() if placing.zone == "ground")}
        banked = not near.isdisjoint(labels) or (name == "lake" and rng.random() < 0.5)
        shore = rng.uniform(*_SHORE_IN[name]) if banked else 1.0
    return Scene(
        setting=name,
        time=time,
        horizon=horizon,
        shore=shore,
        seed=int(rng.integers(2**31)),
        things=_place([label for label in labels if label != time], _Land(name, horizon, shore, None), rng),
    )


def _draw_labels(setting: _Setting, time: Time, rng: np.random.Generator) -> list[str]:
    """Draw labels in the order of the tables, then drop optional ones that nothing needs until few enough are left."""
    fixed = [*setting.always, *((time,) if time != "day" else ())]
    chances = [*setting.chances, *_SKY[time]]
    labels = list(fixed)
    for chance in chances:
        possible = (not chance.needs or chance.needs in labels) and chance.unless not in labels
        if possible and rng.random() < chance.probability:
            labels.append(chance.label)
    while len(labels) > MAX_LABELS:
        needed = {chance.needs for chance in chances if chance.label in labels}
        labels.remove(rng.choice([x for x in labels if x not in needed and x not in fixed]))
    likely = (c.label for c in sorted(chances, key=lambda c: -c.probability) if not c.needs and c.label not in labels)
    while len(labels) < MIN_LABELS:
        labels.append(next(likely))
    return labels


def _place(labels: list[str], land: _Land, rng: np.random.Generator) -> tuple[Thing, ...]:
    """Give every label its things, in the order of `_PLACING`, each where it overlaps earlier ones least."""
    things: list[Thing] = []
    boxes: list[_Box] = []
    for label in [label for label in _PLACING if label in labels]:
        placing = _PLACING[label]
        low, high = _NUMBER_IN.get((land.setting, label), placing.number)
        variants = _VARIANTS_IN.get((land.setting, label), _VARIANTS.get(label, ("",)))
        variant = variants[rng.integers(len(variants))]
        for _ in range(int(rng.integers(low, high + 1))):
            size = rng.uniform(*placing.size)
            thing = Thing(label, variant, rng.uniform(0.3, 0.7), land.horizon, size, int(rng.integers(2**31)))
            if label == "lighthouse":
                thing = thing._replace(x=0.5 + rng.choice([-1, 1]) * rng.uniform(0.28, 0.36), y=land.horizon - 0.04)
                boxes.append(_box(thing))
            elif placing.zone != "backdrop":
                tries = [_move(thing, land, rng) for _ in range(_CANDIDATES)]
                thing = min(tries, key=lambda moved: _overlap(_box(moved), boxes))
                boxes.append(_box(thing))
            things.append(thing)
        if label == "road":
            land = land._replace(road=things[-1])
    return tuple(things)


def _move(thing: Thing, land: _Land, rng: np.random.Generator) -> Thing:
    """Try a random position in the thing's zone; what is farther away becomes smaller."""
    placing, road = _PLACING[thing.label], land.road
    x, depth = rng.uniform(0.08, 0.92), rng.uniform(*placing.depth)
    if placing.zone == "sky":
        return thing._replace(x=x, y=rng.uniform(0.1, land.horizon * 0.55))
    if thing.label == "car" and road is not None:
        return _drive(thing, land.horizon, road, rng)
    if placing.zone == "water":
        y = land.horizon + (land.shore - land.horizon) * (0.12 + 0.75 * depth)
    elif road is not None and road.variant == "street":
        y = rng.uniform(land.shore + 0.02, 0.84) if thing.label == "tree" else rng.choice([0.85, 0.985])
    else:
        y = max(land.horizon + (1 - land.horizon) * depth, land.shore + 0.03 + 0.12 * depth)
        centre, half = road_at(road, land.horizon, y) if road is not None else (0.0, 0.0)
        if abs(x - centre) < half + 0.06 and thing.label != "flower":
            x = float(np.clip(centre + np.copysign(half + 0.06 + rng.uniform(0, 0.2), x - centre), 0.05, 0.95))
    near = 0.38 + 0.62 * (y - land.horizon) / (1 - land.horizon)
    return thing._replace(x=x, y=y, size=thing.size * near)


def _drive(car: Thing, horizon: float, road: Thing, rng: np.random.Generator) -> Thing:
    """Put a car on one of the road's two lanes; on a winding road its size is its width as a share of the frame's."""
    if road.variant == "street":
        return car._replace(x=rng.uniform(0.08, 0.92), y=rng.choice([0.9, 0.95]))
    y = horizon + (1 - horizon) * rng.uniform(*_PLACING["car"].depth)
    centre, half = road_at(road, horizon, y)
    side = rng.choice([-1, 1])
    return car._replace(variant="rear" if side > 0 else "front", x=centre + side * half * 0.5, y=y, size=half * 1.1)


def _box(thing: Thing) -> _Box:
    """The space a thing takes: sky things are centred on their position, others stand on it."""
    placing = _PLACING[thing.label]
    half = thing.size * placing.aspect * 0.375  # sizes are of the height, and the frame is about 4:3
    if placing.zone == "sky":
        return thing.x - half, thing.y - thing.size / 2, thing.x + half, thing.y + thing.size / 2
    return thing.x - half, thing.y - thing.size, thing.x + half, thing.y


def _overlap(box: _Box, others: list[_Box]) -> float:
    """Summed share of the smaller box that is covered, over all others."""
    total = 0.0
    for other in others:
        across = min(box[2], other[2]) - max(box[0], other[0])
        along = min(box[3], other[3]) - max(box[1], other[1])
        if across > 0 and along > 0:
            areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
            total += across * along / min(areas)
    return total
