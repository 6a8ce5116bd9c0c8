"""The sentence about a scene: synonyms, omissions, small talk, and now and then something that is not there."""

from collections.abc import Callable

import numpy as np

from examples.demo_scenes.scene import LABELS, Scene
from examples.demo_scenes.spec import DemoSpec

# What can be counted, as "singular/plural"; the plain name comes first. A variant's own names join its label's.
NOUNS = {
    "animal": ("animal/animals", "creature/creatures", "beast/beasts"),
    "sheep": ("sheep/sheep", "lamb/lambs", "ewe/ewes"),
    "cow": ("cow/cows", "calf/calves", "heifer/heifers"),
    "horse": ("horse/horses", "pony/ponies", "mare/mares"),
    "dog": ("dog/dogs", "puppy/puppies", "terrier/terriers"),
    "deer": ("deer/deer", "stag/stags", "doe/does"),
    "bird": ("bird/birds", "gull/gulls", "swallow/swallows", "crow/crows", "pigeon/pigeons"),
    "boat": ("boat/boats", "vessel/vessels", "craft/craft"),
    "sail": ("sailboat/sailboats", "yacht/yachts", "dinghy/dinghies"),
    "motor": ("motorboat/motorboats", "trawler/trawlers", "ferry/ferries"),
    "rowing": ("rowing boat/rowing boats", "skiff/skiffs", "canoe/canoes"),
    "bridge": ("bridge/bridges", "crossing/crossings", "viaduct/viaducts"),
    "building": (
        "building/buildings",
        "tower/towers",
        "skyscraper/skyscrapers",
        "office block/office blocks",
    ),
    "car": ("car/cars", "taxi/taxis", "hatchback/hatchbacks", "vehicle/vehicles", "sedan/sedans"),
    "flower": ("flower/flowers", "blossom/blossoms", "bloom/blooms"),
    "poppy": ("poppy/poppies",),
    "daisy": ("daisy/daisies",),
    "tulip": ("tulip/tulips",),
    "lavender": ("lavender/lavender",),
    "sunflower": ("sunflower/sunflowers",),
    "house": ("house/houses", "cottage/cottages", "cabin/cabins", "farmhouse/farmhouses", "home/homes"),
    "lighthouse": ("lighthouse/lighthouses", "beacon/beacons", "tower/towers"),
    "person": (
        "person/people",
        "walker/walkers",
        "stranger/strangers",
        "tourist/tourists",
        "neighbour/neighbours",
    ),
    "tree": ("tree/trees",),
    "conifer": ("pine/pines", "fir/firs", "spruce/spruces"),
    "broadleaf": ("oak/oaks", "maple/maples", "beech/beeches"),
    "poplar": ("poplar/poplars", "birch/birches", "cypress/cypresses"),
    "palm": ("palm/palms", "palm tree/palm trees", "coconut tree/coconut trees"),
}
PLURAL_ONLY = ("building", "flower", "tree")  # never just one of them, or better named together

# Where it is; the plain name comes first. A setting's or variant's own phrases join its label's.
PLACES = {
    "water": ("by the water", "next to the water"),
    "water/coast": ("by the sea", "by the ocean", "facing the waves", "on the coast", "at high tide"),
    "water/lake": ("by the lake", "on the lakeshore", "beside a pond", "near a calm mere"),
    "water/city": ("by the river", "along the canal", "on the waterfront", "at the embankment"),
    "beach": ("on the beach", "on the sand", "in the dunes", "on a sandy shore", "in the bay"),
    "mountain": (
        "below the mountains",
        "under the peaks",
        "in the Alps",
        "near the summit",
        "facing the ridge",
    ),
    "road": ("along the road", "by the highway", "beside a lane", "at the roadside", "near the crossing"),
    "road/city": ("on the street", "along the avenue", "on the boulevard"),
    "snow/ground": (
        "in the snow",
        "after the blizzard",
        "in deep winter",
        "in fresh powder",
        "in the white cold",
    ),
    "snow/caps": (
        "with snow on top",
        "with white summits",
        "facing a glacier",
        "below eternal ice",
        "in snowy heights",
    ),
}
SKIES = {
    "cloud": ("under the clouds", "under a grey ceiling", "with rain on its way", "under drifting cumulus"),
    "moon": ("under the moon", "by moonlight", "with a pale disc above", "in silver light"),
    "rainbow": ("with a rainbow", "under a coloured arch", "after a shower", "in seven colours"),
    "star": (
        "under the stars",
        "below the constellations",
        "under a glittering sky",
        "with the Milky Way above",
    ),
}
TIMES = {
    "night": ("at night", "after dark", "around midnight", "in the small hours", "late"),
    "sunset": ("at sunset", "at dusk", "in the evening light", "at golden hour", "as the day ends"),
}

