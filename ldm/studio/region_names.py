"""Readable region names instead of the data set's abbreviations."""

from ldm.data.labels import LabelSet

WORDS = {
    "eye_g": "glasses",
    "l_eye": "left eye",
    "r_eye": "right eye",
    "l_brow": "left brow",
    "r_brow": "right brow",
    "l_ear": "left ear",
    "r_ear": "right ear",
    "u_lip": "upper lip",
    "l_lip": "lower lip",
    "ear_r": "earrings",
    "neck_l": "necklace",
    "cloth": "clothes",
}


def readable(region: str) -> str:
    """Return the readable name of a region."""
    return WORDS.get(region, region.replace("_", " "))


def for_browser(label_set: LabelSet) -> list[dict[str, object]]:
    """Return each region's properties for the scripts: index, key, name, color, mirror and name of the pair."""
    return [
        {
            "label": number,
            "key": region,
            "name": readable(region),
            "color": list(label_set.palette[number]),
            "mirror": label_set.mirror[number],
            "pair": readable(region).partition(" ")[2] + "s" if label_set.mirror[number] != number else "",
        }
        for number, region in enumerate(label_set.regions)
    ]