ONE = ("a", "a", "a", "one", "a single", "a small", "a lonely", "an old", "a pretty")
SEVERAL = ("some", "several", "a few", "many", "the")
NUMBERS = {2: ("two", "a pair of"), 3: ("three",), 4: ("four",)}
VIEWS = (
    "a quiet view",
    "a postcard",
    "a peaceful scene",
    "a favourite spot",
    "an empty place",
    "a long pause",
)
OPENINGS = (
    "",
    "",
    "",
    "",
    "photo of ",
    "look: ",
    "we came upon ",
    "my picture of ",
    "there we saw ",
    "the place with ",
)
NOISE = (
    "taken with my old camera",
    "holiday 2009",
    "for grandma",
    "nothing edited",
    "the first one of the series",
    "what a week",
    "on the way home",
    "I was hungry",
    "print this one, please",
    "best day of the trip",
    "sorry for the blur",
    "my sister liked it",
    "three hours from home",
    "with the new lens",
    "we stayed far too long",
    "number 12 in the album",
    "on a Tuesday",
    "as told in my last letter",
    "a bit crooked",
    "it smelled of coffee",
    "just before lunch",
    "still my favourite",
    "my hands were cold",
    "Dad drove",
)
MISSING = (
    "no {} this time",
    "the {} came later",
    "we had hoped for {}",
    "out of frame: {}",
    "nobody saw the {}",
)


def write_sentence(scene: Scene, spec: DemoSpec, rng: np.random.Generator) -> str:
    """Write one sentence that names at least one label of the scene."""

    def pick(options: tuple[str, ...]) -> str:
        return options[rng.integers(len(options))]

    def name(options: tuple[str, ...]) -> str:
        return pick(options) if rng.random() < spec.synonym else options[0]

    labels = scene.labels
    kept = [label for label in labels if rng.random() >= spec.omission] or [pick(labels)]
    subjects = [_count(name(_names(scene, x)), x, len(scene.of(x)), pick) for x in kept if x in NOUNS]
    order = rng.permutation(len(subjects))
    subject = pick(OPENINGS) + _enumerate([subjects[i] for i in order]) if subjects else pick(VIEWS)
    places = [name(_places(scene, x)) for x in kept if _places(scene, x)]
    around = [name(SKIES[x]) for x in kept if x in SKIES]
    when = [name(TIMES[x]) for x in kept if x in TIMES]
    lead = when if when and rng.random() < 0.4 else around[:1] if rng.random() < 0.2 else []
    tail = [x for x in (*places, *around, *when) if x not in lead]
    parts = [*lead, " ".join([subject, *tail[:1]]), *tail[1:]]
    if rng.random() < spec.misleading:
        absent = tuple(x for x in LABELS if x not in labels and x in NOUNS)
        parts.append(pick(MISSING).format(name(NOUNS[pick(absent)]).split("/")[1]))
    if rng.random() < spec.noise:
        parts.insert(0 if rng.random() < 0.2 else len(parts), pick(NOISE))
    text = ", ".join(parts)
    return text[0].upper() + text[1:] + "."


def _names(scene: Scene, label: str) -> tuple[str, ...]:
    """The label's names and those of the variant that the scene shows."""
    return NOUNS[label] + NOUNS.get(scene.of(label)[0].variant, ())


def _places(scene: Scene, label: str) -> tuple[str, ...]:
    """The label's phrases of place, with those of the setting and of the variant; none where it is no place."""
    variants = {thing.variant for thing in scene.of(label)[:1]}
    keys = [label, *(f"{label}/{kind}" for kind in (scene.setting, *variants))]
    return tuple(phrase for key in keys for phrase in PLACES.get(key, ()))


def _count(noun: str, label: str, number: int, pick: Callable[[tuple[str, ...]], str]) -> str:
    """The noun with a number or an adjective in front."""
    singular, plural = noun.split("/")
    if number > 1 or label in PLURAL_ONLY:
        return f"{pick(SEVERAL + NUMBERS.get(number, ()))} {plural}"
    article = pick(ONE)
    return f"{'an' if article == 'a' and singular.startswith(('a', 'o')) else article} {singular}"


def _enumerate(items: list[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
